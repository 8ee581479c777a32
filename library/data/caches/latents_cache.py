"""Where latents come from: the VAE's posterior of every image, computed once, or the VAE itself at every step.

What is cached is the posterior's mean and standard deviation, not one frozen sample of it, so that each epoch can draw
its own latents. A cache in memory lives as long as the run. A cache on disk lies in `.pivot_cache/` inside each image
folder, may be deleted at any time, and never touches the .npz files of sd-scripts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from library.data.augmentation.image_augmentation import View
from library.data.caches.cache_entry import BadEntry
from library.data.caches.latent_files import CacheFolder, name_of, read_posterior
from library.data.caches.vae_encoding import (
    PosteriorEncoder,
    Ready,
    encode_all,
    not_finite,
    read_as_seen,
    upright_pixels,
)
from library.data.dataset import Dataset
from library.data.images.image import DatasetImage, Look
from library.data.images.image_folder import IndexedImage
from library.data.images.masks import whole_mask
from library.data.prefetch import ahead_of_time, in_threads
from library.errors import Problem, UserError, raise_all
from library.image_files import BadImage, Header

Variant = tuple[Look, bool]
"""What a posterior in memory is filed under: how the picture is seen, and whether mirrored."""


@dataclass(frozen=True)
class Filled:
    """What filling a cache took: posteriors found and made, cache files that were damaged, lines worth saying."""

    found: int
    made: int
    damaged: int
    notes: tuple[str, ...] = ()


class MemoryLatents:
    """Posteriors in memory, kept in `dtype`."""

    ready = True
    shift_factor = 0.0

    def __init__(self, dataset: Dataset, scaling_factor: float, *, dtype: torch.dtype = torch.float32):
        self.pictures, self.scaling_factor, self.dtype = distinct(dataset.all_pictures), scaling_factor, dtype
        self.digests = dataset.digests
        self.posteriors: dict[Variant, Ready] = {}

    def fill(
        self, encoder: PosteriorEncoder, *, batch_size: int = 1, workers: int = 2, progress: bool = True
    ) -> Filled:
        """Encode every image. Raises UserError with all images that cannot be."""
        problems: list[Problem] = []

        def wanted(picture: DatasetImage, digest: str) -> Sequence[bool]:
            return flips_of(picture)

        jobs = encode_all(self.pictures, wanted, encoder, problems, batch_size=batch_size, workers=workers)
        for encoded in shown(jobs, len(self.pictures), progress):
            self.digests[encoded.read.picture.path] = encoded.read.sha256
            for flipped, ready in encoded.posteriors.items():
                self.posteriors[encoded.read.picture.look, flipped] = kept(ready, self.dtype)
        raise_all(problems)
        return Filled(found=0, made=len(self.posteriors), damaged=0)

    def fetch(self, picture: DatasetImage, view: View) -> Ready:
        return self.posteriors[picture.look, view.flipped]

    def posterior(self, fetched: Sequence[Ready], pictures: Sequence[DatasetImage]) -> tuple[Tensor, Tensor]:
        mean, std = torch.stack([ready.tensor for ready in fetched]).float().unbind(1)
        return mean, std


class DiskLatents:
    """Posteriors on disk, read by the threads that prepare batches.

    `fallback`: the output folder, for caches of image folders that cannot be written.
    """

    ready = False
    shift_factor = 0.0

    def __init__(
        self,
        dataset: Dataset,
        scaling_factor: float,
        *,
        vae_hash: str,
        fallback: Path | None,
        dtype: torch.dtype = torch.float32,
    ):
        self.pictures, self.scaling_factor, self.dtype = distinct(dataset.all_pictures), scaling_factor, dtype
        self.digests = dataset.digests
        self.vae_hash, self.fallback = vae_hash, fallback
        self.files: dict[Variant, Path] = {}
        self.folders: dict[Path, CacheFolder] = {}

    def missing(self) -> int:
        """How many images a `fill` would have to read: 0 means that it needs no VAE."""
        self._open_folders()
        return sum(self._known(picture) is None for picture in self.pictures)

    def fill(
        self,
        encoder: PosteriorEncoder | None,
        *,
        batch_size: int = 1,
        workers: int = 2,
        progress: bool = True,
        process_index: int = 0,
        num_processes: int = 1,
        wait: Callable[[], object] = lambda: None,
    ) -> Filled:
        """Make the posteriors that are not there yet; `encoder` may be None if `missing()` is 0.

        Several processes share the work: each makes its part, `wait` is a barrier, then each picks up what the others
        made. Raises UserError with all images that cannot be encoded.
        """
        self._open_folders()
        made, problems = 0, []
        try:
            if num_processes > 1:
                mine = self.pictures[process_index::num_processes]
                made += self._make(mine, encoder, [], batch_size, workers, progress and process_index == 0)
                wait()
                for folder in self.folders.values():
                    folder.look()
            made += self._make(self.pictures, encoder, problems, batch_size, workers, progress and num_processes == 1)
        finally:  # what was done before an interruption need not be done again
            if process_index == 0:
                self._close()
        wait()
        damaged = sum({id(folder): folder.damaged for folder in self.folders.values()}.values())
        raise_all(problems)
        return Filled(len(self.files) - made, made, damaged, tuple(self._notes(damaged)))

    def fetch(self, picture: DatasetImage, view: View) -> Ready:
        path = self.files[picture.look, view.flipped]
        try:
            return read_posterior(path, picture.look)
        except BadEntry as error:
            what = f"The cached latents of image '{picture.path}' in '{path}' have changed during the run: {error}."
            raise UserError(
                f"{what} Start again, with --resume latest if there is a state: they are made anew."
            ) from error

    def posterior(self, fetched: Sequence[Ready], pictures: Sequence[DatasetImage]) -> tuple[Tensor, Tensor]:
        mean, std = torch.stack([ready.tensor for ready in fetched]).float().unbind(1)
        return mean, std

    def _open_folders(self) -> None:
        """Open each folder's cache, once also where two datasets name the same folder differently."""
        same = {folder.resolve(): cache for folder, cache in self.folders.items()}
        for folder in {picture.path.parent for picture in self.pictures} - self.folders.keys():
            if folder.resolve() not in same:
                same[folder.resolve()] = self._opened(folder)
            self.folders[folder] = same[folder.resolve()]

    def _opened(self, folder: Path) -> CacheFolder:
        try:
            return CacheFolder.open(folder, self.fallback)
        except OSError as error:
            raise UserError(f"The latent cache cannot write {error}. {NO_DISK}") from error

    def _close(self) -> None:
        for folder in self.folders.values():
            try:
                folder.close()
            except UserError as error:
                raise _with_advice(error) from error

    def _name(self, picture: DatasetImage, sha256: str, flipped: bool) -> str:
        return name_of(sha256, picture.look, flipped, self.vae_hash, self.dtype)

    def _known(self, picture: DatasetImage) -> IndexedImage | None:
        """What the index knows of a picture that has not changed and of which all posteriors are there."""
        folder = self.folders[picture.path.parent]
        known = folder.index.find(picture.path.name, picture.stamp)
        if known and all(
            folder.has(self._name(picture, known.sha256, flipped), picture.look) for flipped in flips_of(picture)
        ):
            return known
        return None

    def _make(
        self,
        pictures: Sequence[DatasetImage],
        encoder: PosteriorEncoder | None,
        problems: list[Problem],
        batch_size: int,
        workers: int,
        progress: bool,
    ) -> int:
        """File what is there, make what is not; how many were made."""
        unknown = []
        for picture, known in zip(pictures, in_threads(self._known, pictures, workers), strict=True):
            if known:
                self._file(picture, known.sha256)
            else:
                unknown.append(picture)
        if not unknown:
            return 0
        if encoder is None:
            raise RuntimeError(f"{len(unknown)} images are not cached, and there is no VAE to encode them")

        def wanted(picture: DatasetImage, sha256: str) -> list[bool]:
            folder = self.folders[picture.path.parent]
            names = {flipped: self._name(picture, sha256, flipped) for flipped in flips_of(picture)}
            return [flipped for flipped, name in names.items() if not folder.has(name, picture.look)]

        made = 0
        jobs = encode_all(unknown, wanted, encoder, problems, batch_size=batch_size, workers=workers)
        for encoded in shown(jobs, len(unknown), progress):
            picture, sha256 = encoded.read.picture, encoded.read.sha256
            folder = self.folders[picture.path.parent]
            for flipped, ready in encoded.posteriors.items():
                try:
                    folder.write(self._name(picture, sha256, flipped), kept(ready, self.dtype))
                except UserError as error:
                    raise _with_advice(error) from error
                made += 1
            folder.know(picture.path.name, IndexedImage(picture.stamp, sha256, Header(picture.size, picture.notes)))
            self._file(picture, sha256)
        return made

    def _file(self, picture: DatasetImage, sha256: str) -> None:
        folder = self.folders[picture.path.parent]
        self.digests[picture.path] = sha256
        for flipped in flips_of(picture):
            self.files[picture.look, flipped] = folder.index.where / self._name(picture, sha256, flipped)

    def _notes(self, damaged: int) -> Iterable[str]:
        for folder, cache in sorted(self.folders.items()):
            if cache.index.where.parent.resolve() != folder.resolve():
                yield f"folder '{folder}' cannot be written; its latent cache is kept in '{cache.index.where}'"
        if damaged:
            yield f"{damaged} files of the latent cache were damaged or changed and have been made again"


