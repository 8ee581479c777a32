"""The order of samples: every sample once in an epoch, whatever the sizes, batches, processes and accumulation."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from library.config.dataset_specs import DatasetSpec
from library.data.buckets import BucketChoice
from library.data.dataset import Dataset, DatasetImage, Sample
from library.data.images.image_folder import Stamp
from library.data.sample_order import Geometry, order, split, steps_per_epoch


def dataset_of(groups: list[tuple[int, list[int]]]) -> Dataset:
    """For each dataset its batch size and the number of samples in each of its buckets."""
    plan, pictures, samples = [], [], []
    for number, (batch_size, buckets) in enumerate(groups):
        plan.append(DatasetSpec(number, (512, 512), batch_size, True, 256, 1024, 64, False, 1.0, 0.0, None, subsets=()))
        for i, count in enumerate(buckets):
            size = (64 * (i + 1), 64)
            choice = BucketChoice(size, size, (0, 0))
            for k in range(count):
                path = Path(f"{i}-{k}.png")
                pictures.append(DatasetImage(path, Stamp(1, 1), size, choice, "", None, number))  # pyright: ignore
                samples.append(Sample(f"{number}/{path}#0", pictures[-1], 1.0))
    return Dataset(plan, pictures, samples)


groups = st.lists(
    st.tuples(st.integers(1, 5), st.lists(st.integers(1, 25), min_size=1, max_size=4)), min_size=1, max_size=3
)


@settings(max_examples=60, deadline=None)
@given(groups, st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**40), st.integers(0, 99))
def test_every_sample_is_seen_exactly_once_in_an_epoch(
    groups, accumulation: int, processes: int, seed: int, epoch: int
):
    dataset = dataset_of(groups)
    parts = accumulation * processes
    batches = order(dataset, seed, epoch, parts)
    assert sorted(i for batch in batches for i in batch) == list(range(len(dataset.samples)))
    assert len(batches) == steps_per_epoch(dataset, parts)
    assert order(dataset, seed, epoch, parts) == batches
    seen = []
    for batch in batches:
        pictures = [dataset.samples[i].picture for i in batch]
        assert len({(picture.dataset, picture.choice.bucket) for picture in pictures}) == 1
        batch_size = dataset.plan[pictures[0].dataset].batch_size
        shares = [split(batch, batch_size, Geometry(accumulation, processes, p)) for p in range(processes)]
        assert len({len(share) for share in shares}) == 1
        assert 1 <= len(shares[0]) <= accumulation
        for share in shares:
            for part in share:
                assert 1 <= len(part.samples) <= batch_size
                assert part.real or len(part.samples) == 1  # padding only where there is nothing else
                assert set(part.samples) <= set(batch)
                seen += part.samples[: part.real]
    assert sorted(seen) == list(range(len(dataset.samples)))


@settings(max_examples=30, deadline=None)
@given(groups, st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
def test_processes_and_accumulation_see_what_one_process_sees_with_a_larger_batch(
    groups, accumulation, processes, seed
):
    parts = accumulation * processes
    larger = dataset_of([(size * parts, buckets) for size, buckets in groups])
    assert order(larger, seed, 1, 1) == order(dataset_of(groups), seed, 1, parts)


def test_batches_are_the_same_on_every_machine_for_ever():
    dataset = dataset_of([(2, [5, 3]), (1, [2])])
    assert order(dataset, 42, 1, 1) == [[3, 2], [5], [1], [8], [7, 6], [4, 0], [9]]


def test_epochs_differ_in_which_samples_meet():
    dataset = dataset_of([(4, [64])])
    first, second = order(dataset, 1, 1, 1), order(dataset, 1, 2, 1)
    assert {frozenset(batch) for batch in first} != {frozenset(batch) for batch in second}


def test_epochs_differ_in_when_a_bucket_comes():
    dataset = dataset_of([(4, [64, 64])])
    buckets = [[batch[0] < 64 for batch in order(dataset, 1, epoch, 1)] for epoch in (1, 2)]
    assert buckets[0] != buckets[1]
    assert sum(buckets[0]) == sum(buckets[1]) == 16
