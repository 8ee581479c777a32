"""How a held-out person's restored faces are measured: by pixels, and by whom the judge sees in them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from library.metrics.quality import psnr, ssim
from miniworld.identities import HELD_OUT
from miniworld.judge import HEADS, Images, Judge, to_pictures
from miniworld.pretrain_restorer.faces import RANGES_OF, damage_by, damaged
from miniworld.pretrain_restorer.measure import IDENTITY
from miniworld.scenes import draw
from miniworld.sets import identity_set, stream

FACES_IN_GENERAL = 128
"""Drawings of nobody in particular: whoever looks like their mean looks like nobody."""


class Likeness:
    """Ten test pictures of a person, damaged, and what the ten reference pictures say of them."""

    def __init__(self, name: str, damage: str = "hard", seed: int = 0) -> None:
        self.identity = HELD_OUT[name]
        self.references = identity_set(name, "train", seed)
        self.tests = identity_set(name, "test", seed)
        self.truth = np.stack([picture.image for picture in self.tests])  # (10, 128, 128, 3) uint8
        self.degraded = np.stack(
            [
                damaged(picture.image, seed, 0, f"{name}-{i}", damage_by(RANGES_OF[damage]))
                for i, picture in enumerate(self.tests)
            ]
        )  # the same, float32 in [0, 1]
        self._person = identity_features(np.stack([picture.image for picture in self.references])).mean(0)

    def measure(self, restored: np.ndarray) -> dict[str, float]:
        """Figures of restored pictures, uint8 (10, 128, 128, 3), in the order of the tests."""
        pair = [to_pictures(pictures) / 2 + 0.5 for pictures in (restored, self.truth)]
        answers = judge().read(restored)
        features = identity_features(restored)
        return {
            "psnr": float(psnr(*pair).mean()),
            "ssim": float(ssim(*pair).mean()),
            "attributes": self._share(answers, IDENTITY),
            "similarity": float(torch.cosine_similarity(features, self._person[None], dim=1).mean()),
            "expression": self._share(answers, ("expression",)),
            "background": self._share(answers, ("background",)),
        }

    def _share(self, answers: Sequence[dict[str, str]], heads: Sequence[str]) -> float:
        """The share of facts that the judge reads right; facts that a face lacks are not asked."""
        asked = [
            seen[head] == getattr(picture.facts, head)
            for seen, picture in zip(answers, self.tests, strict=True)
            for head in heads
            if getattr(picture.facts, head) is not None
        ]
        return float(np.mean(asked))


def identity_features(pictures: Images) -> Tensor:
    """What the judge's features say of who it is: (n, 32).

    The answers (logits) of the heads that read a person's attributes, which are projections of the features that leave
    out background and expression; less those of faces in general, so that 0 is nobody.
    """
    return _answers(pictures) - _faces_in_general()


@lru_cache(maxsize=1)
def judge() -> Judge:
    return Judge.load()


@lru_cache(maxsize=1)
def _faces_in_general() -> Tensor:
    rng = stream("faces in general")
    return _answers([draw(rng, kind="face").image for _ in range(FACES_IN_GENERAL)]).mean(0)


@torch.no_grad()
def _answers(pictures: Images) -> Tensor:
    features = judge().features(pictures)
    return torch.cat([judge().heads[head](features) for head in HEADS if head in IDENTITY], 1)
