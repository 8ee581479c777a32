from __future__ import annotations

import numpy as np
import pytest
import torch

from miniworld.judge import HEADS, NOTHING, Judge, disturbed, error, labels, lesson, save, to_pictures, train
from miniworld.scenes import draw, imagine, paint


@pytest.fixture(scope="module")
def judge():
    return Judge.load()


def test_the_committed_judge_reads_shapes_and_colours(judge):
    rng = np.random.default_rng(5)
    scenes = [imagine(rng, "shape") for _ in range(20)]
    read = judge.read([paint(rng, scene).image for scene in scenes])
    right = [
        answer[head] == getattr(scene.facts, head)
        for answer, scene in zip(read, scenes, strict=True)
        for head in ("colour", "shape", "background")
    ]
    assert np.mean(right) > 0.9


def test_the_committed_judge_tells_a_held_out_style_from_photos(judge):
    rng = np.random.default_rng(6)
    blueprints = [draw(rng, style="blueprint").image for _ in range(8)]
    photos = [draw(rng).image for _ in range(8)]
    assert judge.style_score(blueprints, "blueprint") > 0.8
    assert judge.style_score(photos, "blueprint") < 0.2


def test_the_committed_judge_says_how_good_it_is_and_is_small(judge):
    assert set(judge.accuracy) == set(HEADS)
    assert sum(parameter.numel() for parameter in judge.parameters()) * 2 < 2_000_000


def test_features_are_one_vector_a_picture(judge):
    images = [draw(np.random.default_rng(i)).image for i in range(3)]
    assert judge.features(images).shape == (3, 160)


def test_a_picture_without_a_fact_does_not_teach_its_head():
    rng = np.random.default_rng(1)
    shape = labels(draw(rng, kind="shape").facts)
    assert shape["expression"] == shape["object"] == NOTHING
    assert shape["colour"] != NOTHING
    assert labels(draw(rng, kind="two").facts)["colour"] == NOTHING
    assert labels(draw(rng, kind="shape", style="sketch").facts)["colour"] == NOTHING


def test_training_lowers_the_error_and_a_saved_judge_reads_the_same(tmp_path):
    torch.manual_seed(0)
    images, answers = lesson(seed=3, count=64)
    student = Judge()
    pictures = to_pictures(images)

    def measured() -> float:
        with torch.no_grad():
            return float(error(student(pictures), answers))

    before = measured()
    train(student, images, answers, epochs=3, seed=0)
    assert measured() < before
    student.accuracy = dict.fromkeys(HEADS, 0.5)
    save(student, tmp_path / "judge.safetensors")
    loaded = Judge.load(tmp_path / "judge.safetensors")
    assert loaded.accuracy == student.accuracy
    torch.testing.assert_close(
        loaded.features(list(images[:2])), student.features(list(images[:2])), rtol=0.02, atol=0.02
    )


def test_disturbing_keeps_shapes_and_is_repeatable():
    pictures = to_pictures([draw(np.random.default_rng(2)).image])
    first, second = (disturbed(pictures, torch.Generator().manual_seed(4)) for _ in range(2))
    assert first.shape == pictures.shape
    assert torch.equal(first, second)
    assert not torch.equal(first, pictures)
