"""Batches: the same samples, draws and latents however an epoch is split, resumed or prepared."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import pytest
import torch

from library.data.augmentation.image_augmentation import View
from library.data.batches import Batch, Batches
from library.data.buckets import BucketChoice
from library.data.caches.latents_cache import LiveLatents, MemoryLatents
from library.data.dataset import Dataset, build
from library.data.sample_order import Geometry

SIZES = [(128, 128)] * 5 + [(256, 64)] * 2 + [(64, 200)]


@pytest.fixture
def small(tmp_path: Path, make) -> Dataset:
    for number, size in enumerate(SIZES):
        make.picture(tmp_path / "cat" / f"{number}.png", size, f"cat {number}, red, blue, green", seed=number)
    options = {"flip_aug": True, "shuffle_caption": True, "keep_tokens": 1, "caption_dropout_rate": 0.2}
    return build([make.dataset(make.subset(tmp_path / "cat", num_repeats=2, **options))])


@pytest.fixture
def cached(small: Dataset, vae) -> MemoryLatents:
    latents = MemoryLatents(small, 0.5)
    latents.fill(vae, progress=False)
    return latents


def real_rows(steps: list[list[Batch]]) -> list[dict[str, tuple[str, torch.Tensor]]]:
    """For each optimizer step: sample id -> caption and latents of the rows that count."""
    return [
        {
            name: (batch.captions[i], batch.latents[i])
            for batch in micro_batches
            for i, name in enumerate(batch.sample_ids)
            if batch.weights[i] > 0
        }
        for micro_batches in steps
    ]


def assert_same(a: list[dict], b: list[dict]) -> None:
    assert [step.keys() for step in a] == [step.keys() for step in b]
    for left, right in zip(a, b, strict=True):
        for name in left:
            assert left[name][0] == right[name][0]
            assert torch.equal(left[name][1], right[name][1])


def test_an_epoch_is_one_pass_over_every_image_times_its_repeats(small: Dataset, cached: MemoryLatents):
    steps = list(Batches(small, cached, None, seed=1).epoch(1))
    seen = [name for step in real_rows(steps) for name in step]
    assert sorted(seen) == sorted(sample.sample_id for sample in small.samples)
    assert len(seen) == 2 * len(SIZES)


def test_two_processes_or_two_accumulation_steps_see_what_one_sees_with_the_double_batch(
    small: Dataset, cached: MemoryLatents, make
):
    double = Dataset([make.dataset(batch_size=4)], small.pictures, small.samples)
    expected = real_rows(list(Batches(double, cached, None, seed=7).epoch(2)))
    accumulated = real_rows(list(Batches(small, cached, None, seed=7, geometry=Geometry(accumulation=2)).epoch(2)))
    assert_same(expected, accumulated)
    halves = [
        real_rows(list(Batches(small, cached, None, seed=7, geometry=Geometry(1, 2, process)).epoch(2)))
        for process in (0, 1)
    ]
    assert all(not left.keys() & right.keys() for left, right in zip(*halves, strict=True))
    assert_same(expected, [{**left, **right} for left, right in zip(*halves, strict=True)])


@pytest.mark.parametrize("parts", itertools.product([1, 2, 3], [1, 2]))
def test_every_process_makes_the_same_number_of_passes_and_none_is_empty_or_larger_than_a_batch(
    small: Dataset, cached: MemoryLatents, parts: tuple[int, int]
):
    accumulation, processes = parts
    runs = [
        list(Batches(small, cached, None, seed=3, geometry=Geometry(accumulation, processes, p)).epoch(1))
        for p in range(processes)
    ]
    for together in zip(*runs, strict=True):
        assert len({len(micro_batches) for micro_batches in together}) == 1
        assert all(1 <= len(batch) <= 2 for micro_batches in together for batch in micro_batches)
        weights = sum(float(batch.weights.sum()) for micro_batches in together for batch in micro_batches)
        assert weights == together[0][0].true_count


def test_a_resumed_epoch_goes_on_where_it_stopped_without_reading_what_lies_before(
    small: Dataset, cached: MemoryLatents, monkeypatch
):
    batches = Batches(small, cached, None, seed=5)
    whole = list(batches.epoch(4))
    fetched = []
    fetch = cached.fetch
    monkeypatch.setattr(cached, "fetch", lambda picture, view: (fetched.append(picture), fetch(picture, view))[1])
    rest = list(batches.epoch(4, start=3))
    assert_same(real_rows(whole[3:]), real_rows(rest))
    assert len(fetched) == sum(len(batch) for micro_batches in whole[3:] for batch in micro_batches)


@pytest.mark.parametrize(("workers", "prefetch"), [(0, 1), (1, 1), (4, 9)])
def test_threads_change_nothing(small: Dataset, cached: MemoryLatents, vae, workers: int, prefetch: int):
    """Images encoded at every step, by any number of threads, are what the cache holds."""
    live = Batches(small, LiveLatents(small, 0.5, vae), None, seed=5, workers=workers, prefetch=prefetch)
    expected = real_rows(list(Batches(small, cached, None, seed=5).epoch(1)))
    found = real_rows(list(live.epoch(1)))
    assert [step.keys() for step in expected] == [step.keys() for step in found]
    for left, right in zip(expected, found, strict=True):
        for name in left:
            torch.testing.assert_close(left[name][1], right[name][1], atol=1e-6, rtol=0)


def test_leaving_an_epoch_early_stops_its_threads(small: Dataset, vae):
    before = threading.active_count()
    for _ in Batches(small, LiveLatents(small, 0.5, vae), None, seed=5, workers=3).epoch(1):
        break
    assert threading.active_count() == before


def test_order_flips_and_captions_change_from_epoch_to_epoch(small: Dataset, cached: MemoryLatents):
    batches = Batches(small, cached, None, seed=1)
    first, second = (list(batches.epoch(epoch)) for epoch in (1, 2))
    assert [step[0].sample_ids for step in first] != [step[0].sample_ids for step in second]
    captions = [
        dict(pair for step in run for b in step for pair in zip(b.sample_ids, b.captions, strict=True))
        for run in (first, second)
    ]
    assert captions[0] != captions[1]
    assert not torch.equal(
        first[0][0].generator(0, "noise").get_state(), second[0][0].generator(0, "noise").get_state()
    )


def test_latents_are_drawn_from_the_posterior_and_scaled(small: Dataset, cached: MemoryLatents):
    batch = next(Batches(small, cached, None, seed=1).epoch(1))[0]
    assert batch.latents.dtype == torch.float32
    noise = torch.randn(batch.latents.shape[1:], generator=batch.generator(0, "posterior"))
    means = [
        cached.posteriors[p.look, flip].tensor[0]
        for p in small.pictures
        for flip in (False, True)
        if str(p.path) == batch.files[0]
    ]
    assert min(float((batch.latents[0] / 0.5 - 0.1 * noise - m).abs().max()) for m in means) < 1e-6


def test_sizes_and_crops_are_those_of_the_pixels(small: Dataset, cached: MemoryLatents):
    for micro_batches in Batches(small, cached, None, seed=1).epoch(1):
        for batch in micro_batches:
            assert batch.target_sizes.tolist() == [[8 * s for s in batch.latents.shape[2:]]] * len(batch)
            by_file = {str(p.path): p for p in small.pictures}
            assert batch.original_sizes.tolist() == [list(by_file[f].size[::-1]) for f in batch.files]
            assert all(min(top, left) >= 0 for top, left in batch.crops.tolist())


def test_the_crop_of_a_mirrored_image_is_mirrored_too():
    wide = BucketChoice((512, 512), (535, 512), (11, 0))
    assert View(wide).crop == (0, 11)
    assert View(wide, flipped=True).crop == (0, 12)  # 535 - 512 - 11
    tall = BucketChoice((512, 512), (512, 543), (0, 15))
    assert View(tall).crop == View(tall, flipped=True).crop == (15, 0)
