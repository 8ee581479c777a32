"""A judge that does not come from the diffusion model: a small network trained on drawings reads what a picture shows.

It has one head per fact (colour, object, expression, style, ...) over shared features; a head's answer means something
only for pictures that show such a thing. It has seen every style, the held-out ones too, so it can say how much a
picture looks like each. Its accuracy on unseen drawings is in its file's metadata.

`python -m miniworld.judge` trains it anew (about 9 minutes of one processor).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from miniworld.faces import EXPRESSIONS
from miniworld.facts import Facts
from miniworld.identities import BEARDS, GENDERS, GLASSES, HAIR_STYLES, NAMES
from miniworld.objects import OBJECTS
from miniworld.palette import COLOURS, EYE_COLOURS, HAIR_COLOURS, SKINS
from miniworld.places import PLACES
from miniworld.scenes import draw
from miniworld.shapes import SHAPES
from miniworld.styles import HELD_OUT_STYLES, PRETRAINING_STYLES, STYLES

FILE = Path(__file__).with_name("judge.safetensors")
HEADS: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "shape": tuple(SHAPES),
    "object": tuple(OBJECTS),
    "place": tuple(PLACES),
    "background": tuple(COLOURS),
    "style": tuple(STYLES),
    "name": tuple(NAMES),
    "gender": tuple(GENDERS),
    "skin": tuple(SKINS),
    "hair_style": tuple(HAIR_STYLES),
    "hair_colour": tuple(HAIR_COLOURS),
    "eye_colour": tuple(EYE_COLOURS),
    "expression": tuple(EXPRESSIONS),
    "glasses": tuple(GLASSES),
    "beard": tuple(BEARDS),
    "hat": ("none", *COLOURS),
}
"""What can be read from a picture, and the possible answers. Names are those of `Facts`."""
COLOUR_HEADS = frozenset({"colour", "background", "skin", "hair_colour", "eye_colour", "hat"})
COLOURED_STYLES = frozenset({"photo", "pixel art", "watercolor"})
"""Other styles change colours or drop them: their pictures do not teach the colour heads."""
Images = Sequence | np.ndarray
"""128 x 128 RGB pictures: uint8 arrays or PIL images, or one array (n, 128, 128, 3)."""
NOTHING = -1  # the label of a fact that a picture does not have

SIDE = 128
KINDS = {"shape": 0.22, "two": 0.04, "object": 0.27, "face": 0.25, "named": 0.22}
FEATURES = 160
PICTURES, UNSEEN, EPOCHS, BATCH, PEAK_RATE = 20_000, 1_000, 4, 64, 2e-3


class Judge(nn.Module):
    """Six convolutions, one hidden layer of 160 features, sixteen heads: 0.8 M parameters."""

    def __init__(self) -> None:
        super().__init__()

        def layer(inputs: int, outputs: int, stride: int, kernel: int = 3) -> nn.Sequential:
            convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
            return nn.Sequential(convolution, nn.GroupNorm(8, outputs), nn.SiLU())

        self.body = nn.Sequential(
            layer(3, 24, 2, kernel=5), layer(24, 48, 2), layer(48, 64, 1), layer(64, 96, 2), layer(96, 96, 1),
            layer(96, 128, 2), layer(128, 48, 1, kernel=1),
            nn.Flatten(), nn.Linear(48 * 8 * 8, FEATURES), nn.SiLU(),
        )  # fmt: skip
        self.heads = nn.ModuleDict({head: nn.Linear(FEATURES, len(labels)) for head, labels in HEADS.items()})
        self.accuracy: dict[str, float] = {}

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """(n, 3, 128, 128) in -1..1 -> logits of each head, (n, labels)."""
        features = self.body(pictures)
        return {name: head(features) for name, head in self.heads.items()}

    @classmethod
    def load(cls, file: Path = FILE) -> Judge:
        """The committed judge, in float32, ready to read; its `accuracy` is that on unseen drawings."""
        judge = cls()
        with safe_open(file, "pt") as stored:
            judge.load_state_dict({key: stored.get_tensor(key).float() for key in stored.keys()})  # noqa: SIM118
            judge.accuracy = json.loads(stored.metadata()["accuracy"])
        return judge.eval().requires_grad_(False)

    @torch.no_grad()
    def read(self, images: Images) -> list[dict[str, str]]:
        """Each picture's most likely answer of every head."""
        answers: list[dict[str, str]] = [{} for _ in images]
        for start, part in _parts(images):
            for head, logits in self(part).items():
                for i, best in enumerate(logits.argmax(1).tolist()):
                    answers[start + i][head] = HEADS[head][best]
        return answers

    @torch.no_grad()
    def style_score(self, images: Images, style: str) -> float:
        """Mean probability that the pictures are in a style."""
        column = HEADS["style"].index(style)
        scores = [self(part)["style"].softmax(1)[:, column] for _, part in _parts(images)]
        return float(torch.cat(scores).mean())

    @torch.no_grad()
    def features(self, images: Images) -> Tensor:
        """(n, 160): what the heads read, for distances between sets of pictures."""
        return torch.cat([self.body(part) for _, part in _parts(images)])


