"""What a whole image file tells once it is decoded: whether it is sound, and what it looks like in a few bytes.

Imports little: processes that look at files side by side start with this file.
"""

from __future__ import annotations

import hashlib
import io
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from library.image_files import FORMATS, explained, open_image, orientation, turned

SIDE = 16  # pixels of the small picture, on a side
MANY = 96  # files, from which on processes are worth their start
HANDFUL = 16  # files that a process takes at a time


@dataclass(frozen=True, slots=True)
class Sight:
    """One image file, looked at. Without `damage`: its bytes' hash, a hash of its looks, and a very small copy of it.

    `looks` has a bit for each of 8 x 8 places that is brighter than the place to its right (dHash, 64 bits); `small` is
    RGB, SIDE x SIDE x 3 bytes. Both are of the upright picture.
    """

    path: Path
    damage: str | None = None
    format: str = ""
    mode: str = ""
    frames: int = 1
    orientation: int = 1
    transparent: bool = False
    ratio: float = 1.0  # width / height, upright
    sha256: str = ""
    looks: int = 0
    small: bytes = b""


def look_at_all(paths: list[Path], workers: int) -> list[Sight]:
    """`look_at` of every file, by several processes where there are many: decoding is work for the processor."""
    if workers < 2 or len(paths) < MANY:
        return [look_at(path) for path in paths]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        sights = pool.map(look_at, paths, chunksize=HANDFUL)
        return list(tqdm(sights, desc="pictures", total=len(paths), disable=None, leave=False))


def look_at(path: Path) -> Sight:
    """Decode a file to its end. A JPEG is read whole, but only an eighth of its resolution is computed."""
    try:
        content = path.read_bytes()
        image = open_image(io.BytesIO(content))
        format, mode, turn = image.format or "", image.mode, orientation(image)
        width, height = image.size
        frames = getattr(image, "n_frames", 1) if format != "MPO" else 1
        if mode == "RGB":
            image.draft("RGB", (8 * SIDE, 8 * SIDE))
        image.load()
        transparent = image.has_transparency_data and _is_transparent(image)
        upright = Image.fromarray(turned(np.asarray(_as_rgb(image).resize((64, 64), Image.Resampling.BOX)), turn))
        return Sight(
            path=path,
            format=format,
            mode=mode,
            frames=frames,
            orientation=turn,
            transparent=transparent,
            ratio=height / width if turn >= 5 else width / height,
            sha256=hashlib.sha256(content).hexdigest(),
            looks=looks_of(upright),
            small=upright.resize((SIDE, SIDE), Image.Resampling.BOX).tobytes(),
        )
    except Exception as error:  # decoders fed with damaged bytes raise whatever they like
        return Sight(path, damage=str(explained(path, error)))


def looks_of(image: Image.Image) -> int:
    """dHash: whether each of 8 x 8 places is brighter than the one to its right, the first place in the highest bit."""
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX)).astype(np.int16)
    bits = (grey[:, :-1] > grey[:, 1:]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def is_mislabelled(sight: Sight) -> bool:
    return sight.path.suffix.lower() not in FORMATS.get(sight.format, ())


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits, which Pillow alone would clip
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def _is_transparent(image: Image.Image) -> bool:
    lowest = image.convert("RGBA").getchannel("A").getextrema()[0]
    return isinstance(lowest, int | float) and lowest < 255
