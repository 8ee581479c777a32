"""Which pictures are held out of training, so that the loss on pictures never trained on can be measured.

Sd-scripts shuffles twice and rounds twice, so that a picture may be in both parts; here each is in one. The choice
follows from the pictures' names, so that a picture more or less leaves most of it as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from library.config.dataset_specs import SubsetSpec
from library.data.keys import seed_of


def held_out(names: Sequence[str], share: float, seed: int | None) -> set[str]:
    """Which of the names are held out: `share` of them, rounded. `seed` makes another choice."""
    ranked = sorted(names, key=lambda name: seed_of(seed or 0, 0, name, "validation"))
    return set(ranked[: round(len(names) * share)])


def calm(subset: SubsetSpec) -> SubsetSpec:
    """The subset without anything that would let its pictures or captions differ from one visit to the next."""
    return replace(
        subset,
        num_repeats=1,
        flip_aug=False,
        color_aug=False,
        random_crop=False,
        face_crop_aug_range=None,
        shuffle_caption=False,
        caption_dropout_rate=0.0,
        caption_dropout_every_n_epochs=0,
        caption_tag_dropout_rate=0.0,
        token_warmup_step=0,
    )
