"""Names from files as paths: inside their folder, or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from library.path_safety import path_inside, stem_of_text


@pytest.mark.parametrize("name", ["a.png", "sub/a.png", "..a", "a..b/c", ".hidden", "Füße 1.png"])
def test_a_plain_name_is_a_file_of_its_folder(name):
    assert path_inside(Path("in"), name) == Path("in", name)


@pytest.mark.parametrize(
    "name",
    [
        "../a",
        "a/../../b",
        "/etc/passwd",
        "..\\a",
        "C:\\a",
        "C:a",
        "\\\\host\\share\\a",
        "\\a",
        "",
        ".",
        "..",
        "a\0b",
        3,
        None,
    ],
)
def test_a_name_that_leads_elsewhere_is_none(name):
    assert path_inside(Path("in"), name) is None


@pytest.mark.parametrize(
    ("text", "stem"),
    [("zwx_face", "zwx_face"), ("../up", "_up"), ("...", "embedding"), ("<zwx>", "_zwx_"), ("COM1.x", "_COM1.x")],
)
def test_any_text_becomes_the_name_of_a_file(text, stem):
    assert stem_of_text(text) == stem


def test_a_name_that_is_taken_gets_a_number():
    assert stem_of_text("A", {"a", "a_2"}) == "A_3"
