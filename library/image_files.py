"""Image files: which ones a folder holds, how large they are, and their pixels.

Pillow opens them (OpenCV cannot open every file name on Windows), EXIF rotation is applied everywhere, and a file that
cannot be trained on raises `BadImage`, whose text is fit for a list of problems.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from library.config.image_folders import HEIF, is_image_name

if HEIF:
    from pillow_heif import register_heif_opener  # pyright: ignore[reportMissingImports]

    register_heif_opener()

FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "MPO": (".jpg", ".jpeg"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "HEIF": HEIF,
}
"""Pillow's name of a format and the extensions that announce it (MPO is a JPEG with a second picture behind it)."""

READ = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", *(("HEIF",) if HEIF else ()))
"""The formats that are read, whatever a file is called: Pillow alone would hand an EPS named a.png to Ghostscript. It
opens an MPO as a JPEG."""

ORIENTATION = 0x0112  # the EXIF tag

# Between one and two times its limit of 89 million pixels Pillow only prints a warning: such an image works.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", "Corrupt EXIF data", module="PIL")  # such an image counts as upright


class BadImage(ValueError):
    """This file cannot be trained on; the text says why and what to do, without naming the file."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a file's first bytes tell. `size` is (width, height) after EXIF rotation; `notes` are worth a warning."""

    size: tuple[int, int]
    notes: tuple[str, ...] = ()


def discover(folder: Path) -> list[Path]:
    """The image files directly inside the folder, sorted by name."""
    with os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if is_image_name(entry.name) and entry.is_file())


def open_image(source: Path | str | BinaryIO) -> Image.Image:
    """Open an image file of one of the formats in `READ`: the only place that calls Pillow's `open`.

    Raises OSError (UnidentifiedImageError) for anything else, and what decoders raise on damaged bytes.
    """
    return Image.open(source, formats=READ)


def measure(path: Path) -> Header:
    """The size of an image from its header alone. Raises BadImage.

    A file whose end is missing is recognised without decoding it: formats that mark their end are checked for the
    mark, and only a file without it is decoded to be sure.
    """
    try:
        with open(path, "rb") as file:
            image = open_image(file)
            if not _has_its_end(file, image.format):
                image.load()
            width, height = image.size
            sideways = orientation(image) >= 5
            return Header((height, width) if sideways else (width, height), _notes(path, image))
    except Exception as error:  # decoders fed with damaged bytes raise whatever they like
        raise explained(path, error) from error


def decode(path: Path, content: bytes) -> np.ndarray:
    """The pixels of an image file's content, uint8 (height, width, 3), EXIF-rotated RGB. Raises BadImage.

    An alpha channel is dropped, not composited, as in sd-scripts. Of an animation it is the first frame.
    """
    return _decoded(path, content, rgb)


def decode_alpha(path: Path, content: bytes) -> np.ndarray:
    """The alpha channel of an image file's content, uint8 (height, width), EXIF-rotated. Raises BadImage."""
    return _decoded(path, content, alpha)


def _decoded(path: Path, content: bytes, part: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
    try:
        image = open_image(io.BytesIO(content))
        image.load()
        return turned(part(image), orientation(image))
    except Exception as error:  # decoders fed with damaged bytes raise whatever they like
        raise explained(path, error) from error


def load(path: Path) -> np.ndarray:
    """`decode` of a file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise explained(path, error) from error
    return decode(path, content)


def rgb(image: Image.Image) -> np.ndarray:
    """Any Pillow mode as uint8 (height, width, 3). 16 bits are scaled to 8; Pillow alone would clip them."""
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64)
        grey = (grey >> 8 if image.mode != "I" or grey.max(initial=0) > 255 else grey).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"), dtype=np.uint8)


def alpha(image: Image.Image) -> np.ndarray:
    """How opaque any Pillow mode is, uint8 (height, width); 255 everywhere where there is no such channel."""
    if image.has_transparency_data:
        return np.array(image.convert("RGBA").getchannel("A"), dtype=np.uint8)
    return np.full((image.height, image.width), 255, np.uint8)


def orientation(image: Image.Image) -> int:
    """EXIF orientation 1-8; 1 (upright) where there is none or where the EXIF block cannot be read."""
    try:
        # The PNG plugin's own getexif would decode all pixels in search of an EXIF block behind them.
        exif = Image.Image.getexif(image) if image.format == "PNG" else image.getexif()
        value = exif.get(ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, struct.error):
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (height, width, ...) brought upright. EXIF 2.3, table of tag 274: where row 0 and column 0 lie."""
    if orientation >= 5:  # rows and columns are exchanged
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _notes(path: Path, image: Image.Image) -> tuple[str, ...]:
    notes = []
    if path.suffix.lower() not in FORMATS.get(image.format or "", ()):
        notes.append(f"is a {image.format} file in spite of its extension")
    if getattr(image, "is_animated", False) and image.format != "MPO":
        notes.append("is an animation, of which the first frame is used")
    return tuple(notes)


def _has_its_end(file, format: str | None) -> bool:
    """Whether the last bytes are those that end this format; True where a format has no such mark.

    A PNG whose EXIF block comes behind the pixels counts as one without, so that it is read to the end.
    """
    length = file.seek(0, os.SEEK_END)
    file.seek(max(0, length - 4096))
    tail = file.read()
    if format in ("JPEG", "MPO"):
        return tail.rstrip(b"\0\r\n ").endswith(b"\xff\xd9")
    if format == "PNG":
        return b"IEND" in tail[-64:] and b"eXIf" not in tail
    file.seek(0)
    head = file.read(8)
    if format == "WEBP":
        return length >= 8 + int.from_bytes(head[4:8], "little")
    if format == "BMP":
        return length >= int.from_bytes(head[2:6], "little")
    return True


def explained(path: Path, error: Exception) -> BadImage:
    """Why a file could not be read, in words."""
    if isinstance(error, Image.DecompressionBombError):
        return BadImage(f"has too many pixels (more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,}); make it smaller")
    if isinstance(error, UnidentifiedImageError):
        return BadImage(f"is not an image that can be read: {_what_else_it_is(path)}")
    if isinstance(error, OSError) and error.errno is not None:
        return BadImage(f"cannot be read ({error.strerror}); check its permissions or remove it")
    return BadImage(f"is damaged ({error}); replace or remove it")


def _what_else_it_is(path: Path) -> str:
    with open(path, "rb") as file:
        head = file.read(64)
    if not head:
        return "it is empty (0 bytes); replace or remove it"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "it holds a web page; download the image itself"
    if text.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; fetch the real file with `git lfs pull`"
    if head.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6")):
        return "it holds PostScript (EPS); convert it to PNG or JPEG"
    if head[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypavif"):
        return f"it holds {head[8:12].decode().upper()}; convert it to PNG or JPEG"
    return f"it begins with the bytes {head[:8].hex(' ')}; replace or remove it"
