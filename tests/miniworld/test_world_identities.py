"""Who lives in the world: distinct names, distinguishable people, and twelve whom pretraining never shows."""

from __future__ import annotations

from dataclasses import astuple, replace
from itertools import combinations

import numpy as np

from miniworld.captions import VOCABULARY
from miniworld.identities import HELD_OUT, NAMED, NAMES, difference, distinct_identities, sample_identity
from miniworld.scenes import draw_for_pretraining, imagine


def test_all_given_names_and_all_surnames_are_different_words_of_the_vocabulary() -> None:
    words = [word for name in NAMES for word in name.split()]
    assert len(NAMES) >= 60
    assert all(len(name.split()) == 2 for name in NAMES)
    assert len(set(words)) == 2 * len(NAMES)
    assert set(words) <= set(VOCABULARY)


def test_names_are_no_other_words_of_the_world() -> None:
    rng = np.random.default_rng(4)
    others = {
        word
        for _ in range(400)
        for picture in [draw_for_pretraining(rng)]
        if picture.facts.kind != "named"
        for word in picture.caption.replace(",", "").split()
    }
    assert not others & {word for name in NAMES for word in name.split()}


def test_the_gender_of_a_named_person_fits_the_given_name() -> None:
    assert NAMED["robert smith"].gender == "man"
    assert NAMED["mary johnson"].gender == "woman"
    assert sum(identity.gender == "man" for identity in NAMED.values()) == len(NAMES) / 2


def test_named_people_can_be_distinguished_at_a_glance() -> None:
    assert all(difference(first, second) >= 2.5 for first, second in combinations(NAMED.values(), 2))


def test_held_out_people_differ_from_each_other_and_from_all_who_are_named() -> None:
    assert list(HELD_OUT) == [f"id{number:02d}" for number in range(1, 13)]
    assert all(difference(first, second) >= 3 for first, second in combinations(HELD_OUT.values(), 2))
    assert all(difference(first, second) >= 2 for first in HELD_OUT.values() for second in NAMED.values())


def test_held_out_people_are_never_imagined_by_chance() -> None:
    held_out = {astuple(identity) for identity in HELD_OUT.values()}
    rng = np.random.default_rng(5)
    assert not any(
        astuple(scene.identity) in held_out for scene in (imagine(rng, "face") for _ in range(500)) if scene.identity
    )
    assert not held_out & {astuple(identity) for identity in NAMED.values()}


def test_difference_counts_what_can_be_seen() -> None:
    person = replace(
        sample_identity(np.random.default_rng(1), "man"), skin="pale", hair_style="bald", hair_colour="red"
    )
    assert difference(person, person) == 0
    assert difference(person, replace(person, hair_colour="blue")) == 0  # bald: nobody sees it
    assert difference(person, replace(person, skin="fair")) == 0.5
    assert difference(person, replace(person, skin="dark")) == 1
    assert difference(person, replace(person, nose_width=9)) == 0


def test_distinct_identities_depend_on_the_seed_alone() -> None:
    genders = ["man", "woman", "man"]
    first, second = distinct_identities(3, genders, 2), distinct_identities(3, genders, 2)
    assert first == second
    assert first != distinct_identities(4, genders, 2)
    assert [identity.gender for identity in first] == genders
