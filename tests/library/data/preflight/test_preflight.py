"""A folder with every kind of problem planted in it: each is found, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from library.command import run_command
from library.data.preflight.__main__ import preflight
from library.data.preflight.findings import KINDS, NOTES

MODEL = Path(__file__).parents[4] / "miniworld" / "model"
EXIF_SIDEWAYS = 6


def picture(seed: int, width: int = 160, height: int = 160) -> Image.Image:
    """Soft spots of colour, different for every seed."""
    spots = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(spots, (width, height), interpolation=cv2.INTER_CUBIC))


def save(image: Image.Image, path: Path, caption: str | None = "a spot", **how) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **how)
    if caption is not None:
        path.with_suffix(".caption").write_text(caption, encoding="utf-8")
    return path


def look(words: list[object], tmp_path: Path) -> tuple[int, dict]:
    """The exit code, and what was written."""
    file = tmp_path / "found.json"
    code = run_command(preflight, [*map(str, words), f"--json={file}"])
    return code, json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def found(report: dict) -> set[tuple[str, str]]:
    return {(finding["kind"], Path(finding["file"]).name) for finding in report["problems"] + report["notes"]}


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A dataset description of three subsets with a problem of each kind, among 20 pictures that are sound."""
    train, masked, measured = (tmp_path / name for name in ("train", "masked", "measured"))
    for i in range(16):
        save(picture(i), train / f"sound{i}.png")
    for i in range(2):
        save(picture(20 + i), masked / f"with{i}.png")
        save(picture(30 + i), tmp_path / "masks" / f"with{i}.png", None)
        save(picture(40 + i), measured / f"new{i}.png")

    cut = save(picture(50), train / "cut.png")
    cut.write_bytes(cut.read_bytes()[:-3000])
    save(picture(51), train / "really_jpeg.png", format="JPEG")
    exif = Image.Exif()
    exif[0x0112] = EXIF_SIDEWAYS
    save(picture(52), train / "sideways.jpg", exif=exif)
    frames = [picture(53), picture(54)]
    save(frames[0], train / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    save(picture(55).convert("CMYK"), train / "print.jpg")
    save(Image.fromarray(np.asarray(picture(56).convert("L")).astype(np.uint16) * 257), train / "deep.png")
    glass = picture(57).convert("RGBA")
    glass.putalpha(Image.fromarray(np.eye(160, dtype=np.uint8) * 255))
    save(glass, train / "glass.png")
    shutil.copy(train / "sound0.png", train / "sound0_copy.png")
    shutil.copy(train / "sound0.caption", train / "sound0_copy.caption")
    save(picture(1).resize((150, 150)), train / "sound1_again.jpg", quality=60)
    save(picture(58), train / "silent.png", None)
    save(picture(59), train / "blank.png", "")
    save(picture(60), train / "other_name.png", None).with_suffix(".txt").write_text("a spot", encoding="utf-8")
    save(picture(61), train / "garbled.png").with_suffix(".caption").write_bytes(b"\xff\xfe caf\xe9")
    save(picture(62), train / "wordy.png", "a red spot and " * 20)
    save(picture(63, 100, 100), train / "little.png")
    save(picture(64, 60, 60), train / "tiny.png")
    save(picture(65, 1700, 160), train / "banner.png")
    (train / "photo.heic").write_bytes(b"not read")
    save(picture(66), tmp_path / "masks" / "nobody.png", None)
    save(picture(67), masked / "bare.png")
    save(picture(2), measured / "seen.png", compress_level=1)

    file = tmp_path / "data.toml"
    file.write_text(
        f"""
[general]
enable_bucket = true
resolution = 128
min_bucket_reso = 64
batch_size = 2

[[datasets]]
[[datasets.subsets]]
image_dir = "{train}"
[[datasets.subsets]]
image_dir = "{masked}"
conditioning_data_dir = "{tmp_path / "masks"}"

[[datasets]]
validation_split = 1.0
[[datasets.subsets]]
image_dir = "{measured}"
""",
        encoding="utf-8",
    )
    return file


EXPECTED = {
    ("damaged", "cut.png"),
    ("mislabelled", "really_jpeg.png"),
    ("animation", "moving.webp"),
    ("colours", "print.jpg"),
    ("duplicate", "sound0_copy.png"),
    ("near duplicate", "sound1_again.jpg"),
    ("leak", "seen.png"),
    ("no caption", "silent.png"),
    ("blank caption", "blank.png"),
    ("caption extension", "other_name.png"),
    ("bad caption", "garbled.caption"),
    ("long caption", "wordy.png"),
    ("enlarged", "little.png"),
    ("too small", "tiny.png"),
    ("cropped", "banner.png"),
    ("lonely bucket", "banner.png"),
    ("unused file", "photo.heic"),
    ("mask without picture", "nobody.png"),
    ("no mask", "bare.png"),
    ("rotated", "sideways.jpg"),
    ("deep colours", "deep.png"),
    ("transparent", "glass.png"),
}


def test_every_planted_problem_is_found_and_nothing_else(planted, tmp_path, capsys):
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    words = [planted, "--masked_loss", f"--pretrained_model_name_or_path={MODEL}", "--processes=1"]
    words += [f"--html={tmp_path / 'page.html'}"]
    code, report = look(words, tmp_path)
    assert found(report) == EXPECTED
    assert len(report["problems"]) + len(report["notes"]) == len(EXPECTED)
    assert code == 1
    assert {kind for kind, _ in EXPECTED} | {"no repeats", "folder", "plain folder"} == {*KINDS, *NOTES}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert all(f"<h2>{kind} (1)</h2>" in page for kind, _ in EXPECTED)
    assert page.count("data:image/webp") >= len(EXPECTED)
    assert "near duplicate (almost the same picture twice): 1" in capsys.readouterr().out


def test_a_sound_set_has_no_findings_in_a_folder_of_folders_a_description_and_a_training_config(tmp_path):
    for i in range(5):
        save(picture(i), tmp_path / "train" / "3_spots" / f"{i}.png")
    save(picture(7), tmp_path / "train" / "sketches" / "not_used.png")
    save(picture(8), tmp_path / "train" / "loose.png")
    code, report = look([tmp_path / "train", "--resolution=128", "--train_batch_size=4"], tmp_path)
    assert (code, found(report)) == (1, {("no repeats", "sketches"), ("no repeats", "train")})
    assert (report["images"], report["visits"]) == (5, 15)
    assert report["buckets"] == [{"size": [128, 128], "images": 5, "visits": 15, "batch_size": 4}]

    shutil.rmtree(tmp_path / "train" / "sketches")
    (tmp_path / "train" / "loose.png").unlink()
    config = tmp_path / "config.toml"
    config.write_text(f'train_data_dir = "{tmp_path / "train"}"\nresolution = "128"\n', encoding="utf-8")
    assert look([config], tmp_path)[0] == 0
    code, report = look([tmp_path / "train" / "3_spots", "--resolution=128"], tmp_path)
    assert (code, found(report)) == (0, {("plain folder", "3_spots")})


def test_a_dataset_that_cannot_be_looked_at_ends_with_2(tmp_path, capsys):
    assert look([tmp_path / "nowhere"], tmp_path)[0] == 2
    assert "nowhere does not exist" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert look([tmp_path / "empty"], tmp_path)[0] == 2
    assert run_command(preflight, ["--help"]) == 0


def test_without_a_tokenizer_only_captions_that_are_surely_too_long_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("library.data.preflight.lengths.tokenizer_at_hand", lambda *_: None)
    save(picture(0), tmp_path / "1_spot" / "long.png", "one, two, " * 40)
    save(picture(1), tmp_path / "1_spot" / "rare.png", "zxqvwk " * 70)
    code, report = look([tmp_path, "--resolution=128"], tmp_path)
    assert (code, found(report)) == (1, {("long caption", "long.png")})
    assert "at least 160 tokens" in report["problems"][0]["sentence"]
    assert report["unchecked"] == ["no tokenizer is at hand: only captions that are surely too long are named"]


def test_regularization_images_may_be_doubles_of_nothing_that_is_held_out(tmp_path):
    for i in range(4):
        save(picture(i), tmp_path / "train" / "1_spot" / f"{i}.png")
    save(picture(0), tmp_path / "reg" / "1_spot" / "same.png")
    words = [tmp_path / "train", f"--reg_data_dir={tmp_path / 'reg'}", "--resolution=128", "--validation_split=0.5"]
    code, report = look(words, tmp_path)
    assert (code, found(report)) == (1, {("duplicate", "same.png")})


def test_a_caption_is_missing_where_the_others_of_its_folder_have_one(tmp_path):
    for i in range(3):
        save(picture(i), tmp_path / "with" / "1_spot" / f"{i}.png", None if i == 1 else "a spot")
        save(picture(i), tmp_path / "without" / "1_spot" / f"{i}.png", None)
    assert found(look([tmp_path / "with", "--resolution=128"], tmp_path)[1]) == {("no caption", "1.png")}
    assert look([tmp_path / "without", "--resolution=128"], tmp_path)[0] == 0
