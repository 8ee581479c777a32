"""The sets of the proofs: a style or a person that pretraining never showed, to learn from and to be tested on.

Nothing of them is stored: a set is a function of its name and a seed, whatever was drawn before it. Training and test
pictures never share their content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from itertools import cycle

import numpy as np

from miniworld.captions import class_token, describe, describe_person
from miniworld.identities import HELD_OUT, Identity
from miniworld.scenes import Scene, ScenePicture, imagine, paint
from miniworld.styles import STYLES

SPLITS: tuple[str, ...] = ("train", "test")
STYLE_SIZES = {"train": 15, "test": 32}  # 15 training images a style, as in the AC-LoRA paper
IDENTITY_SIZE = 10  # reference and test images of a person, as in Dual-Pivot Tuning
_STYLE_KINDS = ("object", "face", "shape", "object", "two", "object", "face", "object")


def stream(*purpose: str | int) -> np.random.Generator:
    """A generator of its own for each purpose, the same on every machine."""
    digest = hashlib.blake2b("/".join(map(str, purpose)).encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def style_set(style: str, split: str, seed: int = 0) -> list[ScenePicture]:
    """15 training or 32 test pictures in a style, with captions "<class token> style, X".

    All styles show the same contents, so that they can be compared; no test content occurs in training.
    """
    _require("split", split, SPLITS)
    first = 0 if split == "train" else STYLE_SIZES["train"]
    return _of_style(style, seed, range(first, first + STYLE_SIZES[split]))


def training_pictures(style: str, count: int, seed: int = 0) -> list[ScenePicture]:
    """Any number of training pictures: those of `style_set`, then others that are not test pictures either."""
    after = sum(STYLE_SIZES.values())
    few = min(count, STYLE_SIZES["train"])
    return _of_style(style, seed, [*range(few), *range(after, after + count - few)])


def _of_style(style: str, seed: int, indices: Sequence[int]) -> list[ScenePicture]:
    _require("style", style, STYLES)
    rng, kinds = stream(seed, "style contents"), cycle(_STYLE_KINDS)
    scenes = _distinct(lambda: imagine(rng, next(kinds)), content)
    imagined = [next(scenes) for _ in range(max(indices) + 1)]
    return [_in_style(imagined[index], style, seed, index) for index in indices]


def content(scene: Scene) -> Hashable:
    """What makes two scenes the same to someone who learns a style: background and size of a shape do not count."""
    facts = scene.facts
    if facts.kind in ("face", "named"):
        return facts.kind, facts.name, facts.gender, facts.skin, facts.hair_style, facts.hair_colour
    if facts.kind == "two":
        return facts.kind, facts.colour, facts.shape, facts.second_colour, facts.second_shape
    return facts.kind, facts.colour, facts.object or facts.shape, facts.place


def _in_style(scene: Scene, style: str, seed: int, index: int) -> ScenePicture:
    told = describe(stream(seed, "style captions", index), scene.facts)
    caption = f"{class_token(style)} style, {told}"
    return paint(stream(seed, "style pictures", style, index), scene, style, caption)


def identity_set(name: str, split: str, seed: int = 0, word: str = "sks") -> list[ScenePicture]:
    """10 reference ("train") or 10 test pictures of a held-out person: "a photo of sks man, sad, red background"."""
    _require("split", split, SPLITS)
    first = 1 if split == "train" else 1 + IDENTITY_SIZE
    return _portraits(name, seed, word, range(first, first + IDENTITY_SIZE))


def one_image_set(name: str, seed: int = 0, word: str = "sks") -> list[ScenePicture]:
    """The one picture from which a person is to be learnt: a neutral face without a hat."""
    return _portraits(name, seed, word, range(1))


def _portraits(name: str, seed: int, word: str, indices: range) -> list[ScenePicture]:
    _require("identity", name, HELD_OUT)
    identity = HELD_OUT[name]
    scenes = _distinct(_sittings(identity, stream(seed, "portraits", name)), look)
    wanted = [next(scenes) for _ in range(indices.stop)][indices.start :]
    return [
        paint(
            stream(seed, "portrait pictures", name, index),
            scene,
            caption=f"a photo of {describe_person(scene.facts, f'{word} {identity.gender}')}",
        )
        for index, scene in zip(indices, wanted, strict=True)
    ]


def _sittings(identity: Identity, rng: np.random.Generator) -> Callable[[], Scene]:
    """Portraits of one person, one a call; the first is the plain one of `one_image_set`."""
    plain_is_due = True

    def sit() -> Scene:
        nonlocal plain_is_due
        expression = "neutral" if plain_is_due else None
        scene = imagine(rng, "face", identity, expression)
        while plain_is_due and scene.facts.hat != "none":
            scene = imagine(rng, "face", identity, expression)
        plain_is_due = False
        return scene

    return sit


def look(scene: Scene) -> Hashable:
    """What differs between two portraits of one person."""
    facts = scene.facts
    return facts.expression, facts.background, facts.hat


def _distinct(draw_scene: Callable[[], Scene], key: Callable[[Scene], Hashable]) -> Iterator[Scene]:
    """Scenes of which no two have the same key."""
    seen: set[Hashable] = set()
    while True:
        scene = draw_scene()
        if key(scene) not in seen:
            seen.add(key(scene))
            yield scene


def _require(what: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise ValueError(f"`{name}` is no {what}; there are {', '.join(known)}")
