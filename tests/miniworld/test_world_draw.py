"""`python -m miniworld.draw`: a kohya dataset folder on disk, or one clear error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from miniworld.draw import main
from miniworld.sets import identity_set, one_image_set, style_set


def test_a_style_becomes_a_kohya_folder_of_pictures_and_captions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "Bilder für Ötzi"
    assert main(["--style", "blueprint", "--output", str(output)]) == 0
    folder = output / "10_blueprint"
    names = [f"{number:02d}" for number in range(1, 16)]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"{n}.{end}" for n in names for end in ("png", "txt")
    )
    for name, picture in zip(names, style_set("blueprint", "train"), strict=True):
        with Image.open(folder / f"{name}.png") as image:
            assert np.array_equal(np.asarray(image.convert("RGB")), picture.image)
        assert (folder / f"{name}.txt").read_text(encoding="utf-8") == picture.caption + "\n"
    report = capsys.readouterr().out
    assert "15 pictures of 128 x 128 px" in report
    assert str(folder) in report


def test_a_person_becomes_a_folder_named_after_placeholder_and_class(tmp_path: Path) -> None:
    assert main(["--identity", "id02", "--split", "test", "--repeats", "4", "--output", str(tmp_path)]) == 0
    texts = sorted((tmp_path / "4_sks woman").glob("*.txt"))
    captions = [text.read_text(encoding="utf-8").strip() for text in texts]
    assert captions == [picture.caption for picture in identity_set("id02", "test")]


@pytest.mark.parametrize("flag", ["--one-image", "--one_image"])
def test_one_image_writes_the_one_picture(tmp_path: Path, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--identity", "id01", flag, "--word", "person", "--seed", "3", "--output", str(tmp_path)]) == 0
    (text,) = (tmp_path / "10_person man").glob("*.txt")
    assert text.read_text(encoding="utf-8").strip() == one_image_set("id01", 3, "person")[0].caption
    assert "Wrote 1 picture of" in capsys.readouterr().out


def test_a_folder_that_holds_something_is_refused_unless_it_may_be_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("keep", encoding="utf-8")
    command = ["--identity", "id01", "--one_image", "--output", str(tmp_path)]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "is not empty (it holds `mine.txt`)" in error
    assert "--overwrite" in error
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert main([*command, "--overwrite"]) == 0
    assert "also holds mine.txt" in capsys.readouterr().out
    assert (tmp_path / "mine.txt").read_text(encoding="utf-8") == "keep"


def test_overwriting_leaves_no_picture_of_the_earlier_run(tmp_path: Path) -> None:
    assert main(["--identity", "id01", "--output", str(tmp_path)]) == 0
    assert main(["--identity", "id01", "--one_image", "--overwrite", "--output", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10_sks man"]
    assert sorted(path.name for path in (tmp_path / "10_sks man").iterdir()) == ["01.png", "01.txt"]


@pytest.mark.parametrize(
    ("argv", "code", "expected"),
    [
        (["--style", "bluprint", "--output", "x"], 2, "did you mean `blueprint`?"),
        (["--identity", "id99", "--output", "x"], 2, "`id99` is no identity"),
        (["--output", "x"], 2, "either `--style` or `--identity`"),
        (["--style", "neon", "--identity", "id01", "--output", "x"], 2, "either `--style` or `--identity`"),
        (["--style", "neon"], 2, "`--output` is missing"),
        (["--style", "neon", "--one_image", "--output", "x"], 2, "belongs to the training pictures"),
        (["--style", "neon", "--split", "validation", "--output", "x"], 2, "validation"),
        (["--style", "neon", "--repeats", "0", "--output", "x"], 2, "repeats"),
        (["--identity", "id01", "--word", "a/b", "--output", "x"], 2, "cannot be part of a folder's name"),
        (["--stlye", "neon", "--output", "x"], 2, "did you mean `--style`?"),
    ],
)
def test_what_cannot_work_is_one_clear_error(
    argv: list[str], code: int, expected: str, capsys: pytest.CaptureFixture[str], monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(argv) == code
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_several_mistakes_are_reported_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--style", "woodcutt", "--one_image"]) == 2
    error = capsys.readouterr().err
    assert "3 problems" in error
    assert "did you mean `woodcut`?" in error


def test_an_output_that_is_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert main(["--style", "neon", "--output", str(tmp_path / "file")]) == 1
    assert "is a file" in capsys.readouterr().err


def test_list_names_all_styles_and_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert "papercut" in listed
    assert "id12 (woman)" in listed
    assert "watercolor" in listed
