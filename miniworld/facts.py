"""What is true of one picture: the content that is drawn, told in the caption and learnt by the judge."""

from __future__ import annotations

from dataclasses import dataclass

from miniworld.identities import Identity


@dataclass(frozen=True)
class Facts:
    """Everything that can be asked about a picture; a field that does not apply to its kind is None."""

    kind: str
    """"shape", "two", "object", "face" or "named"."""
    style: str = "photo"
    colour: str | None = None
    """Of the shape (the first of two) or of the object."""
    shape: str | None = None
    size: str | None = None
    """"small", "medium" or "big", of a single shape."""
    second_colour: str | None = None
    second_shape: str | None = None
    relation: str | None = None
    """"above" or "left of": how the first of two shapes stands to the second."""
    object: str | None = None
    place: str | None = None
    background: str | None = None
    """Colour of a plain background."""
    name: str | None = None
    gender: str | None = None
    skin: str | None = None
    hair_style: str | None = None
    hair_colour: str | None = None
    """None for a bald head too."""
    eye_colour: str | None = None
    expression: str | None = None
    glasses: str | None = None
    """"none", "round" or "square"."""
    beard: str | None = None
    """"none", "beard" or "moustache"."""
    mole: bool | None = None
    earrings: bool | None = None
    freckles: bool | None = None
    hat: str | None = None
    """Colour of the hat, or "none"."""


def face_facts(identity: Identity, *, name: str | None, background: str, expression: str, hat: str | None) -> Facts:
    """The facts of a portrait."""
    return Facts(
        kind="named" if name else "face",
        background=background,
        name=name,
        gender=identity.gender,
        skin=identity.skin,
        hair_style=identity.hair_style,
        hair_colour=None if identity.hair_style == "bald" else identity.hair_colour,
        eye_colour=identity.eye_colour,
        expression=expression,
        glasses=identity.glasses,
        beard=identity.beard,
        mole=any(identity.mole),
        earrings=identity.earrings,
        freckles=identity.freckles,
        hat=hat or "none",
    )
