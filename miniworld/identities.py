"""Who lives in the world: the visible attributes of a face, the named people, and those held out of pretraining."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from miniworld.palette import CLOTHES, EYE_COLOURS, HAIR_COLOURS, SKINS

GENDERS = ("man", "woman")
HAIR_STYLES = ("bald", "short", "long", "curly", "spiky", "bobbed")
GLASSES = ("none", "round", "square")
BEARDS = ("none", "beard", "moustache")
_HAIR_SHARE = {"man": (0.15, 0.36, 0.10, 0.16, 0.18, 0.05), "woman": (0.02, 0.14, 0.36, 0.20, 0.07, 0.21)}
_MOLES = (
    (0.0, 0.0),
    (-0.64, 0.24),
    (0.64, 0.24),
    (0.3, 0.86),
    (-0.3, 0.86),
)  # in face widths and heights; (0, 0) is none

_MEN = (
    *(
        "robert smith",
        "john garcia",
        "michael davis",
        "david lopez",
        "william taylor",
        "richard perez",
        "joseph harris",
    ),
    *("charles sanchez", "daniel clark", "matthew lewis", "anthony walker", "steven allen", "paul torres"),
    *("andrew flores", "kenneth adams", "george baker", "brian campbell", "edward roberts", "jason phillips"),
    *("jeffrey turner", "jacob parker", "nicholas edwards", "eric reyes", "jonathan morris", "frank murphy"),
    *("larry gutierrez", "justin morgan", "brandon bailey", "benjamin kelly", "samuel ramos", "gregory richardson"),
    "patrick brooks",
)
_WOMEN = (
    *("mary johnson", "patricia williams", "jennifer jones", "linda miller", "elizabeth rodriguez", "barbara martinez"),
    *("susan hernandez", "jessica gonzalez", "sarah wilson", "karen anderson", "lisa moore", "nancy jackson"),
    *("betty martin", "margaret thompson", "sandra ramirez", "ashley robinson", "kimberly wright", "emily nguyen"),
    *("donna nelson", "michelle mitchell", "carol gomez", "amanda evans", "dorothy diaz", "melissa cruz"),
    *("deborah collins", "stephanie stewart", "rebecca morales", "sharon rogers", "laura ortiz", "cynthia peterson"),
    *("kathleen howard", "amy watson"),
)
NAMES: tuple[str, ...] = (*_MEN, *_WOMEN)


@dataclass(frozen=True)
class Identity:
    """What stays the same in every picture of a person. Proportions are factors around 1 unless said otherwise."""

    gender: str
    skin: str
    hair_style: str
    hair_colour: str
    """Also the colour of beard and brows, so a bald man has one too."""
    eye_colour: str
    glasses: str
    beard: str
    mole: tuple[float, float]
    """Where it is, from the middle of the face in face half-widths and half-heights; (0, 0) is no mole."""
    earrings: bool
    freckles: bool
    clothes: int
    """Index into `palette.CLOTHES`."""
    face_width: float
    jaw: float
    """Width of the chin: 1 is round, 0.5 is pointed."""
    eye_spacing: float
    eye_size: float
    brow_thickness: float
    brow_tilt: float
    """Radians; positive brows rise towards the nose."""
    nose_length: float
    nose_width: float
    mouth_width: float


def sample_identity(rng: np.random.Generator, gender: str | None = None) -> Identity:
    """A person with random attributes."""
    gender = gender or GENDERS[rng.integers(2)]
    man = gender == "man"
    return Identity(
        gender=gender,
        skin=_one_of(rng, tuple(SKINS)),
        hair_style=_one_of(rng, HAIR_STYLES, _HAIR_SHARE[gender]),
        hair_colour=_one_of(rng, tuple(HAIR_COLOURS)),
        eye_colour=_one_of(rng, tuple(EYE_COLOURS)),
        glasses=_one_of(rng, GLASSES, (0.6, 0.22, 0.18)),
        beard=_one_of(rng, BEARDS, (0.5, 0.28, 0.22)) if man else "none",
        mole=_MOLES[rng.choice(len(_MOLES), p=(0.6, 0.1, 0.1, 0.1, 0.1))],
        earrings=bool(rng.random() < (0.08 if man else 0.4)),
        freckles=bool(rng.random() < 0.15),
        clothes=int(rng.integers(len(CLOTHES))),
        face_width=rng.uniform(0.9, 1.12) if man else rng.uniform(0.82, 1.02),
        jaw=rng.uniform(0.75, 1.0) if man else rng.uniform(0.5, 0.8),
        eye_spacing=rng.uniform(0.94, 1.12),
        eye_size=rng.uniform(0.88, 1.05) if man else rng.uniform(0.98, 1.18),
        brow_thickness=rng.uniform(1.0, 1.7) if man else rng.uniform(0.55, 0.95),
        brow_tilt=rng.uniform(-0.2, 0.2),
        nose_length=rng.uniform(0.7, 1.3),
        nose_width=rng.uniform(0.6, 1.5),
        mouth_width=rng.uniform(0.85, 1.2),
    )


def _one_of(rng: np.random.Generator, options: tuple[str, ...], share: tuple[float, ...] | None = None) -> str:
    return options[rng.choice(len(options), p=share)]


def difference(first: Identity, second: Identity) -> float:
    """How many attributes that can be seen at a glance differ; neighbouring skin tones count half."""
    tones = list(SKINS)
    steps = abs(tones.index(first.skin) - tones.index(second.skin))
    both_bald = first.hair_style == second.hair_style == "bald"
    return (
        min(steps, 2) / 2
        + (first.gender != second.gender)
        + (first.hair_style != second.hair_style)
        + (first.hair_colour != second.hair_colour and not both_bald)
        + (first.eye_colour != second.eye_colour) / 2
        + (first.glasses != second.glasses)
        + (first.beard != second.beard)
    )


def distinct_identities(
    seed: int, genders: Iterable[str], apart: float, others: Iterable[Identity] = (), apart_from_others: float = 0.0
) -> list[Identity]:
    """One identity per gender given, each at least `apart` in `difference` from those before it.

    They are also at least `apart_from_others` from `others`. The world is small: with too high demands this never ends.
    """
    rng = np.random.default_rng(seed)
    taken: list[Identity] = []
    known = tuple(others)
    for gender in genders:
        identity = sample_identity(rng, gender)
        while any(difference(identity, other) < apart for other in taken) or any(
            difference(identity, other) < apart_from_others for other in known
        ):
            identity = sample_identity(rng, gender)
        taken.append(identity)
    return taken


_NAMED_GENDERS = ["man"] * len(_MEN) + ["woman"] * len(_WOMEN)
NAMED: dict[str, Identity] = dict(zip(NAMES, distinct_identities(90_210, _NAMED_GENDERS, 2.5), strict=True))
"""People whose names are part of pretraining. Given names and surnames are all different words."""

_HELD_OUT_GENDERS = GENDERS * 6
HELD_OUT: dict[str, Identity] = {
    f"id{number:02d}": identity
    for number, identity in enumerate(
        distinct_identities(771_177, _HELD_OUT_GENDERS, 3.0, NAMED.values(), 2.0), start=1
    )
}
"""People whom no pretraining picture shows: from a seed of their own, at least three visible differences apart
from each other and two from everyone named."""
