"""Captions: what is read, what is said in each epoch, and what is said about those that are missing.

Results named "recorded" are sd-scripts' own, commit 48d368fa: library/train_util.py:821 (wording) and :1901 (files).
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from library.data.captions import BadCaption, about_missing_captions, first_line, read_caption
from library.data.dataset import build
from library.data.keys import key
from library.data.text_cache import captions_to_come
from library.data.wording import shuffled, worded

RECORDED_FILES = [
    # image, files, extension, caption (None: no caption file)
    ("p.png", {"p.txt": "red, blue"}, ".txt", "red, blue"),
    ("p.png", {"p.txt": "red, blue"}, ".caption", None),
    ("p.png", {"p.caption": " red, blue \ngreen\n"}, ".caption", "red, blue"),
    ("p.png", {"p.caption": "\nred\n"}, ".caption", ""),
    ("p.webp", {"p.txt": "red", "p.caption": "blue"}, ".txt", "red"),
    ("p.png", {"p.txt": "red", "p.png.txt": "blue"}, ".txt", "red"),
    ("p.png", {"p.png.txt": "blue"}, ".txt", None),
    ("p_10_20_30_40.png", {"p.txt": "red"}, ".txt", "red"),
    ("p.q.png", {"p.q.txt": "red"}, ".txt", "red"),
    ("p.png", {"p.txt": "RED, red, blue,, blue "}, ".txt", "RED, red, blue,, blue"),
    ("p.png", {"p.txt": "red\r\nblue"}, ".txt", "red"),
    ("p.png", {"p.txt": " \n"}, ".txt", ""),
    ("p.png", {}, ".txt", None),
]

RECORDED_WORDINGS = [
    # options, caption, result of every draw
    ({}, "horse, stone, tower, cloud, hat, street", "horse, stone, tower, cloud, hat, street"),
    ({}, "  meadow, outdoors, green, blue, bird, sketch ,", "  meadow, outdoors, green, blue, bird, sketch ,"),
    ({"caption_separator": ";"}, "bridge; smile; lamp; river; street", "bridge; smile; lamp; river; street"),
    ({"caption_prefix": "foo bar"}, "cloud, sunset, green", "foo bar cloud, sunset, green"),
    ({"caption_suffix": "end tag"}, "lamp, apple, dog", "lamp, apple, dog end tag"),
    ({"caption_prefix": "pp,", "caption_suffix": ", ss"}, "tower, cloud, hat", "pp, tower, cloud, hat , ss"),
    ({"caption_prefix": ""}, "forest, garden", "forest, garden"),
    ({"caption_dropout_rate": 1.0, "caption_prefix": "keepme"}, "bird, cat, window, boat, forest, sketch", ""),
    ({"caption_dropout_rate": 0.0}, "street, cloud, forest, dog, apple", "street, cloud, forest, dog, apple"),
    ({"keep_tokens": 3}, "smile, chair, watercolor, red, standing", "smile, chair, watercolor, red, standing"),
    ({}, "", ""),
    ({"caption_prefix": "pre"}, "", "pre "),
    ({"shuffle_caption": True}, "", ""),
    ({"shuffle_caption": True}, "red", "red"),
    ({"shuffle_caption": True, "keep_tokens": 9}, "boat, smile,chair", "boat, smile, chair"),
]

RECORDED_SHUFFLES = [
    # options, caption, fixed first tags, the others, distinct results
    ({"keep_tokens": 0}, "sketch, apple, forest, night", [], ["apple", "forest", "night", "sketch"], 24),
    ({"keep_tokens": 2}, "cat, dog, red, hat, boat, sea", ["cat", "dog"], ["boat", "hat", "red", "sea"], 24),
    ({"caption_separator": ";"}, "lamp; meadow; cloud; horse", [], ["cloud", "horse", "lamp", "meadow"], 24),
    ({"caption_prefix": "trig,", "keep_tokens": 1}, "hat, lamp, sea, dog", ["trig"], ["dog", "hat", "lamp", "sea"], 24),
]


@pytest.mark.parametrize(("image", "files", "extension", "caption"), RECORDED_FILES)
def test_the_recorded_caption_files_are_read_alike(tmp_path: Path, image: str, files: dict, extension: str, caption):
    for name, text in files.items():
        (tmp_path / name).write_bytes(text.encode())
    assert read_caption(tmp_path / image, extension) == caption
    assert read_caption(tmp_path / image, extension, files=files.keys()) == caption


@pytest.mark.parametrize(("options", "caption", "expected"), RECORDED_WORDINGS)
def test_the_recorded_wordings_come_out_alike(make, options: dict, caption: str, expected: str):
    for epoch in range(20):
        assert worded(caption, make.subset(Path(), **options), key(1, epoch, "a", "caption")) == expected


@pytest.mark.parametrize(("options", "caption", "fixed", "loose", "distinct"), RECORDED_SHUFFLES)
def test_shuffles_have_the_recorded_invariants(make, options, caption, fixed, loose, distinct):
    subset = make.subset(Path(), shuffle_caption=True, **options)
    results = {worded(caption, subset, key(0, epoch, "a", "caption")) for epoch in range(400)}
    assert len(results) == distinct
    for result in results:
        tags = result.split(", ")
        assert tags[: len(fixed)] == fixed
        assert sorted(tags[len(fixed) :]) == loose


def test_captions_are_dropped_at_their_rate(make):
    subset = make.subset(Path(), caption_dropout_rate=0.25)
    dropped = sum(worded("cat", subset, key(3, 1, str(i), "caption")) == "" for i in range(2000))
    assert 420 < dropped < 580  # 500 +- 4 standard deviations


@given(st.text(max_size=200), st.integers(0, 5))
def test_shuffling_loses_no_tag_of_any_script(caption: str, keep: int):
    tags = [tag.strip() for tag in caption.strip().split(",")]
    result = shuffled(caption, keep, ",", torch.Generator().manual_seed(1))
    assert sorted(", ".join(sorted(tags)).split(", ")) == sorted(result.split(", "))


@pytest.mark.parametrize("text", ["une fée, «café»", "猫、犬", "кошка", "\"quoted\" 'single' \\(x\\)", "a" * 100_000])
def test_captions_in_any_script_with_or_without_byte_order_mark(text: str):
    assert first_line(text.encode()) == text
    assert first_line(b"\xef\xbb\xbf" + text.encode() + b"\nsecond line") == text


def test_another_encoding_is_named_with_the_byte_that_shows_it():
    with pytest.raises(BadCaption, match=r"byte 1 \(0xea\)"):
        first_line("кот".encode("cp1251"))
    with pytest.raises(BadCaption, match="UTF-16"):
        first_line("cat".encode("utf-16"))


def test_a_warning_about_missing_captions_names_the_extension_that_was_meant():
    images = [f"{i}.png" for i in range(15)]
    files = images + [f"{i}.txt" for i in range(15)] + ["readme.txt"]
    said = about_missing_captions(images, ".caption", files, None)
    assert said == (
        "15 images have no .caption file and will be trained with an empty caption; "
        'there are 15 .txt files beside them: set caption_extension = ".txt" to use them'
    )
    said = about_missing_captions(["a.png"], ".txt", ["a.png"], "cat")
    assert said == "'a.png' has no .txt file and will be trained with the class tokens 'cat'"


def test_the_captions_to_come_are_known_unless_they_are_shuffled(tmp_path: Path, make):
    for i in range(3):
        make.picture(tmp_path / f"{i}.png", caption="a cat" if i else "a dog")
    fixed = build([make.dataset(make.subset(tmp_path, caption_prefix="x,"))])
    assert captions_to_come(fixed) == ["x, a dog", "x, a cat"]
    dropped = build([make.dataset(make.subset(tmp_path, caption_dropout_rate=0.1))])
    assert captions_to_come(dropped) == ["a dog", "a cat", ""]
    assert captions_to_come(build([make.dataset(make.subset(tmp_path, shuffle_caption=True))])) is None
