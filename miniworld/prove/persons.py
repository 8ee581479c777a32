"""One held-out person: what an arm learns from, and what its result is examined on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from library.files import read_tensors
from library.models.family import StableDiffusion
from library.models.load import load_model
from library.models.placeholders import Placeholders
from miniworld.captions import describe_person
from miniworld.draw import write_dataset
from miniworld.facts import Facts
from miniworld.judge import Judge
from miniworld.palette import COLOURS
from miniworld.pretrain.preview import save_grid
from miniworld.prove.measures import HeldOut, draw, through_vae
from miniworld.questions import prompt
from miniworld.scenes import ScenePicture
from miniworld.sets import identity_set, one_image_set

MODEL = Path(__file__).parents[1] / "model"
NAMES = MODEL / "names.txt"
TOKEN = "zwx"
BELONGING = ("hair_style", "hair_colour", "skin", "glasses", "beard")
"""What the judge can read of a face that belongs to the person."""
PLAIN, BACKGROUNDS, HATS, SKETCHES = 6, 8, 4, 3
"""Pictures of an arm: as they are, and with something else asked for."""

Caption = Callable[[Facts], str]


@dataclass(frozen=True)
class AskedFacts:
    """A prompt in facts: what should be seen besides the person."""

    facts: Facts
    head: str | None = None


def called(word: str) -> Caption:
    """Captions in which `word` stands for the person."""
    return lambda facts: f"a photo of {describe_person(facts, word)}"


def written_out(facts: Facts) -> str:
    """A caption that says all that is visible of the person instead."""
    return prompt(facts)


class TestPerson:
    """A held-out identity: one picture to learn from, ten others, and prompts that ask for something else."""

    def __init__(self, name: str, base: StableDiffusion, judge: Judge) -> None:
        self.name, self.base, self.judge = name, base, judge
        (self.picture,) = one_image_set(name)
        self.others = identity_set(name, "test")
        facts = self.picture.facts
        self.gender = str(facts.gender)
        colours = [colour for colour in COLOURS if colour != facts.background]
        still = replace(facts, expression="neutral", hat="none")
        self.asked = [AskedFacts(still)] * PLAIN
        self.asked += [AskedFacts(replace(still, background=colour), "background") for colour in colours[:BACKGROUNDS]]
        self.asked += [AskedFacts(replace(still, hat=colour), "hat") for colour in colours[:HATS]]
        self.asked += [AskedFacts(replace(still, style="sketch"), "style")] * SKETCHES

    def write_pictures(self, folder: Path, repeats: int) -> None:
        """The one picture, as often in an epoch as asked."""
        write_dataset(folder / f"{repeats}_{self.gender}", [self.picture])

    def examine(self, model: StableDiffusion, caption: Caption, examples: Path) -> dict[str, Any]:
        """An arm's figures: losses on other pictures and on its own, and what the judge sees in what it draws."""
        pictures = draw(model, [_styled(caption(asked.facts), asked) for asked in self.asked])
        rows = torch.from_numpy(pictures[:: max(1, len(pictures) // 8)][:8]).permute(0, 3, 1, 2) / 127.5 - 1
        examples.parent.mkdir(parents=True, exist_ok=True)
        save_grid(rows, examples, columns=8)
        return {
            "held_out": HeldOut(model, _captioned(self.others, caption)).loss(model),
            "train": HeldOut(model, _captioned([self.picture] * 10, caption)).loss(model),
            **self.see(pictures),
        }

    def see(self, pictures: np.ndarray) -> dict[str, float]:
        """Share of the person's own traits, of the asked backgrounds, and the mean over what was asked."""
        seen = self.judge.read(pictures)
        shares: dict[str, list[bool]] = {"identity": [], "background": [], "hat": [], "style": []}
        for asked, answers in zip(self.asked, seen, strict=True):
            if asked.head is not None:
                shares[asked.head].append(answers[asked.head] == getattr(asked.facts, asked.head))
            if asked.head in (None, "background"):
                truth = {trait: getattr(self.picture.facts, trait) for trait in BELONGING}
                shares["identity"] += [answers[trait] == value for trait, value in truth.items() if value]
        found = {name: float(np.mean(hits)) for name, hits in shares.items()}
        return found | {"prompt": float(np.mean([found["background"], found["hat"], found["style"]]))}

    def ceiling(self) -> float:
        """The identity score of drawings of the person, through the VAE."""
        drawings = np.stack([picture.image for picture in self.others])
        hits = []
        for answers, picture in zip(self.judge.read(through_vae(self.base, drawings)), self.others, strict=True):
            traits = [trait for trait in BELONGING if getattr(picture.facts, trait)]
            traits = [t for t in traits if not (picture.facts.hat != "none" and t.startswith("hair"))]
            hits += [answers[trait] == getattr(picture.facts, trait) for trait in traits]
        return float(np.mean(hits))


def with_word(file: Path) -> tuple[StableDiffusion, Caption]:
    """The mini model with the vectors of an embedding file, and captions that use them."""
    model = load_model(MODEL)
    rows = read_tensors(file)[0]["emb_params"].float()
    placeholders = Placeholders(model, TOKEN, len(rows))
    placeholders.rows[0].rows = rows
    return model, called(placeholders.text)


def _captioned(pictures: Sequence[ScenePicture], caption: Caption) -> list[ScenePicture]:
    return [replace(picture, caption=caption(picture.facts)) for picture in pictures]


def _styled(text: str, asked: AskedFacts) -> str:
    return text.replace("a photo of", "a sketch of", 1) if asked.head == "style" else text
