"""Prompt files: what is wrong with them, and what has no effect. That the rest means what it means to sd-scripts is
compared in tests/golden_table/prompts.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from library.errors import Problem, UserError
from library.sampling.prompts import parse_line, read_prompts


def test_every_problem_of_a_file_is_reported_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("# first\na cat --w wide\n\na dog --s 20 --ss nonsense\na bird --h 32\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        read_prompts(path)
    text = str(error.value)
    assert "prompts.txt line 2: `--w wide`: `width` should be a whole number" in text
    assert "prompts.txt line 4: `sample_sampler` 'nonsense' is not a sampler; known are ddim" in text
    assert "prompts.txt line 5: `height` 32 is too small" in text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.toml", "[prompt\n", "not valid TOML"),
        ("p.toml", "[other]\na = 1\n", r"need one `\[\[prompt.subset\]\]`"),
        (
            "p.toml",
            '[prompt]\n[[prompt.subset]]\nprompt = "a"\nwidth = "wide"\n',
            "subset.. 1: `width` = 'wide' should",
        ),
        ("p.toml", "[prompt]\n[[prompt.subset]]\nseed = 1\n", "subset.. 1: there is no `prompt`"),
        ("p.json", '["a cat",\n 1', "line 2: the sample prompts are not valid JSON"),
        ("p.json", '{"prompt": "a cat"}', "must be a list"),
        ("p.json", '["a cat", 3]', "entry 2: 3 is neither a text nor an object"),
        ("p.txt", "# only a comment\n\n", "hold no prompt"),
    ],
)
def test_a_file_that_cannot_be_understood_says_where(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_prompts(tmp_path / name)


def test_other_encodings_and_missing_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes("eine Brücke".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        read_prompts(tmp_path / "p.txt")
    with pytest.raises(UserError, match=r"missing\.txt' cannot be read"):
        read_prompts(tmp_path / "missing.txt")


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_a_prompt(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes("\ufeff漢字 cat --d 3\r\na dog\r\n".encode())
    assert [prompt.prompt for prompt in read_prompts(tmp_path / "p.txt")] == ["漢字 cat", "a dog"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a cat --unknown 3", "`--unknown 3` is not an option of a prompt"),
        ("a cat --w640", "`--w640` is not an option"),
        ("a cat --g 3.5", "`guidance_scale` has no effect"),
        ("a cat --cn control.png", "`controlnet_image` has no effect"),
        ("a cat --s 2000", "998 is used"),
        ("a cat --d -5", "another one each time"),
    ],
)
def test_an_option_without_effect_is_reported(line: str, message: str) -> None:
    problems: list[Problem] = []
    prompt = parse_line(line, "p.txt line 1", problems)
    assert problems == []
    assert len(prompt.warnings) == 1
    assert prompt.warnings[0].startswith("p.txt line 1: ")
    assert message in prompt.warnings[0]


def test_a_size_left_open_is_the_default_or_the_models_own(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a cat --w 515\n", encoding="utf-8")
    assert read_prompts(tmp_path / "p.txt")[0].size(native_size=128) == (512, 128)
    assert read_prompts(tmp_path / "p.txt", default_size=512)[0].size(native_size=128) == (512, 512)


@pytest.mark.parametrize("dash", ["\u2014", "\u2013", "\u2014-", "-\u2013", "\u2212\u2212"])
def test_a_dash_that_an_editor_made_of_two_begins_an_option(dash: str) -> None:
    problems: list[Problem] = []
    prompt = parse_line(f"a cat {dash}w 64 {dash}n a dog", "p.txt line 1", problems)
    assert (prompt.prompt, prompt.width, prompt.negative_prompt) == ("a cat", 64, "a dog")
    assert prompt.warnings == [f"p.txt line 1: `{dash}` is read as `--`: it is one dash that an editor made of two."]


@pytest.mark.parametrize("text", ["a cat \u2014 with a hat", "a red\u2013w 64 mm lens", "a cat \u2014was here"])
def test_a_dash_in_a_sentence_stays_one(text: str) -> None:
    assert parse_line(text, "p.txt line 1", []).prompt == text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", "a cat --d " + "9" * 5000, "`seed` should be a whole number"),
        ("p.toml", "[prompt]\nprompt = 'a'\nscale = " + "9" * 400, "should be a number"),
        ("p.toml", "[prompt]\na = " + "[" * 5000, "inside each other without end"),
        ("p.json", "[" * 100_000, "inside each other without end"),
        ("p.json", "[" + "9" * 5000 + "]", "has a number that cannot be read"),
    ],
    ids=["digits", "beyond floats", "nested", "nested json", "digits in json"],
)
def test_hostile_files_are_one_short_sentence(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message) as error:
        read_prompts(tmp_path / name)
    assert len(str(error.value)) < 500


def test_a_prompt_file_of_hundreds_of_megabytes_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "p.txt").open("wb") as file:
        file.truncate(400 * 2**20)
    with pytest.raises(UserError, match="is longer than 1 MB"):
        read_prompts(tmp_path / "p.txt")
