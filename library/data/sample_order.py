"""Which samples make which optimizer step: a function of the seed and the epoch, and of nothing else.

An epoch is one pass over every sample. One optimizer step takes one global batch: `batch_size * num_processes *
accumulation` samples of one bucket of one dataset, fewer in the last batch of a bucket. The global batch is cut first
and split over accumulation and processes afterwards, so that how it is split changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from library.data.dataset import Dataset
from library.data.keys import permutation


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a global batch is split: `accumulation` times, over `num_processes`, of which this is `process_index`."""

    accumulation: int = 1
    num_processes: int = 1
    process_index: int = 0

    @property
    def parts(self) -> int:
        return self.accumulation * self.num_processes


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """One forward and backward pass of one process: sample indices, of which the first `real` count.

    The rest is padding, to be weighted 0: repeats of samples of the same global batch.
    """

    samples: list[int]
    real: int


def order(dataset: Dataset, seed: int, epoch: int, parts: int) -> list[list[int]]:
    """The global batches of an epoch, as lists of sample indices; `parts` is Geometry.parts.

    Every bucket is shuffled and cut, then the batches of all buckets are shuffled.
    """
    batches = []
    for (number, bucket), members in dataset.groups.items():
        size = dataset.plan[number].batch_size * parts
        shuffle = permutation(len(members), seed, epoch, f"order of {number}/{bucket[0]}x{bucket[1]}")
        shuffled = [members[i] for i in shuffle]
        batches += [shuffled[start : start + size] for start in range(0, len(shuffled), size)]
    return [batches[i] for i in permutation(len(batches), seed, epoch, "order of batches")]


def steps_per_epoch(dataset: Dataset, parts: int) -> int:
    """How many optimizer steps one pass over the dataset takes."""
    return sum(
        -(-len(members) // (dataset.plan[number].batch_size * parts)) for (number, _), members in dataset.groups.items()
    )


def split(global_batch: list[int], batch_size: int, geometry: Geometry) -> list[MicroBatch]:
    """This process' share of a global batch, in parts of at most `batch_size` samples.

    Parts are dealt out to the processes before they are dealt out in time. A time at which no process would have a
    sample is left out, for all processes alike; a process that alone has none at that time gets one as padding, so that
    all make the same number of passes. A short part is not filled up: that would only cost time.
    """
    micro_batches = []
    for first in range(0, len(global_batch), batch_size * geometry.num_processes):
        start = first + batch_size * geometry.process_index
        real = global_batch[start : start + batch_size]
        padding = [] if real else global_batch[:1]
        micro_batches.append(MicroBatch(real + padding, len(real)))
    return micro_batches
