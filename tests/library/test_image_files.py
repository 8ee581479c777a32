"""Image files as people have them: rotated, truncated, mislabelled, in any mode and under any name."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, UnidentifiedImageError

from library.config.image_folders import about_passed_over
from library.image_files import ORIENTATION, BadImage, Header, decode, discover, load, measure, open_image, turned


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def test_a_folder_is_read_by_kohyas_rules_and_in_any_case_and_with_tiff(tmp_path: Path):
    """Names and order as recorded from sd-scripts 48d368fa, library/train_util.py:2847, but for g.tiff and i.Png."""
    taken = [
        "A.JPG",
        "a.jpg",
        "b.png",
        "c.jpeg",
        "cat_10_20_30_40.png",
        "d.webp",
        "e.bmp",
        "g.tiff",
        "h.PNG",
        "i.Png",
        "j.JPEG",
        "o p.png",
    ]
    taken += ["q[1].png", "r.WEBP", "s.BMP", "z10.png", "z2.png", "ä.png"]
    left = ["f.gif", "k.avif", "l.jxl", "m.txt", "n.png.txt", ".hidden.png", "u.heic"]
    for name in taken + left:
        (tmp_path / name).touch()
    (tmp_path / "sub.png").mkdir()
    (tmp_path / "sub.png" / "deep.png").touch()
    found = [path.name for path in discover(tmp_path)]
    if len(set(map(str.lower, found))) == len(found):
        pytest.skip("this file system does not tell A.JPG from a.jpg")
    assert found == taken


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("value", range(1, 9))
def test_exif_rotation_is_applied_to_pixels_and_size(tmp_path: Path, format: str, value: int):
    exif = Image.Exif()
    exif[ORIENTATION] = value
    path = tmp_path / f"photo.{format.lower()}"
    path.write_bytes(encoded(Image.fromarray(noise(24, 16)), format, exif=exif))
    with Image.open(path) as image:
        upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(load(path), upright)
    assert measure(path).size == (upright.shape[1], upright.shape[0])


def test_turning_there_and_back_is_the_identity():
    pixels = noise(5, 3)
    for there, back in [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 8), (7, 7), (8, 6)]:
        assert np.array_equal(turned(turned(pixels, there), back), pixels)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_broken_exif_block_means_upright(tmp_path: Path):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(Image.fromarray(noise(24, 16)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"))
    assert measure(path).size == (24, 16)
    assert load(path).shape == (16, 24, 3)


def modes() -> dict[str, tuple[Image.Image, np.ndarray]]:
    """Image -> what its RGB must be."""
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 255
    grey = np.full((2, 2, 3), 128, np.uint8)
    palette = Image.fromarray(red).quantize(2)
    transparent = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    sixteen = Image.fromarray(np.full((2, 2), 128 << 8, np.uint16))
    return {
        "P": (palette, red),
        "L": (Image.new("L", (2, 2), 128), grey),
        "LA": (Image.new("LA", (2, 2), (128, 0)), grey),
        "1": (Image.new("1", (2, 2), 1), np.full((2, 2, 3), 255, np.uint8)),
        "RGBA": (transparent, red),  # alpha is dropped, not composited
        "I;16": (sixteen, grey),
    }


@pytest.mark.parametrize("mode", modes())
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str):
    image, expected = modes()[mode]
    path = tmp_path / "a.png"
    image.save(path)
    assert np.array_equal(load(path), expected)


def test_cmyk_photos_become_rgb(tmp_path: Path):
    path = tmp_path / "print.jpg"
    Image.fromarray(np.full((16, 16, 3), (200, 30, 30), np.uint8)).convert("CMYK").save(path, quality=95)
    assert np.abs(load(path).astype(int) - (200, 30, 30)).max() < 6


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP"])
@pytest.mark.parametrize("keep", [0.5, 0.97])
def test_a_truncated_file_is_recognised_by_its_header_pass(tmp_path: Path, format: str, keep: float):
    content = encoded(Image.fromarray(noise(64, 64)), format)
    path = tmp_path / f"a.{format.lower()}"
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(BadImage):
        measure(path)
    with pytest.raises(BadImage):
        load(path)


def test_a_jpeg_with_something_behind_its_end_is_fine(tmp_path: Path):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(Image.fromarray(noise(64, 64)), "JPEG") + b"a camera's own data" * 9)
    assert measure(path).size == (64, 64)


def test_damage_in_the_middle_is_found_when_decoding(tmp_path: Path):
    content = bytearray(encoded(Image.fromarray(noise(64, 64)), "PNG"))
    content[len(content) // 2] ^= 0xFF
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(BadImage, match="damaged"):
        load(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"\n<!DOCTYPE html><html>404", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"just some words", "6a 75 73 74"),
    ],
)
def test_what_is_no_image_is_called_what_it_is(tmp_path: Path, content: bytes, said: str):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    for read in (measure, load):
        with pytest.raises(BadImage, match=said):
            read(path)


def test_a_wrong_extension_is_noted_and_read(tmp_path: Path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(noise(64, 64)), "JPEG"))
    assert measure(path).notes == ("is a JPEG file in spite of its extension",)
    assert load(path).shape == (64, 64, 3)


def test_of_an_animation_the_first_frame_is_used(tmp_path: Path):
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    path = tmp_path / "a.webp"
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    assert "first frame" in measure(path).notes[0]
    assert load(path)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_beyond_pillows_limit_is_one_clear_error(tmp_path: Path, monkeypatch):
    path = tmp_path / "a.png"
    Image.fromarray(noise(40, 40)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert measure(path).size == (40, 40)  # up to twice the limit it works, without a warning
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 799)
    with pytest.raises(BadImage, match="too many pixels"):
        measure(path)


def test_file_names_in_any_script_are_opened(tmp_path: Path):
    path = tmp_path / "ねこ[1] (копия) 🐈.png"
    Image.fromarray(noise(70, 64)).save(path)
    assert discover(tmp_path) == [path]
    assert measure(path).size == (70, 64)
    assert load(path).shape == (64, 70, 3)


def test_decoding_does_not_depend_on_the_file_still_being_there(tmp_path: Path):
    content = encoded(Image.fromarray(noise(8, 8)), "PNG")
    assert np.array_equal(decode(tmp_path / "gone.png", content), noise(8, 8))


def test_a_tiff_is_read_and_what_is_passed_over_is_reported_in_one_line(tmp_path: Path):
    Image.fromarray(noise(24, 16)).save(tmp_path / "a.TIF", format="TIFF")
    assert measure(tmp_path / "a.TIF") == Header((24, 16))
    assert np.array_equal(load(tmp_path / "a.TIF"), noise(24, 16))
    assert about_passed_over(tmp_path) is None
    (tmp_path / "in").mkdir()
    for name in ("b.gif", "c.AVIF", "d.gif", "in/e.png"):
        (tmp_path / name).touch()
    assert about_passed_over(tmp_path) == (
        f"'{tmp_path}' is not taken whole: 3 files are of a kind that is not read, .avif (1), .gif (2): convert them "
        "to PNG; folders inside are not searched, and there are pictures in 'in'"
    )


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"


def test_a_picture_that_is_postscript_is_named_and_starts_no_program(tmp_path: Path, monkeypatch):
    def never(*arguments, **keywords):
        raise AssertionError(f"{arguments} was started")

    monkeypatch.setattr("subprocess.Popen", never)
    (tmp_path / "a.png").write_bytes(EPS)
    for read in (measure, load):
        with pytest.raises(BadImage, match="holds PostScript"):
            read(tmp_path / "a.png")
    with pytest.raises(UnidentifiedImageError):
        open_image(tmp_path / "a.png")


def test_one_function_opens_pictures_and_nothing_else_does():
    """Pillow's `open` without named formats tries all that it knows; OpenCV cannot open every name."""
    root = Path(__file__).parents[2]
    calls = re.compile(r"\bImage\.open\(|\bPIL\.Image\.open|\bcv2\.imread\(|\bread_image\(|import open as")
    found = [
        str(file.relative_to(root))
        for wing in ("library", "restoration", "miniworld", "embeddings", "networks")
        for file in (root / wing).rglob("*.py")
        if calls.search(file.read_text(encoding="utf-8"))
    ]
    assert found == [str(Path("library", "image_files.py"))]
