"""Captions: what is read, what is said in each epoch, and what is said about those that are missing.

That both are what sd-scripts makes of them is compared in tests/golden_table/captions.py.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from library.data.augmentation.caption_augmentation import Moment, worded
from library.data.caches.text_encoder_cache import captions_to_come
from library.data.dataset import build
from library.data.images.captions import BadCaption, about_missing_captions, by_extension, lines_of, read_caption
from library.data.keys import key
from tests.golden_table.captions import subset_of

NOW = Moment(epoch=1)

FILES = [
    # image, files, extension, caption (None: no caption file)
    ("p.png", {"p.txt": "red, blue"}, ".caption", None),
    ("p.png", {"p.caption": " red, blue \ngreen\n"}, ".caption", "red, blue"),
    ("p_10_20_30_40.png", {"p.txt": "red"}, ".txt", "red"),
    ("p.png", {"p.txt": " \n"}, ".txt", ""),
    ("p.png", {}, ".txt", None),
]


@pytest.mark.parametrize(("image", "files", "extension", "caption"), FILES)
def test_a_list_of_the_folders_files_changes_nothing(tmp_path: Path, image: str, files: dict, extension: str, caption):
    for name, text in files.items():
        (tmp_path / name).write_bytes(text.encode())
    assert read_caption(tmp_path / image, extension) == caption
    assert read_caption(tmp_path / image, extension, files=by_extension(files)) == caption


def test_a_caption_file_whose_extension_is_in_capitals_is_read(tmp_path: Path, make):
    make.picture(tmp_path / "UP.PNG", caption=None)
    (tmp_path / "UP.TXT").write_text("a red cat", encoding="utf-8")
    dataset = build([make.dataset(make.subset(tmp_path, class_tokens="cat"))])
    assert [picture.caption for picture in dataset.pictures] == ["a red cat"]
    assert by_extension(["a.TXT", "a.txt", "B.Txt"]) == {"a.txt": "a.txt", "B.txt": "B.Txt"}


def test_one_caption_missing_among_others_is_reported_although_class_tokens_stand_for_it(tmp_path: Path, make):
    for name in "abc":
        make.picture(tmp_path / f"{name}.png", caption=None if name == "b" else "a red cat")
    said = build([make.dataset(make.subset(tmp_path, class_tokens="cat"))]).warnings
    assert said == [f"folder '{tmp_path}': 'b.png' has no .txt file and will be trained with the class tokens 'cat'"]


def say(caption: str, subset, moment: Moment = NOW, sample: str = "a") -> str:
    return worded(caption, subset, moment, partial(key, 3, moment.epoch, sample))


def test_captions_are_dropped_at_their_rate(make):
    subset = make.subset(Path(), caption_dropout_rate=0.25)
    dropped = sum(say("cat", subset, sample=str(i)) == "" for i in range(2000))
    assert 420 < dropped < 580  # 500 +- 4 standard deviations


@given(st.text(max_size=200), st.integers(0, 5))
def test_shuffling_loses_no_tag_of_any_script(caption: str, keep: int):
    subset = subset_of({"shuffle_caption": True, "keep_tokens": keep})
    tags = [tag.strip() for tag in caption.split("\n")[0].strip().split(",")]
    result = say(caption, subset)
    assert sorted(", ".join(sorted(tags)).split(", ")) == sorted(result.split(", "))


@pytest.mark.parametrize("text", ["une fée, «café»", "猫、犬", "кошка", "\"quoted\" 'single' \\(x\\)", "a" * 100_000])
def test_captions_in_any_script_with_or_without_byte_order_mark(text: str):
    assert lines_of(text.encode()) == [text]
    assert lines_of(b"\xef\xbb\xbf" + text.encode() + b"\r\nsecond line") == [text, "second line"]


def test_another_encoding_is_named_with_the_byte_that_shows_it():
    with pytest.raises(BadCaption, match=r"byte 1 \(0xea\)"):
        lines_of("кот".encode("cp1251"))
    with pytest.raises(BadCaption, match="UTF-16"):
        lines_of("cat".encode("utf-16"))


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


def test_each_option_draws_for_itself(make):
    """Dropping some captions leaves the order of the others as it was."""
    shuffled = make.subset(Path(), shuffle_caption=True)
    both = make.subset(Path(), shuffle_caption=True, caption_dropout_rate=0.5)
    pairs = [(say("a, b, c, d", shuffled, sample=str(i)), say("a, b, c, d", both, sample=str(i))) for i in range(40)]
    assert {one == other for one, other in pairs if other} == {True}
    assert len({one for one, _ in pairs}) > 10


def test_prefix_and_suffix_go_around_whichever_line_is_chosen(make):
    subset = make.subset(Path(), enable_wildcard=True, caption_prefix="PRE", caption_suffix="SUF")
    said = {say("red\nblue", subset, sample=str(i)) for i in range(30)}
    assert said == {"PRE red SUF", "PRE blue SUF"}


def test_a_share_of_the_run_needs_the_length_of_the_run(make):
    subset = make.subset(Path(), token_warmup_step=0.5)
    assert say("a, b, c", subset, Moment(1, step=4, total_steps=10)) == "a, b"
    with pytest.raises(RuntimeError, match="length was not given"):
        say("a, b, c", subset, Moment(1, step=4))


def test_the_captions_to_come_are_known_unless_they_are_made_anew(tmp_path: Path, make):
    for i in range(3):
        make.picture(tmp_path / f"{i}.png", caption="a cat" if i else "a dog")

    def to_come(**options) -> list[str] | None:
        return captions_to_come(build([make.dataset(make.subset(tmp_path, **options))]))

    assert to_come(caption_prefix="x,") == ["x, a dog", "x, a cat"]
    assert to_come(caption_dropout_rate=0.1) == ["a dog", "a cat", ""]
    assert to_come(caption_dropout_every_n_epochs=2) == ["a dog", "a cat", ""]
    assert to_come(enable_wildcard=True, keep_tokens=1) == ["a dog", "a cat"]
    assert to_come(enable_wildcard=True, caption_suffix="{a|b}") is None
    for option in ({"shuffle_caption": True}, {"caption_tag_dropout_rate": 0.1}, {"token_warmup_step": 10}):
        assert to_come(**option) is None


def test_a_caption_file_of_megabytes_is_refused_unread(tmp_path: Path):
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(100 * 2**20)
    with pytest.raises(BadCaption, match="is longer than 1 MB") as error:
        read_caption(tmp_path / "a.png", ".txt")
    assert error.value.path == tmp_path / "a.txt"
