"""Pictures that are in a set twice: the same bytes, or nearly the same looks.

Two hashes of 64 bits that differ in at most t bits are equal in at least one of t + 1 blocks of their bits, so only
hashes that share a block are compared, not every one with every other. What is left is compared by very small copies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from library.data.preflight.pixels import SIDE, Sight

BITS = 6
"""Of 64: as many may differ in the looks of one picture that was saved, resized or retouched twice."""
MEAN, LARGEST = 6.0, 56.0
"""Grey levels by which two small copies may differ, on average and in one place."""
RATIO = 1.06  # by which their shapes may differ
ROWS = 512  # of a group that are compared at a time
PAIRS = 4096  # whose small copies are compared at a time


def same_bytes(sights: Iterable[Sight]) -> list[list[Sight]]:
    """Groups of files with the same content, each in the order given."""
    groups: dict[str, list[Sight]] = {}
    for sight in sights:
        groups.setdefault(sight.sha256, []).append(sight)
    return [group for group in groups.values() if len(group) > 1]


def nearly_same(sights: Sequence[Sight], bits: int = BITS) -> list[list[Sight]]:
    """Groups of pictures that look nearly the same, each in the order given; of files with the same bytes the first."""
    firsts = list({sight.sha256: sight for sight in reversed(sights)}.values())[::-1]
    if len(firsts) < 2:
        return []
    pairs = near_pairs(np.array([sight.looks for sight in firsts], np.uint64), bits)
    small = np.frombuffer(b"".join(sight.small for sight in firsts), np.uint8).reshape(len(firsts), SIDE, SIDE, 3)
    ratios = np.array([sight.ratio for sight in firsts])
    groups = joined(len(firsts), confirmed(pairs, small, ratios))
    return [[firsts[i] for i in group] for group in groups]


def near_pairs(hashes: np.ndarray, bits: int) -> np.ndarray:
    """Index pairs (n, 2), lower first, of the hashes (uint64) that differ in at most `bits` bits."""
    found = [np.empty(0, np.int64)]
    for block in np.array_split(np.arange(64), bits + 1):
        keys = hashes >> np.uint64(block[0]) & np.uint64(2 ** len(block) - 1)
        order = np.argsort(keys, kind="stable")
        borders = np.flatnonzero(np.diff(keys[order])) + 1
        for group in np.split(order, borders):
            found += _near_in_group(hashes, np.sort(group), bits)
    return np.stack(np.divmod(np.unique(np.concatenate(found)), len(hashes)), axis=1)


def _near_in_group(hashes: np.ndarray, group: np.ndarray, bits: int) -> Iterator[np.ndarray]:
    """The near pairs of one group, each as one number: first * count + second."""
    for start in range(0, len(group) - 1, ROWS):
        rows, others = group[start : start + ROWS], group[start:]
        distance = np.bitwise_count(hashes[rows, None] ^ hashes[None, others])
        i, j = np.nonzero(np.triu(distance <= bits, k=1))
        yield rows[i] * len(hashes) + others[j]


def confirmed(pairs: np.ndarray, small: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """Those pairs whose small copies and shapes agree, too: hashes of flat pictures are alike by chance."""
    kept = [np.empty((0, 2), np.int64)]
    for start in range(0, len(pairs), PAIRS):
        some = pairs[start : start + PAIRS]
        apart = np.abs(small[some[:, 0]].astype(np.int16) - small[some[:, 1]])
        shapes = ratios[some[:, 0]] / ratios[some[:, 1]]
        alike = (apart.mean(axis=(1, 2, 3)) <= MEAN) & (apart.max(axis=(1, 2, 3)) <= LARGEST)
        kept.append(some[alike & (np.maximum(shapes, 1 / shapes) <= RATIO)])
    return np.concatenate(kept)


def joined(count: int, pairs: Iterable[Sequence[int]]) -> list[list[int]]:
    """Groups of indices that pairs connect, each in ascending order; without those that are alone."""
    leader = list(range(count))

    def find(i: int) -> int:
        while leader[i] != i:
            leader[i] = leader[leader[i]]
            i = leader[i]
        return i

    for i, j in pairs:
        one, other = sorted((find(int(i)), find(int(j))))
        leader[other] = one
    groups: dict[int, list[int]] = {}
    for i in range(count):
        groups.setdefault(find(i), []).append(i)
    return [group for group in groups.values() if len(group) > 1]