def feature_network(weights: Path = FILE) -> Callable[[Sequence[Image.Image]], Tensor]:
    """What `evaluate.py` asks of a feature network: RGB pictures of any size to (n, 160)."""
    judge = Judge.load(weights)

    def see(images: Sequence[Image.Image]) -> Tensor:
        return judge.features([image.resize((SIDE, SIDE), Image.Resampling.BICUBIC) for image in images])

    return see


def _parts(images: Images, size: int = 64) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(images), size):
        yield start, to_pictures(images[start : start + size])


def to_pictures(images: Images) -> Tensor:
    """128 x 128 RGB images, arrays or PIL -> (n, 3, 128, 128) float32 in -1..1."""
    pixels = np.stack([np.asarray(image) for image in images])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def labels(facts: Facts) -> dict[str, int]:
    """The index of every fact that can be read from the picture; `NOTHING` elsewhere."""
    readable = {head: getattr(facts, head) for head in HEADS}
    if facts.kind == "two":
        readable |= {"colour": None, "shape": None}
    if facts.style not in COLOURED_STYLES:
        readable |= dict.fromkeys(COLOUR_HEADS)
    return {h: HEADS[h].index(value) if value is not None else NOTHING for h, value in readable.items()}


def lesson(seed: int, count: int) -> tuple[np.ndarray, dict[str, Tensor]]:
    """Drawings and their labels: (count, 128, 128, 3) uint8, and per head (count,) indices."""
    rng = np.random.default_rng(seed)
    everyday = (0.62, *(0.06 for _ in list(PRETRAINING_STYLES)[1:]))
    shares = dict(zip(PRETRAINING_STYLES, everyday, strict=True))
    shares |= dict.fromkeys(HELD_OUT_STYLES, (1 - sum(everyday)) / len(HELD_OUT_STYLES))
    images, told = np.empty((count, 128, 128, 3), np.uint8), []
    for i in range(count):
        kind = list(KINDS)[rng.choice(len(KINDS), p=list(KINDS.values()))]
        style = list(shares)[rng.choice(len(shares), p=list(shares.values()))]
        picture = draw(rng, kind=kind, style=style)
        images[i] = picture.image
        told.append(labels(picture.facts))
    return images, {head: torch.tensor([one[head] for one in told]) for head in HEADS}


def disturbed(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Blurred a little half of the time, and noisy: generated pictures are never as clean as drawings."""
    strength = 2 * torch.rand(len(pictures), 1, 1, 1, generator=generator) - 1
    blurred = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, 1)
    pictures = torch.lerp(pictures, blurred, strength.clamp(min=0))
    return pictures + 0.04 * torch.randn(pictures.shape, generator=generator)


def error(logits: Mapping[str, Tensor], answers: Mapping[str, Tensor]) -> Tensor:
    """Sum over heads of the mean cross-entropy of the pictures that have such a fact."""
    total = torch.zeros(())
    for head, values in logits.items():
        if (answers[head] != NOTHING).any():
            total = total + F.cross_entropy(values.float(), answers[head], ignore_index=NOTHING)
    return total


def train(judge: Judge, images: np.ndarray, answers: dict[str, Tensor], epochs: int, seed: int) -> None:
    """Adam with a cosine schedule over whole epochs, in an order that the seed fixes."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(judge.parameters(), PEAK_RATE, weight_decay=0.02)
    steps, step, began = epochs * (len(images) // BATCH), 0, time.process_time()
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for chosen in order[: len(images) // BATCH * BATCH].split(BATCH):
            for group in optimizer.param_groups:
                group["lr"] = PEAK_RATE * (0.5 + 0.5 * math.cos(math.pi * step / steps))
            pictures = disturbed(to_pictures(images[chosen.numpy()]), generator)
            with torch.autocast("cpu", torch.bfloat16):
                logits = judge(pictures)
            loss = error(logits, {head: values[chosen] for head, values in answers.items()})
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step % 50 == 0:
                spent = time.process_time() - began
                print(f"[judge] step {step} of {steps} loss {loss.item():.3f} cpu_seconds {spent:.0f}", flush=True)


@torch.no_grad()
def accuracies(judge: Judge, images: np.ndarray, answers: dict[str, Tensor]) -> dict[str, float]:
    """The share of right answers of each head, over the pictures that have such a fact."""
    read = judge.read(images)
    shares = {}
    for head, values in answers.items():
        asked = [i for i, value in enumerate(values.tolist()) if value != NOTHING]
        right = sum(read[i][head] == HEADS[head][int(values[i])] for i in asked)
        shares[head] = round(right / max(len(asked), 1), 4)
    return shares


def save(judge: Judge, file: Path) -> None:
    """fp16, the accuracies in the metadata; never half a file under the final name."""
    temporary = file.with_suffix(".tmp")
    tensors = {key: value.half().contiguous() for key, value in judge.state_dict().items()}
    save_file(tensors, temporary, {"format": "pt", "accuracy": json.dumps(judge.accuracy)})
    os.replace(temporary, file)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m miniworld.judge", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=FILE)
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=31)
    options = parser.parse_args(argv)
    torch.manual_seed(options.seed)
    judge = Judge()
    train(judge, *lesson(options.seed, options.pictures), options.epochs, options.seed)
    judge.eval()
    judge.accuracy = accuracies(judge, *lesson(options.seed + 1, UNSEEN))
    save(judge, options.output)
    print("\n".join(f"{head:12} {share:.1%}" for head, share in judge.accuracy.items()))


if __name__ == "__main__":
    main()
