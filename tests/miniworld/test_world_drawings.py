"""What is drawn: the same for a seed, true to its facts, and as it was when the shipped model was pretrained."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from miniworld.canvas import shrink
from miniworld.faces import EXPRESSIONS, draw_face
from miniworld.facts import Facts
from miniworld.identities import NAMED, sample_identity
from miniworld.objects import OBJECTS
from miniworld.palette import COLOURS, EYE_COLOURS
from miniworld.places import PLACES
from miniworld.scenes import KINDS, Scene, ScenePicture, draw, draw_for_pretraining, imagine, paint
from miniworld.shapes import SHAPES


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def nearest_colour(rgb: np.ndarray) -> str:
    return min(COLOURS, key=lambda name: float(np.square(np.asarray(COLOURS[name]) - rgb).sum()))


def border(image: np.ndarray) -> np.ndarray:
    """Median colour of the outermost pixels at the middle of each side, where the vignette is weak."""
    sides = [image[:4, 48:80], image[-4:, 48:80], image[48:80, :4], image[48:80, -4:]]
    return np.median(np.concatenate([side.reshape(-1, 3) for side in sides]), 0)


def inside(picture: ScenePicture) -> np.ndarray:
    """Median colour of what differs from the background by much."""
    image = picture.image.astype(float)
    distance = np.linalg.norm(image - border(picture.image), axis=-1)
    return np.median(image[distance > 0.6 * distance.max()], 0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_draws_the_same_picture(kind: str) -> None:
    first, second = draw(rng(5), kind), draw(rng(5), kind)
    assert np.array_equal(first.image, second.image)
    assert (first.caption, first.facts) == (second.caption, second.facts)
    assert not np.array_equal(first.image, draw(rng(6), kind).image)


def test_pictures_are_128_px_rgb_bytes() -> None:
    for kind in KINDS:
        image = draw(rng(1), kind).image
        assert image.shape == (128, 128, 3)
        assert image.dtype == np.uint8


DRAWN_WHEN_PRETRAINED = [
    ("shape", "photo of a small brown crescent on a purple background", [137.5, 69.3, 154.9]),
    ("two", "a green triangle above a gray cross on a purple background", [116.7, 77.6, 144.6]),
    ("object", "a cyan cup in the desert", [185.6, 170.8, 122.8]),
    ("face", "a photo of a pale man with brown eyes and a mole, pink background", [212.8, 150.4, 142.4]),
    ("named", "photo of kenneth adams, sad, orange background", [193.7, 150.4, 105.9]),
]


def test_drawings_are_still_those_that_the_shipped_model_was_pretrained_on() -> None:
    # if this fails on purpose, the model, the judge and every measured number belong to another world
    stream = rng(2024)
    for kind, caption, mean in DRAWN_WHEN_PRETRAINED:
        picture = draw(stream, kind)
        assert picture.caption == caption
        assert picture.image.mean((0, 1)) == pytest.approx(mean, abs=0.6)  # OpenCV versions differ in edge pixels


def test_plain_shapes_have_the_colour_and_background_of_their_facts() -> None:
    stream = rng(3)
    pictures = [draw(stream, "shape") for _ in range(150)]
    backgrounds = [nearest_colour(border(picture.image)) == picture.facts.background for picture in pictures]
    colours = [nearest_colour(inside(picture)) == picture.facts.colour for picture in pictures]
    assert np.mean(backgrounds) > 0.95
    assert np.mean(colours) > 0.93


def test_the_first_of_two_shapes_stands_where_the_caption_says() -> None:
    for relation, axis in (("above", 0), ("left of", 1)):
        facts = Facts("two", colour="red", shape="circle", second_colour="blue", second_shape="square")
        image = paint(rng(2), Scene(replace(facts, relation=relation, background="white"))).image.astype(int)
        red, blue = image[..., 0] - image[..., 2] > 80, image[..., 2] - image[..., 0] > 80
        assert np.argwhere(red)[:, axis].max() < np.argwhere(blue)[:, axis].min()


def test_all_ten_shapes_differ_from_each_other() -> None:
    drawn = {}
    for shape in SHAPES:
        facts = Facts("shape", colour="white", shape=shape, size="big", background="black")
        drawn[shape] = paint(rng(4), Scene(facts)).image[..., 0] > 128
    names = list(drawn)
    assert len(names) == 10
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            union, common = drawn[first] | drawn[second], drawn[first] & drawn[second]
            assert common.sum() / union.sum() < 0.93, (first, second)


def test_a_bigger_size_covers_more() -> None:
    covered = []
    for size in ("small", "medium", "big"):
        facts = Facts("shape", colour="white", shape="circle", size=size, background="black")
        covered.append((paint(rng(4), Scene(facts)).image[..., 0] > 128).mean())
    assert covered[1] > 1.8 * covered[0]
    assert covered[2] > 1.5 * covered[1]


@pytest.mark.parametrize("name", OBJECTS)
def test_every_object_is_drawn_in_its_colour_at_every_place(name: str) -> None:
    assert len(OBJECTS) == 14
    assert len(PLACES) == 8
    for place in PLACES:
        shown = {}
        for colour in ("purple", "yellow"):
            image = paint(rng(7), Scene(Facts("object", colour=colour, object=name, place=place))).image
            shown[colour] = image.astype(int)
        changed = np.abs(shown["purple"] - shown["yellow"]).sum(-1) > 120
        assert changed.mean() > 0.02  # the object, in its own colour
        assert shown["purple"][changed].mean(0)[2] > shown["yellow"][changed].mean(0)[2]


def test_expressions_and_glasses_change_the_face_enough_to_be_seen_after_a_soft_autoencoder() -> None:
    identity = replace(sample_identity(rng(11), "woman"), glasses="none")

    def face(expression: str, glasses: str = "none") -> np.ndarray:
        canvas = draw_face(rng(12), replace(identity, glasses=glasses), "green", expression)
        return shrink(canvas.pixels).reshape(32, 4, 32, 4, 3).mean((1, 3))  # only what is larger than 4 px

    faces = {expression: face(expression) for expression in EXPRESSIONS}
    for i, first in enumerate(EXPRESSIONS):
        for second in EXPRESSIONS[i + 1 :]:
            assert (np.abs(faces[first] - faces[second]).max(-1) > 30).sum() >= 12, (first, second)
    for glasses in ("round", "square"):
        assert (np.abs(faces["neutral"] - face("neutral", glasses)).max(-1) > 30).sum() >= 20


def test_eyes_keep_their_colour_behind_glasses() -> None:
    identity = replace(sample_identity(rng(11), "man"), glasses="round", skin="pale", eye_colour="blue")
    pixels = draw_face(rng(12), identity, "white", "neutral").pixels.astype(float)
    distance = np.linalg.norm(pixels - np.asarray(EYE_COLOURS["blue"]), axis=-1)
    assert (distance < 60).sum() > 60


def test_facts_of_a_face_are_those_of_the_identity() -> None:
    name = "robert smith"
    stream = rng(9)
    while (picture := draw(stream, "named")).facts.name != name:
        continue
    identity = NAMED[name]
    facts = asdict(picture.facts)
    for attribute in ("gender", "skin", "hair_style", "eye_colour", "glasses", "beard", "earrings", "freckles"):
        assert facts[attribute] == getattr(identity, attribute)
    assert facts["shape"] is None
    assert facts["object"] is None
    assert facts["expression"] in EXPRESSIONS


def test_a_bald_head_has_no_hair_colour() -> None:
    identity = replace(sample_identity(rng(1), "man"), hair_style="bald")
    assert imagine(rng(2), identity=identity).facts.hair_colour is None


def test_pretraining_shows_every_kind_and_style_by_its_share() -> None:
    stream = rng(8)
    pictures = [draw_for_pretraining(stream) for _ in range(400)]
    kinds = [picture.facts.kind for picture in pictures]
    styles = [picture.facts.style for picture in pictures]
    for kind, share in KINDS.items():
        assert kinds.count(kind) / len(kinds) == pytest.approx(share, abs=0.07)
    assert styles.count("photo") / len(styles) == pytest.approx(0.79, abs=0.06)
    assert set(styles) == {"photo", "sketch", "pixel art", "watercolor"}


def test_an_unknown_kind_is_named_in_the_error() -> None:
    with pytest.raises(ValueError, match="`landscape` is no kind"):
        draw(rng(), "landscape")
