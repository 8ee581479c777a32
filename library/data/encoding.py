"""Many images through the VAE once: decoded by threads a little ahead, encoded in batches of one size."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from library.data.dataset import Picture
from library.data.images import BadImage, decode, fitted
from library.errors import Problem

AHEAD = 4  # images decoded ahead, for each thread


class Encoder(Protocol):
    """The VAE, as much of it as is needed here."""

    def encode_posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (n, 3, h, w) float32 in [-1, 1] -> mean and standard deviation, each (n, 4, h/8, w/8) float32."""
        ...


@dataclass
class Read:
    """A picture read and cut to its bucket: float32 (3, h, w) in [-1, 1], upright and mirrored as asked for."""

    picture: Picture
    sha256: str
    images: dict[bool, Tensor]  # by flipped


@dataclass
class Encoded:
    """Posteriors of one picture: by flipped, float32 (2, 4, h/8, w/8), mean and standard deviation."""

    read: Read
    posteriors: dict[bool, Tensor]


def prepared(pixels: np.ndarray, picture: Picture, flipped: bool) -> Tensor:
    """uint8 (height, width, 3) -> float32 (3, h, w) in [-1, 1], resized and cut to the picture's bucket."""
    cut = fitted(pixels, picture.choice)
    if flipped:
        cut = cut[:, ::-1]
    return torch.from_numpy(np.ascontiguousarray(cut)).permute(2, 0, 1).float().div_(127.5).sub_(1.0)


def read_picture(picture: Picture, wanted: Callable[[str], Sequence[bool]]) -> Read:
    """Read a picture's file once. `wanted(sha256)` says which of upright (False) and mirrored (True) to prepare.

    Raises BadImage.
    """
    try:
        content = picture.path.read_bytes()
    except OSError as error:
        raise BadImage(f"cannot be read ({error.strerror})") from error
    digest = sha256(content).hexdigest()
    flips = wanted(digest)
    images = {}
    if flips:
        pixels = upright_pixels(picture, content)
        images = {flipped: prepared(pixels, picture, flipped) for flipped in flips}
    return Read(picture, digest, images)


def upright_pixels(picture: Picture, content: bytes) -> np.ndarray:
    """The picture's pixels, which must still have the size that was seen at the start. Raises BadImage."""
    pixels = decode(picture.path, content)
    height, width = pixels.shape[:2]
    if (width, height) != picture.size:
        raise BadImage(f"was {picture.size[0]}x{picture.size[1]} at the start and now is {width}x{height}; start again")
    return pixels


def encode_all(
    pictures: Sequence[Picture],
    wanted: Callable[[Picture, str], Sequence[bool]],
    encoder: Encoder,
    problems: list[Problem],
    *,
    batch_size: int,
    workers: int,
) -> Iterator[Encoded]:
    """Read every picture and encode what `wanted(picture, sha256)` asks for; one item for each readable picture.

    Pictures that cannot be read, or of which the VAE makes no finite numbers, are added to `problems`.
    """

    def read(picture: Picture) -> Read | Problem:
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


def encode(reads: list[Read], encoder: Encoder, problems: list[Problem], batch_size: int) -> Iterator[Encoded]:
    """Pictures of one size through the VAE, at most `batch_size` images at a time."""
    images = torch.stack([image for read in reads for image in read.images.values()]).split(batch_size)
    encoded = [torch.stack(encoder.encode_posterior(part), dim=1).float().cpu() for part in images]
    posteriors = iter(torch.cat(encoded))  # each (2, 4, h/8, w/8)
    for read in reads:
        mine = {flipped: next(posteriors).clone() for flipped in read.images}
        if all(bool(posterior.isfinite().all()) for posterior in mine.values()):
            yield Encoded(read, mine)
        else:
            problems.append(not_finite(read.picture))


def not_finite(picture: Picture) -> Problem:
    """What to say when the VAE breaks down on an image."""
    what = "the VAE makes NaN or infinite latents of it; use --no_half_vae, or another VAE, or remove the image"
    return Problem(what, f"image '{picture.path}'")


def ahead_of_time(work: Callable, items: Sequence, workers: int) -> Iterator:
    """`map(work, items)`, a few items ahead in threads."""
    if workers < 1:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="images")
    ahead: deque[Future] = deque()
    try:
        for item in items:
            ahead.append(pool.submit(work, item))
            if len(ahead) > AHEAD * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
