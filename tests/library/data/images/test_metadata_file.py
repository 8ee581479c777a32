"""Metadata files: which images they name, what these are called, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from library.data.dataset import Dataset, build
from library.data.images.metadata_file import BadMetadata, caption_of, read_metadata_file
from library.errors import UserError


def dataset_of(folder: Path, make, entries: object, name: str = "meta.json", **options) -> Dataset:
    file = folder / name
    file.write_text(entries if isinstance(entries, str) else json.dumps(entries), encoding="utf-8")
    return build([make.dataset(make.subset(folder, metadata_file=file, **options))])


@pytest.fixture
def folder(tmp_path: Path, make) -> Path:
    for name in ("a.png", "b.jpg", "sub/c.png", "unnamed.png"):
        make.picture(tmp_path / "img" / name, caption=None)
    return tmp_path / "img"


def test_images_are_found_by_path_name_or_stem_and_only_those_that_are_named(folder: Path, make):
    entries = {"b": {"caption": "a boat"}, str(folder / "a.png"): {"tags": "cat, red"}, "sub/c.png": {"caption": "c"}}
    dataset = dataset_of(folder, make, entries, num_repeats=2)
    assert [(p.path.name, p.caption) for p in dataset.pictures] == [
        ("b.jpg", "a boat"),
        ("a.png", "cat, red"),
        ("c.png", "c"),
    ]
    assert [sample.sample_id for sample in dataset.samples] == [
        f"0/img/{name}#{repeat}" for name in ("b.jpg", "a.png", "sub/c.png") for repeat in range(2)
    ]
    assert dataset.warnings == []


def test_images_may_lie_anywhere(folder: Path, tmp_path: Path, make):
    elsewhere = make.picture(tmp_path / "other" / "d.png", caption=None)
    dataset = dataset_of(folder, make, {str(elsewhere): {"caption": "d"}})
    assert [sample.sample_id for sample in dataset.samples] == ["0/img/../other/d.png#0"]


def test_a_line_for_each_image_says_the_same(folder: Path, make):
    lines = '{"image_path": "a.png", "caption": "a cat"}\n\n{"image_path": "b", "tags": "boat"}\n'
    dataset = dataset_of(folder, make, lines, "meta.jsonl")
    assert [(p.path.name, p.caption) for p in dataset.pictures] == [("a.png", "a cat"), ("b.jpg", "boat")]


@pytest.mark.parametrize(
    ("entry", "caption"),
    [
        ({"caption": " a cat ", "tags": "red, small"}, "a cat,red, small"),
        ({"caption": "a cat\na dog", "tags": "red"}, "a cat,red\na dog,red"),
        ({"tags": ["red", "small"]}, "red, small"),
        ({"caption": "a cat", "tags": "", "train_resolution": [64, 64]}, "a cat"),
        ({"caption": None}, None),
        ({"caption": ""}, None),
    ],
)
def test_tags_come_behind_the_caption_on_each_of_its_lines(entry: dict, caption: str | None):
    assert caption_of(entry, ",") == caption


def test_an_image_without_words_is_a_warning(folder: Path, make):
    dataset = dataset_of(folder, make, {"a": {}, "b": {"caption": "boat"}})
    assert [p.caption for p in dataset.pictures] == ["", "boat"]
    assert "1 images have neither caption nor tags, such as 'a'; their captions are empty" in dataset.warnings[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            {"a": {"caption": "x"}, "gone": {"caption": "y"}},
            "1 of the images that it names are not there, such as 'gone'",
        ),
        ({"a": {"caption": 5}}, "has 5 where a caption or tags should be a text"),
        ("[1]", "must be a table of images"),
        ({"a": "a cat"}, "must be a table of images"),
        ({}, "names no images"),
        ("{", "is not JSON in UTF-8"),
        ("[" * 100_000, "is not JSON in UTF-8"),
    ],
)
def test_what_cannot_be_used_is_reported_with_the_file(folder: Path, make, content: object, said: str):
    with pytest.raises(UserError, match=r"metadata file '.*meta\.json': ") as caught:
        dataset_of(folder, make, content)
    assert said in str(caught.value)


def test_a_line_without_a_path_and_another_encoding_are_reported(tmp_path: Path):
    (tmp_path / "m.jsonl").write_text('{"image_path": "a"}\n{"caption": "b"}\n')
    with pytest.raises(BadMetadata, match="has no `image_path` in line 2"):
        read_metadata_file(tmp_path / "m.jsonl")
    (tmp_path / "m.json").write_bytes('{"кот": {}}'.encode("cp1251"))
    with pytest.raises(BadMetadata, match="is not JSON in UTF-8"):
        read_metadata_file(tmp_path / "m.json")
