"""Many images through the VAE once: decoded by threads a little ahead, encoded in batches of one size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from library.data.augmentation.image_augmentation import View, coloured
from library.data.augmentation.resize_crop import fitted
from library.data.images.image import DatasetImage
from library.data.images.masks import latent_mask, whole_mask
from library.data.prefetch import ahead_of_time
from library.errors import Problem, UserError
from library.image_files import BadImage, decode


class PosteriorEncoder(Protocol):
    """The VAE, as much of it as is needed here."""

    def encode_posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (n, 3, h, w) float32 in [-1, 1] -> mean and standard deviation, each (n, 4, h/8, w/8) float32."""
        ...


@dataclass(frozen=True, slots=True)
class Ready:
    """What can be had ahead of a step: an image, float32 (3, h, w) in [-1, 1], or its posterior, (2, 4, h/8, w/8), mean
    and standard deviation. `mask` is (1, h/8, w/8) in [0, 1] where the picture has one."""

    tensor: Tensor
    mask: Tensor | None = None


@dataclass
class Read:
    """A picture read and cut to its bucket: images by flipped, upright and mirrored as asked for."""

    picture: DatasetImage
    sha256: str
    images: dict[bool, Ready]


@dataclass
class Encoded:
    """Posteriors of one picture, by flipped."""

    read: Read
    posteriors: dict[bool, Ready]


def prepared(picture: DatasetImage, content: bytes, views: Sequence[View]) -> list[Ready]:
    """A picture file's content as each of the views sees it. Raises BadImage."""
    pixels = upright_pixels(picture, content)
    mask = whole_mask(picture.mask, picture.path, content, picture.size) if picture.mask else None
    return [
        Ready(
            image_of(pixels, view, picture.subset.resize_interpolation),
            None if mask is None else latent_mask(mask, view.choice, view.flipped),
        )
        for view in views
    ]


def read_as_seen(picture: DatasetImage, view: View) -> Ready:
    """A picture as a view sees it, read from its file. Raises UserError that names the file."""
    try:
        return prepared(picture, picture.path.read_bytes(), [view])[0]
    except (BadImage, OSError) as error:
        raise UserError(f"image '{picture.path}': {error}") from error


def image_of(pixels: np.ndarray, view: View, interpolation: str | None = None) -> Tensor:
    """uint8 (height, width, 3) -> float32 (3, h, w) in [-1, 1], as a view sees it."""
    cut = fitted(pixels, view.choice, interpolation)
    if view.colour:
        cut = coloured(cut, view.colour)
    if view.flipped:
        cut = cut[:, ::-1]
    return torch.from_numpy(np.ascontiguousarray(cut)).permute(2, 0, 1).float().div_(127.5).sub_(1.0)


def read_picture(picture: DatasetImage, wanted: Callable[[str], Sequence[bool]]) -> Read:
    """Read a picture's file once. `wanted(sha256)` says which of upright (False) and mirrored (True) to prepare.

    Raises BadImage.
    """
    try:
        content = picture.path.read_bytes()
    except OSError as error:
        raise BadImage(f"cannot be read ({error.strerror})") from error
    digest = sha256(content).hexdigest()
    flips = wanted(digest)
    images = prepared(picture, content, [View(picture.choice, flipped) for flipped in flips]) if flips else []
    return Read(picture, digest, dict(zip(flips, images, strict=True)))


def upright_pixels(picture: DatasetImage, content: bytes) -> np.ndarray:
    """The picture's pixels, which must still have the size that was seen at the start. Raises BadImage."""
    pixels = decode(picture.path, content)
    height, width = pixels.shape[:2]
    if (width, height) != picture.size:
        raise BadImage(f"was {picture.size[0]}x{picture.size[1]} at the start and now is {width}x{height}; start again")
    return pixels


def encode_all(
    pictures: Sequence[DatasetImage],
    wanted: Callable[[DatasetImage, str], Sequence[bool]],
    encoder: PosteriorEncoder,
    problems: list[Problem],
    *,
    batch_size: int,
    workers: int,
) -> Iterator[Encoded]:
    """Read every picture and encode what `wanted(picture, sha256)` asks for; one item for each readable picture.

    Pictures that cannot be read, or of which the VAE makes no finite numbers, are added to `problems`.
    """

    def read(picture: DatasetImage) -> Read | Problem:
        try:
            return read_picture(picture, lambda digest: wanted(picture, digest))
        except BadImage as error:
            return Problem(str(error), f"image '{picture.path}'")

    waiting: list[Read] = []  # of one size
    for item in ahead_of_time(read, sorted(pictures, key=lambda picture: picture.choice.bucket), workers):
        if isinstance(item, Problem):
            problems.append(item)
        elif not item.images:
            yield Encoded(item, {})
        else:
            if waiting and waiting[0].picture.choice.bucket != item.picture.choice.bucket:
                yield from encode(waiting, encoder, problems, batch_size)
                waiting = []
            waiting.append(item)
            if sum(len(read.images) for read in waiting) >= batch_size:
                yield from encode(waiting, encoder, problems, batch_size)
                waiting = []
    if waiting:
        yield from encode(waiting, encoder, problems, batch_size)


def encode(reads: list[Read], encoder: PosteriorEncoder, problems: list[Problem], batch_size: int) -> Iterator[Encoded]:
    """Pictures of one size through the VAE, at most `batch_size` images at a time."""
    images = torch.stack([image.tensor for read in reads for image in read.images.values()]).split(batch_size)
    encoded = [torch.stack(encoder.encode_posterior(part), dim=1).float().cpu() for part in images]
    posteriors = iter(torch.cat(encoded))  # each (2, 4, h/8, w/8)
    for read in reads:
        mine = {flipped: Ready(next(posteriors).clone(), image.mask) for flipped, image in read.images.items()}
        if all(bool(posterior.tensor.isfinite().all()) for posterior in mine.values()):
            yield Encoded(read, mine)
        else:
            problems.append(not_finite(read.picture))


def not_finite(picture: DatasetImage) -> Problem:
    """What to say when the VAE breaks down on an image."""
    what = "the VAE makes NaN or infinite latents of it; use --no_half_vae, or another VAE, or remove the image"
    return Problem(what, f"image '{picture.path}'")
