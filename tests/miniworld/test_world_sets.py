"""The proof sets: functions of a seed alone, whose test pictures hold nothing of the training pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from miniworld.identities import HELD_OUT
from miniworld.scenes import Scene, ScenePicture
from miniworld.sets import content, identity_set, one_image_set, stream, style_set


def same(first: list[ScenePicture], second: list[ScenePicture]) -> bool:
    return len(first) == len(second) and all(
        np.array_equal(a.image, b.image) and a.caption == b.caption and a.facts == b.facts
        for a, b in zip(first, second, strict=True)
    )


def test_style_sets_have_15_training_and_32_test_pictures_with_captions_in_the_style() -> None:
    train, test = style_set("blueprint", "train"), style_set("blueprint", "test")
    assert (len(train), len(test)) == (15, 32)
    for picture in (*train, *test):
        assert picture.caption.startswith("blueprint style, ")
        assert picture.facts.style == "blueprint"


def test_no_content_of_a_style_set_occurs_in_training_and_in_test() -> None:
    for seed in (0, 1):
        train, test = style_set("woodcut", "train", seed), style_set("woodcut", "test", seed)
        contents = [content(Scene(picture.facts)) for picture in (*train, *test)]
        assert len(set(contents)) == 47


def test_content_leaves_out_what_does_not_make_another_picture() -> None:
    facts = style_set("neon", "train")[2].facts
    assert facts.kind == "shape"
    assert content(Scene(replace(facts, size="big", background="pink"))) == content(Scene(facts))
    assert content(Scene(replace(facts, shape="cross" if facts.shape != "cross" else "ring"))) != content(Scene(facts))


def test_both_splits_show_objects_shapes_and_faces() -> None:
    for split in ("train", "test"):
        assert {picture.facts.kind for picture in style_set("neon", split)} == {"object", "shape", "two", "face"}


def test_all_styles_show_the_same_contents() -> None:
    first, second = style_set("neon", "train"), style_set("comic", "train")
    assert [replace(p.facts, style="") for p in first] == [replace(p.facts, style="") for p in second]
    assert [p.caption.split(", ", 1)[1] for p in first] == [p.caption.split(", ", 1)[1] for p in second]


def test_sets_do_not_depend_on_what_was_drawn_before() -> None:
    test_alone = style_set("chalk", "test")
    style_set("oil", "train")
    identity_set("id01", "train")
    assert same(test_alone, style_set("chalk", "test"))
    portraits = identity_set("id02", "test")
    one_image_set("id02")
    assert same(portraits, identity_set("id02", "test"))


def test_another_seed_draws_another_set() -> None:
    assert not same(style_set("neon", "train"), style_set("neon", "train", seed=1))
    assert not same(identity_set("id01", "train"), identity_set("id01", "train", seed=1))


@pytest.mark.parametrize("name", ["id01", "id06"])
def test_portraits_of_a_person_are_all_different_and_show_the_person(name: str) -> None:
    train, test, one = identity_set(name, "train"), identity_set(name, "test"), one_image_set(name)
    assert (len(train), len(test), len(one)) == (10, 10, 1)
    pictures = (*train, *test, *one)
    assert len({(p.facts.expression, p.facts.background, p.facts.hat) for p in pictures}) == 21
    identity = HELD_OUT[name]
    for picture in pictures:
        assert picture.caption.startswith(f"a photo of sks {identity.gender}")
        assert picture.caption.endswith(f"{picture.facts.background} background")
        assert (picture.facts.skin, picture.facts.glasses) == (identity.skin, identity.glasses)
        assert picture.facts.name is None


def test_the_one_image_is_a_neutral_face_without_a_hat() -> None:
    for name in HELD_OUT:
        (picture,) = one_image_set(name)
        assert (picture.facts.expression, picture.facts.hat) == ("neutral", "none")


def test_the_word_for_a_person_can_be_chosen() -> None:
    assert one_image_set("id01", word="person")[0].caption.startswith("a photo of person man")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="`cubism` is no style"):
        style_set("cubism", "train")
    with pytest.raises(ValueError, match="`id99` is no identity"):
        identity_set("id99", "train")
    with pytest.raises(ValueError, match="`val` is no split"):
        identity_set("id01", "val")


def test_streams_of_different_purposes_differ_and_stay_the_same_for_ever() -> None:
    assert stream(0, "a", 1).integers(1 << 30) == stream(0, "a", 1).integers(1 << 30)
    assert stream(0, "a", 1).integers(1 << 30) != stream(0, "a", 2).integers(1 << 30)
    assert stream(0, "pinned").integers(1 << 30) == 250803662