class LiveLatents:
    """No cache: images are decoded by the threads that prepare batches and encoded at every step."""

    ready = False
    shift_factor = 0.0

    def __init__(self, dataset: Dataset, scaling_factor: float, encoder: PosteriorEncoder, *, batch_size: int = 1):
        self.pictures, self.scaling_factor = distinct(dataset.all_pictures), scaling_factor
        self.digests = dataset.digests
        self.encoder, self.batch_size = encoder, batch_size

    def check(self, *, workers: int = 2, progress: bool = True) -> None:
        """Decode every image once. Raises UserError with all those that are damaged."""

        def problem_of(picture: DatasetImage) -> Problem | None:
            try:
                content = picture.path.read_bytes()
                self.digests[picture.path] = sha256(content).hexdigest()
                upright_pixels(picture, content)
                if picture.mask:
                    whole_mask(picture.mask, picture.path, content, picture.size)
            except (BadImage, OSError) as error:
                return Problem(str(error), f"image '{picture.path}'")
            return None

        found = shown(
            ahead_of_time(problem_of, self.pictures, workers), len(self.pictures), progress, "checking images"
        )
        raise_all([problem for problem in found if problem])

    def fetch(self, picture: DatasetImage, view: View) -> Ready:
        return read_as_seen(picture, view)

    def posterior(self, fetched: Sequence[Ready], pictures: Sequence[DatasetImage]) -> tuple[Tensor, Tensor]:
        parts = torch.stack([ready.tensor for ready in fetched]).split(self.batch_size)
        mean, std = (
            torch.cat(part).float().cpu() for part in zip(*map(self.encoder.encode_posterior, parts), strict=True)
        )
        broken = [
            p for p, m, s in zip(pictures, mean, std, strict=True) if not (m.isfinite().all() and s.isfinite().all())
        ]
        raise_all([not_finite(picture) for picture in broken])
        return mean, std


