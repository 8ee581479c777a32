"""Random seeds by name: every draw that belongs to a sample comes from a generator of its own.

A draw is named by (seed, epoch, sample id, purpose). It is the same on every machine, in every process, with any
number of workers and after any resume, because nothing that was drawn before it can change it.
"""

from __future__ import annotations

import random
from hashlib import blake2b

import numpy as np
import torch


def seed_of(seed: int, epoch: int, sample_id: str, purpose: str) -> int:
    """The 64-bit seed of one draw. The parts are joined by NUL, which no file name can hold."""
    name = "\0".join((str(seed), str(epoch), sample_id, purpose))
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def key(seed: int, epoch: int, sample_id: str, purpose: str) -> torch.Generator:
    """A fresh CPU generator for one draw of one sample in one epoch, e.g. purpose "noise", "timestep", "flip".

    torch's CPU engine uses 32 of the 64 bits: two of some 100,000 names may share a stream by chance, which is
    harmless; two purposes of one sample practically never do.
    """
    return torch.Generator().manual_seed(seed_of(seed, epoch, sample_id, purpose))


def permutation(n: int, seed: int, epoch: int, purpose: str) -> list[int]:
    """A random order of range(n).

    It sorts the raw output of PCG64, which numpy promises never to change (it makes no such promise for
    `Generator.permutation`, nor torch for `randperm`), so that an old run can be resumed with newer packages.
    """
    raw = np.random.PCG64(seed_of(seed, epoch, "", purpose)).random_raw(n)
    return np.argsort(raw, kind="stable").tolist()


def seed_generators(number: int) -> None:
    """Begin torch's, Python's and NumPy's own generators at `number`."""
    torch.manual_seed(number % 2**63)
    random.seed(number)
    np.random.seed(number % 2**32)
