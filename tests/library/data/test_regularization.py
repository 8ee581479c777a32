"""More regularization images than an epoch has room for: they take turns, and it is said."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from library.data.batches import Batches
from library.data.dataset import Dataset, build
from library.data.debug_dataset import Pixels
from library.data.regularization import share_out
from library.data.sample_order import steps_per_epoch


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("reg")


@pytest.fixture
def dataset(folders: Path, make) -> Dataset:
    """Six training images, and 20 of regularization, of which six are in another bucket."""
    if not (folders / "cat").exists():
        for i in range(6):
            make.picture(folders / "cat" / f"{i}.png")
        for i in range(20):
            make.picture(folders / "reg" / f"r{i:02}.png", (128, 128) if i < 14 else (250, 70), f"animal {i}")
    subsets = [make.subset(folders / "cat"), make.subset(folders / "reg", is_reg=True)]
    return build([make.dataset(*subsets)], prior_loss_weight=0.5)


def seen_in(dataset: Dataset, epoch: int, seed: int = 1) -> set[str]:
    return {s.picture.path.name for s in dataset.samples_of(seed, epoch) if s.picture.subset.is_reg}


def test_each_epoch_sees_other_regularization_images_until_all_were_seen(dataset: Dataset):
    epochs = [seen_in(dataset, epoch) for epoch in range(1, 5)]
    assert [len(seen) for seen in epochs[:3]] == [6, 6, 6]
    assert len(set().union(*epochs)) == 20
    assert not epochs[0] & epochs[1]


def test_the_turns_are_a_function_of_seed_and_epoch(dataset: Dataset):
    assert seen_in(dataset, 3) == seen_in(dataset, 3)
    assert seen_in(dataset, 3) != seen_in(dataset, 3, seed=2)


def test_a_visit_stays_in_its_bucket_so_that_every_epoch_has_as_many_steps(dataset: Dataset):
    buckets = [s.picture.choice.bucket for s in dataset.samples]
    for epoch in (1, 2, 7):
        samples = dataset.samples_of(1, epoch)
        assert [s.picture.choice.bucket for s in samples] == buckets
        assert [s.loss_weight for s in samples] == [1.0] * 6 + [0.5] * 6
        assert len({s.sample_id for s in samples}) == 12
    batches = Batches(dataset, Pixels(), None, seed=1, workers=0)
    for epoch in (1, 2):
        files = {Path(file).name for step in batches.epoch(epoch) for batch in step for file in batch.files}
        assert {name for name in files if name.startswith("r")} == seen_in(dataset, epoch)
        assert len(list(batches.epoch(epoch))) == steps_per_epoch(dataset, 1) == batches.steps_per_epoch


def test_how_many_regularization_images_an_epoch_uses_is_reported(dataset: Dataset):
    assert dataset.warnings == [
        "20 regularization images are more than the training images of an epoch call for: each epoch uses 6 of them, "
        "other ones in turn, all of them within 4 epochs"
    ]


def test_regularization_images_of_a_dataset_without_training_images_are_reported_to_be_unused(folders, dataset, make):
    alone = make.dataset(make.subset(folders / "reg", is_reg=True))
    said = build([make.dataset(make.subset(folders / "cat")), alone]).warnings
    assert said == ["20 regularization images are in a dataset without training images and are never used"]


def test_where_each_has_a_visit_the_order_is_sd_scripts_own(folders: Path, dataset: Dataset, make):
    subsets = [make.subset(folders / "cat", num_repeats=4), make.subset(folders / "reg", is_reg=True)]
    enough = build([make.dataset(*subsets)])
    assert not enough.rotations
    assert enough.samples_of(1, 2) is enough.samples
    assert [s.picture.path.name for s in enough.samples[24:]].count("r00.png") == 2  # 24 visits, 20 images


def test_visits_are_shared_out_over_buckets_in_proportion():
    assert share_out([14, 6], 6) == [4, 2]
    assert share_out([100, 1, 1], 10) == [8, 1, 1]
    assert share_out([3, 2, 2], 2) == [1, 1, 0]
    assert share_out([5, 5, 5], 7) == [3, 2, 2]


def test_repeats_of_a_folder_make_its_images_come_more_often(folders: Path, dataset: Dataset, make):
    subsets = [
        make.subset(folders / "cat"),
        make.subset(folders / "reg", is_reg=True, num_repeats=3),
        make.subset(folders / "cat", is_reg=True, num_repeats=1),
    ]
    many = build([make.dataset(*subsets)])
    assert many.rotations
    whole = sum(sum(r.repeats) for r in many.rotations)
    assert whole == 66
    square = next(r for r in many.rotations if len(r.pictures) == 20)
    turns = [v for epoch in range(1, sum(square.repeats) + 1) for v, _ in square.visitors(0, epoch)]
    assert Counter(Counter(turns).values()) == {3 * len(square.slots): 14, len(square.slots): 6}
