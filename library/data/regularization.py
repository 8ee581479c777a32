"""Regularization images (prior preservation, DreamBooth): which of them an epoch sees.

An epoch has as many visits to regularization images as to training images. Where a folder holds more images than that,
they take turns: each epoch sees other ones, until all have been seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from library.data.keys import permutation


@dataclass(frozen=True)
class Rotation:
    """Images of one bucket that take turns in `slots`, which are places among the samples of an epoch.

    `pictures` are their numbers, `names` what their samples are called after, `repeats` how often each comes in a
    round; `purpose` names the random order.
    """

    slots: range
    pictures: list[int]
    names: list[str]
    repeats: list[int]
    purpose: str

    @property
    def epochs(self) -> int:
        """After how many epochs all have been seen."""
        return -(-sum(self.repeats) // len(self.slots))

    def visitors(self, seed: int, epoch: int) -> list[tuple[int, int]]:
        """For each slot which of `pictures` comes in this epoch, and which of its visits in this epoch it is."""
        start = max(0, epoch - 1) * len(self.slots)
        counts = [0] * len(self.pictures)
        found = []
        for visitor in islice(self._turns(seed, start), len(self.slots)):
            found.append((visitor, counts[visitor]))
            counts[visitor] += 1
        return found

    def _turns(self, seed: int, start: int) -> Iterator[int]:
        """Round after round, each in a random order of its own, from the place `start` on."""
        entries = [number for number, times in enumerate(self.repeats) for _ in range(times)]
        turn, skipped = divmod(start, len(entries))
        while True:
            yield from (entries[i] for i in permutation(len(entries), seed, turn, self.purpose)[skipped:])
            turn, skipped = turn + 1, 0


def fill_up(images: Sequence[int], wanted: int) -> list[int]:
    """How often each regularization image is seen in an epoch that has `wanted` training samples.

    `images` are the repeats that their folders ask for. Images are taken in order with these repeats until there are
    enough, then all of them once more in turn until there are; 0 = not used. The last one may overshoot.
    """
    repeats, total = [0] * len(images), 0
    while images and total < wanted:
        for i, asked in enumerate(images):
            if total >= wanted:
                break
            visits = asked if repeats[i] == 0 else 1
            repeats[i] += visits
            total += visits
    return repeats


def share_out(weights: Sequence[int], total: int) -> list[int]:
    """`total` whole parts in proportion to `weights`, at least one for each where there are enough, the largest first.

    Never more than a weight, if `total` is no more than all of them together.
    """
    order = sorted(range(len(weights)), key=lambda i: -weights[i])
    shares = [0] * len(weights)
    for i in order[:total]:
        shares[i] = 1
    whole = sum(weights)
    if total > len(weights):
        shares = [max(1, weight * total // whole) for weight in weights]
        for i in sorted(order, key=lambda i: -(weights[i] * total % whole))[: max(0, total - sum(shares))]:
            shares[i] += 1
        for i in order:  # what small ones were given at the least is taken from the large ones
            taken = min(shares[i] - 1, max(0, sum(shares) - total))
            shares[i] -= taken
    return shares


def about_rotations(rotations: Sequence[Rotation], images: int, visits: int) -> str:
    """One sentence on `images` regularization images of which an epoch sees only some, in `visits` visits."""
    if not rotations:
        return f"{images} regularization images are in a dataset without training images and are never used"
    turning = sum(len(rotation.pictures) for rotation in rotations)
    epochs = max(rotation.epochs for rotation in rotations)
    line = (
        f"{images} regularization images are more than the training images of an epoch call for: each epoch uses "
        f"{visits} of them, other ones in turn, all of them within {epochs} epochs"
    )
    if turning < images:
        line += (
            f"; {images - turning} of these, in buckets of their own, are never used: raise the repeats of the "
            "training images"
        )
    return line
