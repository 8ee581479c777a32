"""A picture of the world with its caption and its facts: what is imagined is painted, put into a style, and told."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from miniworld import captions
from miniworld.canvas import SIZE, Canvas, shrink
from miniworld.faces import EXPRESSIONS, draw_face
from miniworld.facts import Facts, face_facts
from miniworld.identities import NAMED, NAMES, Identity, sample_identity
from miniworld.objects import OBJECTS, draw_object
from miniworld.palette import COLOURS, darker, jittered, lighter
from miniworld.places import PLACES, draw_place
from miniworld.shapes import SHAPES, draw_shape
from miniworld.styles import PRETRAINING_STYLES, apply_style

KINDS: dict[str, float] = {"shape": 0.20, "two": 0.09, "object": 0.26, "face": 0.31, "named": 0.14}
"""Kinds of pictures and their share of the pretraining set."""
SIZES: dict[str, float] = {"small": 0.155, "medium": 0.235, "big": 0.325}
"""Radius of a single shape, as a share of the canvas."""


@dataclass(frozen=True)
class ScenePicture:
    """A finished picture."""

    image: np.ndarray
    """(128, 128, 3) uint8 RGB."""
    caption: str
    facts: Facts


@dataclass(frozen=True)
class Scene:
    """What a picture shows, before it is painted."""

    facts: Facts
    identity: Identity | None = None


def draw(
    rng: np.random.Generator,
    kind: str | None = None,
    style: str = "photo",
    identity: Identity | None = None,
    expression: str | None = None,
) -> ScenePicture:
    """Imagine and paint one picture. Without `kind`, one by its share; `identity` and `expression` bind a face."""
    return paint(rng, imagine(rng, kind, identity, expression), style)


def draw_for_pretraining(rng: np.random.Generator) -> ScenePicture:
    """One picture of the pretraining set: kind and style by their shares."""
    styles = tuple(PRETRAINING_STYLES)
    return draw(rng, style=styles[rng.choice(len(styles), p=tuple(PRETRAINING_STYLES.values()))])


def imagine(
    rng: np.random.Generator,
    kind: str | None = None,
    identity: Identity | None = None,
    expression: str | None = None,
) -> Scene:
    """Choose the content of a picture."""
    if kind is None:
        kinds = tuple(KINDS)
        kind = "face" if identity else kinds[rng.choice(len(kinds), p=tuple(KINDS.values()))]
    if kind in ("face", "named"):
        return _imagine_face(rng, kind, identity, expression)
    background, colour, second_colour = _different_colours(rng, 3)
    if kind == "shape":
        shape, size = _one_of(rng, SHAPES), tuple(SIZES)[rng.choice(3, p=(0.25, 0.5, 0.25))]
        return Scene(Facts(kind, colour=colour, shape=shape, size=size, background=background))
    if kind == "two":
        shapes, relation = [_one_of(rng, SHAPES) for _ in range(2)], "above" if rng.random() < 0.5 else "left of"
        first = Facts(kind, colour=colour, shape=shapes[0], relation=relation, background=background)
        return Scene(replace(first, second_colour=second_colour, second_shape=shapes[1]))
    if kind == "object":
        what = _one_of(rng, OBJECTS)
        if rng.random() < 0.75:
            return Scene(Facts(kind, colour=colour, object=what, place=_one_of(rng, PLACES)))
        return Scene(Facts(kind, colour=colour, object=what, background=background))
    raise ValueError(f"`{kind}` is no kind of picture; there are {', '.join(KINDS)}")


def _imagine_face(rng: np.random.Generator, kind: str, identity: Identity | None, expression: str | None) -> Scene:
    name = NAMES[rng.integers(len(NAMES))] if kind == "named" and identity is None else None
    identity = NAMED[name] if name else identity or sample_identity(rng)
    chosen = EXPRESSIONS[rng.choice(len(EXPRESSIONS), p=(0.28, 0.26, 0.23, 0.23))]
    hat = _one_of(rng, COLOURS) if rng.random() < 0.12 else None
    background = _one_of(rng, COLOURS)
    return Scene(
        face_facts(identity, name=name, background=background, expression=expression or chosen, hat=hat), identity
    )


def paint(rng: np.random.Generator, scene: Scene, style: str = "photo", caption: str | None = None) -> ScenePicture:
    """Paint a scene in a style; without `caption` it is told in the words of the world."""
    pixels = apply_style(rng, _compose(rng, scene).pixels, style)
    facts = replace(scene.facts, style=style)
    if caption is None:
        caption = captions.in_style(rng, captions.describe(rng, facts), style)
    return ScenePicture(shrink(pixels), caption, facts)


def _compose(rng: np.random.Generator, scene: Scene) -> Canvas:
    facts = scene.facts
    if scene.identity is not None:
        hat = None if facts.hat == "none" else facts.hat
        return draw_face(rng, scene.identity, str(facts.background), str(facts.expression), hat)
    if facts.kind == "object":
        return _compose_object(rng, facts)
    canvas = _plain_background(rng, str(facts.background))
    if facts.kind == "shape":
        radius = SIZE * SIZES[str(facts.size)] * rng.uniform(0.92, 1.08)
        room = min(SIZE * 0.5 - radius * 1.15, SIZE * 0.15)
        x, y = SIZE / 2 + rng.uniform(-1, 1, 2) * room
        _place_shape(rng, canvas, facts.shape, facts.colour, float(x), float(y), radius)
        return canvas
    pair = ((facts.shape, facts.colour, -1), (facts.second_shape, facts.second_colour, 1))
    for shape, colour, side in pair:
        away = side * SIZE * 0.24
        x, y = (0.0, away) if facts.relation == "above" else (away, 0.0)
        jitter_x, jitter_y = rng.normal(0, 4, 2)
        radius = SIZE * 0.175 * rng.uniform(0.92, 1.08)
        _place_shape(rng, canvas, shape, colour, SIZE / 2 + x + jitter_x, SIZE / 2 + y + jitter_y, radius)
    return canvas


def _compose_object(rng: np.random.Generator, facts: Facts) -> Canvas:
    if facts.place:
        canvas, horizon = draw_place(rng, facts.place)
        y = horizon + SIZE * rng.uniform(0.08, 0.26)
    else:
        canvas, y = _plain_background(rng, str(facts.background)), SIZE * rng.uniform(0.76, 0.88)
    colour = jittered(rng, COLOURS[str(facts.colour)], 8)
    height = SIZE * rng.uniform(0.5, 0.68)
    draw_object(canvas, str(facts.object), SIZE / 2 + rng.normal(0, SIZE * 0.06), y, height, colour)
    return canvas


def _plain_background(rng: np.random.Generator, name: str) -> Canvas:
    colour = jittered(rng, COLOURS[name], 10)
    return Canvas(lighter(colour, 0.08), darker(colour, 0.93))


def _place_shape(
    rng: np.random.Generator, canvas: Canvas, shape: str | None, colour: str | None, x: float, y: float, radius: float
) -> None:
    shade, rotation = jittered(rng, COLOURS[str(colour)], 10), rng.normal(0, 0.08)
    draw_shape(canvas, str(shape), x, y, radius, shade, rotation)


def _one_of(rng: np.random.Generator, options: dict) -> str:
    return tuple(options)[rng.integers(len(options))]


def _different_colours(rng: np.random.Generator, count: int) -> list[str]:
    names = tuple(COLOURS)
    return [names[i] for i in rng.permutation(len(names))[:count]]
