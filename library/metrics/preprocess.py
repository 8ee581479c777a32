"""How a picture file becomes what a network sees. Pillow alone does it, so that figures do not depend on what else is
installed; the identifier of a way is written beside every figure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from library.errors import UserError
from library.image_files import BadImage, decode, decode_alpha

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def open_picture(path: Path) -> Image.Image:
    """RGB, upright as its EXIF says, transparent places on white, 16 bits scaled to 8. Raises UserError."""
    try:
        content = path.read_bytes()
        pixels, opaque = decode(path, content), decode_alpha(path, content)
    except (BadImage, OSError) as error:
        raise UserError(f"'{path}' {error}") from error
    if opaque.min() < 255:
        share = opaque[..., None].astype(np.uint32)
        pixels = ((pixels * share + 255 * (255 - share) + 127) // 255).astype(np.uint8)
    return Image.fromarray(pixels)


def shortest_side(image: Image.Image, side: int, resample: Image.Resampling = Image.Resampling.BICUBIC) -> Image.Image:
    """Resized so that its shorter side is `side`; the longer one is rounded down, as torchvision does."""
    width, height = image.size
    if width <= height:
        size = (side, int(side * height / width))
    else:
        size = (int(side * width / height), side)
    return image.resize(size, resample)


def centre(image: Image.Image, side: int) -> Image.Image:
    """The square in the middle, where torchvision's CenterCrop has it."""
    left, top = (round((length - side) / 2) for length in image.size)
    return image.crop((left, top, left + side, top + side))


def normalised(image: Image.Image, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(3, height, width) float32: colours in 0..1, less their mean, over their deviation."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


@dataclass(frozen=True)
class Preprocessing:
    """A way, and the name that it has beside figures."""

    name: str
    prepare: Callable[[Image.Image], Tensor]


def clip_preprocessing(side: int = 224) -> Preprocessing:
    return Preprocessing(
        f"clip {side}: short side {side} bicubic, centre, CLIP mean/std",
        lambda image: normalised(centre(shortest_side(image, side), side), CLIP_MEAN, CLIP_STD),
    )


def square_clip_preprocessing(side: int = 336) -> Preprocessing:
    """Of CMMD: the whole picture, squeezed to a square."""
    return Preprocessing(
        f"square {side}: bicubic, CLIP mean/std",
        lambda image: normalised(image.resize((side, side), Image.Resampling.BICUBIC), CLIP_MEAN, CLIP_STD),
    )


def imagenet_preprocessing(side: int = 224) -> Preprocessing:
    around = side * 8 // 7
    return Preprocessing(
        f"imagenet {side}: short side {around} bicubic, centre {side}, ImageNet mean/std",
        lambda image: normalised(centre(shortest_side(image, around), side), IMAGENET_MEAN, IMAGENET_STD),
    )


INCEPTION_SIDE = 299


def clean_inception(image: Image.Image) -> Tensor:
    """Each channel resized in float by Pillow's bicubic filter, not rounded: (3, 299, 299) in about -1..1."""
    size = (INCEPTION_SIDE, INCEPTION_SIDE)
    channels = [
        np.asarray(Image.fromarray(np.asarray(channel, np.float32)).resize(size, Image.Resampling.BICUBIC))
        for channel in image.split()
    ]
    return (torch.from_numpy(np.stack(channels)).clamp(0, 255) - 128) / 128


def legacy_inception(image: Image.Image) -> Tensor:
    """As TensorFlow 1 resized: bilinear between the pixels at output x * width / 299, without smoothing."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()  # (3, height, width)
    for axis in (1, 2):
        length = pixels.shape[axis]
        position = torch.arange(INCEPTION_SIDE, dtype=torch.float32) * (length / INCEPTION_SIDE)
        low = position.floor().long().clamp(max=length - 1)
        high = (low + 1).clamp(max=length - 1)
        shape = [1, 1, 1]
        shape[axis] = INCEPTION_SIDE
        share = (position - low).reshape(shape)
        near, far = pixels.index_select(axis, low), pixels.index_select(axis, high)
        pixels = near + (far - near) * share
    return (pixels - 128) / 128


INCEPTION = {
    "clean": Preprocessing("clean 299: Pillow bicubic in float, (x-128)/128", clean_inception),
    "legacy": Preprocessing("legacy 299: TensorFlow 1 bilinear, (x-128)/128", legacy_inception),
}
