"""Texts that would keep a reader busy or end it are one sentence."""

from __future__ import annotations

import json
import tomllib

import pytest

from library.bounded_text import LONGEST, Unreadable, parse_json, parse_toml, read_bytes, shortened

DIGITS = "9" * 5000


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 10_000,
        "a = " + "{a=" * 10_000,
        "a." * 1_000_000 + "a = 1",
        "[" + "'a' . " * 1_000_000 + "a]",
        "b = 1\nx = {" + "a." * 1_000_000 + "a = 1}",
    ],
    ids=lambda text: text[:10],
)
def test_nesting_without_end_is_refused(text):
    with pytest.raises(Unreadable, match="inside each other without end"):
        parse_toml(text)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000])
def test_nesting_without_end_is_refused_in_json(text):
    with pytest.raises(Unreadable, match="inside each other without end"):
        parse_json(text)


@pytest.mark.parametrize("number", [DIGITS, "0x" + DIGITS])
def test_numbers_of_thousands_of_digits_are_refused(number):
    with pytest.raises(Unreadable, match="has a number that cannot be read"):
        parse_toml(f"a = {number}")


def test_numbers_of_thousands_of_digits_are_refused_in_json():
    with pytest.raises(Unreadable, match="has a number that cannot be read"):
        parse_json(f'{{"a": {DIGITS}}}')


def test_what_is_only_wrong_is_recognised_by_the_parsers():
    with pytest.raises(tomllib.TOMLDecodeError):
        parse_toml("a = ")
    with pytest.raises(json.JSONDecodeError):
        parse_json("{")


def test_what_people_write_is_read():
    dotted = ".".join("a" * 50)
    assert parse_toml(f"{dotted} = 1\nb = 'x.y.z'")["b"] == "x.y.z"
    assert parse_json('{"a": [[[1]]]}') == {"a": [[[1]]]}


def test_a_long_file_is_not_read_to_its_end(tmp_path):
    with (tmp_path / "a").open("wb") as file:
        file.truncate(100 * LONGEST)  # a hole: no byte of it is on the disk
    with pytest.raises(Unreadable, match="is longer than 1 MB"):
        read_bytes(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"x" * 10)
    assert read_bytes(tmp_path / "a", longest=10) == b"x" * 10
    with pytest.raises(Unreadable):
        read_bytes(tmp_path / "a", longest=9)


def test_what_is_too_long_to_show_is_shortened():
    assert (shortened("a" * 200), shortened("a" * 201)) == ("a" * 200, "a" * 200 + "...")
