"""What is said: every word is known, every caption begins with its class token, and what it says is true."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest

from miniworld.captions import VOCABULARY, class_token, describe_person, in_style, with_article
from miniworld.facts import Facts
from miniworld.identities import GENDERS, HELD_OUT, NAMES
from miniworld.palette import SKINS
from miniworld.scenes import draw as draw_picture
from miniworld.scenes import draw_for_pretraining, imagine
from miniworld.sets import SPLITS, identity_set, style_set
from miniworld.styles import HELD_OUT_STYLES, PRETRAINING_STYLES, STYLES

WORDS = re.compile(r"[a-z]+|,")


@pytest.fixture(scope="module")
def pictures() -> list[tuple[str, Facts]]:
    rng = np.random.default_rng(17)
    drawn = [draw_for_pretraining(rng) for _ in range(900)]
    return [(picture.caption, picture.facts) for picture in drawn]


def captions_of_sets() -> Iterator[str]:
    for split in SPLITS:
        for style in HELD_OUT_STYLES[:3]:
            yield from (picture.caption for picture in style_set(style, split))
        yield from (picture.caption for picture in identity_set("id04", split))


def test_captions_hold_only_words_of_the_vocabulary(pictures: list[tuple[str, Facts]]) -> None:
    known = set(VOCABULARY)
    for caption in (*(caption for caption, _ in pictures), *captions_of_sets()):
        assert re.fullmatch(r"[a-z ,]+", caption), caption
        assert set(WORDS.findall(caption)) <= known, caption


def test_the_vocabulary_is_sorted_without_doubles_and_splits_into_single_words() -> None:
    assert list(VOCABULARY) == sorted(set(VOCABULARY))
    assert all(word == "," or re.fullmatch(r"[a-z]+", word) for word in VOCABULARY)
    assert {"sks", "style", "portrait", "blurry", "restored", "cropped", "itself", ","} <= set(VOCABULARY)
    assert {class_token(style) for style in STYLES} <= set(VOCABULARY) | {"pixel art"}


def test_every_caption_begins_with_its_class_token(pictures: list[tuple[str, Facts]]) -> None:
    forms = {
        "photo": r"(a photo of|photo of|photo style,|an?|[a-z]+ [a-z]+)[ ,]",
        "sketch": r"(a sketch of|sketch style,) ",
        "pixel art": r"(pixel art of|pixelart style,) ",
        "watercolor": r"(a watercolor of|watercolor style,) ",
    }
    for caption, facts in pictures:
        assert re.match(forms[facts.style], f"{caption} "), caption
    bare = [c for c, f in pictures if f.style == "photo" and "photo" not in c]
    photos = [c for c, f in pictures if f.style == "photo"]
    assert len(bare) / len(photos) == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize("style", HELD_OUT_STYLES)
def test_a_style_that_was_held_out_is_reported_as_its_token_and_the_word_style(style: str) -> None:
    rng = np.random.default_rng(1)
    assert in_style(rng, "a red car on the beach", style) == f"{style} style, a red car on the beach"
    assert style not in PRETRAINING_STYLES
    assert draw_picture(rng, "object", style).caption.startswith(f"{style} style, a")


def test_held_out_styles_are_never_named_in_pretraining(pictures: list[tuple[str, Facts]]) -> None:
    words = {word for caption, _ in pictures for word in WORDS.findall(caption)}
    assert not words & set(HELD_OUT_STYLES)
    assert "sks" not in words


def test_articles_fit_the_word_after_them(pictures: list[tuple[str, Facts]]) -> None:
    assert with_article("orange cup") == "an orange cup"
    assert with_article("blue cup") == "a blue cup"
    for caption, _ in pictures:
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", caption), caption


def test_captions_fit_40_tokens_with_start_and_end(pictures: list[tuple[str, Facts]]) -> None:
    assert max(len(WORDS.findall(caption)) for caption, _ in pictures) + 2 <= 40


def test_names_mean_the_person_and_are_always_whole(pictures: list[tuple[str, Facts]]) -> None:
    named = [(caption, facts) for caption, facts in pictures if facts.kind == "named"]
    assert len(named) > 100
    for caption, facts in named:
        assert facts.name in NAMES
        assert str(facts.name) in caption
        assert " hair" not in caption
        assert " eyes" not in caption


def test_expressions_are_reported_unless_neutral_and_glasses_nearly_always(pictures: list[tuple[str, Facts]]) -> None:
    faces = [(caption, facts) for caption, facts in pictures if facts.expression]
    for caption, facts in faces:
        said = re.findall(r"\b(smiling|sad|surprised)\b", caption)
        assert said == ([] if facts.expression == "neutral" else [facts.expression])
    unnamed = [(caption, facts) for caption, facts in faces if facts.kind == "face"]
    with_glasses = ["glasses" in caption for caption, facts in unnamed if facts.glasses != "none"]
    assert np.mean(with_glasses) > 0.9
    assert not any("glasses" in caption for caption, facts in unnamed if facts.glasses == "none")


def test_attributes_that_are_reported_are_true_and_mostly_reported(pictures: list[tuple[str, Facts]]) -> None:
    unnamed = [(caption, facts) for caption, facts in pictures if facts.kind == "face"]
    told = 0
    for caption, facts in unnamed:
        assert re.search(rf"\b{facts.gender}\b", caption), caption
        hair = re.search(r"([a-z]+) ([a-z]+) hair", caption)
        told += bool(hair)
        if hair:
            assert hair.groups() == (facts.hair_style, facts.hair_colour)
        if eyes := re.search(r"([a-z]+) eyes", caption):
            assert eyes[1] == facts.eye_colour
        if skin := re.search(rf"\ba ({'|'.join(SKINS)}) (?:{'|'.join(GENDERS)})\b", caption):
            assert skin[1] == facts.skin
        if background := re.search(r"([a-z]+) background", caption):
            assert background[1] == facts.background
    assert told / len(unnamed) > 0.65  # of all, the bald ones too


def test_a_person_without_a_name_is_recognised_by_a_placeholder() -> None:
    facts = imagine(np.random.default_rng(3), identity=HELD_OUT["id01"], expression="smiling").facts
    told = describe_person(facts, "sks man")
    assert told.startswith("sks man")
    assert told.endswith(f", smiling, {facts.background} background")
