"""Numbers as people read them, and of many only so many, evenly."""

import json
import os

from library.formatting import duration, every_nth, file_size, from_end_to_end, json_text, number, visible


def test_figures_are_written_for_people():
    assert [file_size(n) for n in (0, 999, 1000, 202_200, 6_938_040_682)] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "202 kB",
        "6.9 GB",
    ]
    assert [number(v) for v in (None, 12345, 0.123456, 2e-5, True)] == ["–", "12,345", "0.1235", "2e-05", "yes"]
    assert [duration(s) for s in (4.21, 200, 7500)] == ["4.2 s", "3 min 20 s", "2 h 5 min"]


def test_each_nth_is_taken_from_the_first_on():
    assert every_nth(7, 3) == [0, 3, 6]
    assert every_nth(3, 7) == [0, 1, 2]
    assert every_nth(0, 3) == []
    assert len(every_nth(1001, 200)) <= 200


def test_the_first_and_the_last_are_taken():
    assert from_end_to_end(101, 3) == [0, 50, 100]
    assert from_end_to_end(2, 3) == [0, 1]
    assert from_end_to_end(0, 3) == []


def test_texts_from_outside_are_printable_and_json_gives_them_back():
    name = os.fsdecode(b"caf\xe9 \x1b[31m\x9b2J\xe2\x80\xae.png")
    assert visible(name) == r"caf\udce9 \x1b[31m\udc9b2J\u202e.png"
    text = json_text({"name": name, "lines": "a\nb ü 猫"}, indent=1)
    assert json.loads(text) == {"name": name, "lines": "a\nb ü 猫"}
    assert "ü 猫" in text
    assert text.encode("utf-8").isascii() is False
    assert not any(ord(letter) < 32 and letter != "\n" for letter in text)