NO_DISK = "Free some space, choose another --output_dir, or use --cache_latents without _to_disk."


def _with_advice(error: UserError) -> UserError:
    return UserError(f"The latent cache: {error}. {NO_DISK}")


def kept(ready: Ready, dtype: torch.dtype) -> Ready:
    """A posterior in the dtype in which it is kept; its mask stays as it is."""
    return Ready(ready.tensor.to(dtype), ready.mask)


def flips_of(picture: DatasetImage) -> tuple[bool, ...]:
    """Which variants of a picture are needed: upright, and mirrored if the subset flips."""
    return (False, True) if picture.subset.flip_aug else (False,)


def distinct(pictures: Iterable[DatasetImage]) -> list[DatasetImage]:
    """One picture for each look, of those that are the same one that needs most variants."""
    chosen: dict[Look, DatasetImage] = {}
    for picture in pictures:
        other = chosen.get(picture.look)
        if other is None or (picture.subset.flip_aug and not other.subset.flip_aug):
            chosen[picture.look] = picture
    return list(chosen.values())


def shown(items: Iterable, total: int, progress: bool, what: str = "caching latents") -> Iterable:
    """The items, counted by a progress bar where there is a terminal."""
    return tqdm(items, total=total, desc=what, unit="image", disable=None if progress else True)
