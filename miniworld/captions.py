"""The words of the world: how a picture is told, and every word that a caption or a prompt may hold.

A caption begins with its class token, as in the AC-LoRA paper ("rabbids, a rabbid, exhausted from ..."):
"a photo of X", "sketch style, X". So the form "<class token> style, X" means something to the text encoder before
any training on a style that it has never seen.
"""

from __future__ import annotations

import numpy as np

from miniworld.faces import EXPRESSIONS
from miniworld.facts import Facts
from miniworld.identities import GENDERS, HAIR_STYLES, NAMES
from miniworld.objects import OBJECTS
from miniworld.palette import COLOURS, EYE_COLOURS, HAIR_COLOURS, SKINS
from miniworld.places import PLACES
from miniworld.shapes import SHAPES
from miniworld.styles import HELD_OUT_STYLES, PRETRAINING_STYLES

CLASS_TOKENS: dict[str, str] = {"pixel art": "pixelart"}
"""The one word that stands for a style in "<class token> style, ..."; a style not listed is its own class token."""

_DROPPED = 0.15  # how often a face attribute is left unsaid, so that short prompts are known too


def class_token(style: str) -> str:
    """The class token of a style, pretrained or held out."""
    return CLASS_TOKENS.get(style, style)


def with_article(phrase: str) -> str:
    """The phrase after "a" or "an"."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def describe(rng: np.random.Generator, facts: Facts) -> str:
    """The content of a picture in words, without its style."""
    if facts.kind == "shape":
        size = "" if facts.size == "medium" else f"{facts.size} "
        return f"{with_article(f'{size}{facts.colour} {facts.shape}')} on {_plain_background(facts)}"
    if facts.kind == "two":
        first = with_article(f"{facts.colour} {facts.shape}")
        second = with_article(f"{facts.second_colour} {facts.second_shape}")
        return f"{first} {facts.relation} {second} on {_plain_background(facts)}"
    if facts.kind == "object":
        where = facts.place or f"on {_plain_background(facts)}"
        return f"{with_article(f'{facts.colour} {facts.object}')} {where}"
    return describe_face(rng, facts)


def _plain_background(facts: Facts) -> str:
    return f"{with_article(str(facts.background))} background"


def describe_face(rng: np.random.Generator, facts: Facts) -> str:
    """A face in words: a name stands for all that belongs to the person."""
    worn = _hat(facts)
    person = facts.name
    if person is None:
        tone = f"{facts.skin} " if rng.random() > _DROPPED else ""
        person = with_article(f"{tone}{facts.gender}")
        worn = _attributes(rng, facts) + worn
    told = _face_clauses(facts, person, worn)
    if rng.random() > _DROPPED:
        told += f", {facts.background} background"
    return told


def describe_person(facts: Facts, subject: str) -> str:
    """A face of which the subject ("sks man") stands for all that stays the same; nothing else is left unsaid."""
    return f"{_face_clauses(facts, subject, _hat(facts))}, {facts.background} background"


def _hat(facts: Facts) -> list[str]:
    return [] if facts.hat == "none" else [with_article(f"{facts.hat} hat")]


def _face_clauses(facts: Facts, person: str, worn: list[str]) -> str:
    if worn:
        person += " with " + (" and ".join(worn) if len(worn) < 3 else f"{', '.join(worn[:-1])} and {worn[-1]}")
    return person if facts.expression == "neutral" else f"{person}, {facts.expression}"


def _attributes(rng: np.random.Generator, facts: Facts) -> list[str]:
    hair = "a bald head" if facts.hair_style == "bald" else f"{facts.hair_style} {facts.hair_colour} hair"
    glasses = "glasses" if rng.random() < 0.4 else f"{facts.glasses} glasses"
    candidates = (
        (hair, True, _DROPPED),
        (f"{facts.eye_colour} eyes", True, _DROPPED),
        (glasses, facts.glasses != "none", 0.05),
        (f"a {facts.beard}", facts.beard != "none", 0.05),
        ("a mole", facts.mole, 0.3),
        ("earrings", facts.earrings, _DROPPED),
        ("freckles", facts.freckles, _DROPPED),
    )
    said = [(rng.random() >= dropped, there, words) for words, there, dropped in candidates]
    return [words for kept, there, words in said if kept and there]


def in_style(rng: np.random.Generator, content: str, style: str) -> str:
    """The content in the words of its style; a photo is the one style that may go without saying."""
    if style == "photo":
        share = rng.random()
        if share < 0.55:
            return f"a photo of {content}"
        if share < 0.70:
            return f"photo of {content}"
        return f"photo style, {content}" if share < 0.80 else content
    if style in PRETRAINING_STYLES and rng.random() < 0.5:
        medium = style if style == "pixel art" else with_article(style)
        return f"{medium} of {content}"
    return f"{class_token(style)} style, {content}"


_GRAMMAR = """
    a an on of with and , photo style sketch pixel art pixelart watercolor background small medium big above left
    head hair eyes glasses round square beard moustache mole earrings freckles hat none
"""
_PROMPT_WORDS = """
    sks person boy girl lady guy child people face portrait picture image drawing painting rendering illustration
    depiction cropped close up bright dark light dim my the this that its itself his her one two three many few
    small large little nice good bad weird cool cute clean dirty new old young plain simple colorful monochrome
    detailed beautiful ugly best worst high low quality resolution sharp blurry noisy damaged degraded
    restored original real smooth flat textured abstract cartoon anime line lines ink pencil crayon canvas paper dots
    board dream toy dog horse sun moon sea sky grass sand water road mountain river wearing holding looking standing
    happy crying angry laughing neutral serious front side view from under over next to below right in at near behind
    between and or not no without is are for by as like art artwork logo text watermark poster scene world color colour
    jpeg artifacts lowres deformed anatomy haze stained glass wood statue stone marble gold wooden spacesuit suit police
    uniform chef astronaut playing guitar reading book eating cake running swimming drinking coffee hugging sitting
    castle garden street room window night day winter summer rain fog fire ice pop museum wall table floor
    man woman men women id class token concept subject thing object shape
"""


def _words(*phrases: str) -> set[str]:
    return {word for phrase in phrases for word in phrase.split()}


VOCABULARY: tuple[str, ...] = tuple(
    sorted(
        _words(_GRAMMAR, _PROMPT_WORDS, *NAMES, *GENDERS, *EXPRESSIONS, *HAIR_STYLES)
        | _words(*COLOURS, *SKINS, *HAIR_COLOURS, *EYE_COLOURS, *SHAPES, *OBJECTS, *PLACES)
        | _words(*PRETRAINING_STYLES, *HELD_OUT_STYLES, *CLASS_TOKENS.values())
    )
)
"""Every word that captions and the prompts of the proofs may hold, and the comma: each becomes one token."""
