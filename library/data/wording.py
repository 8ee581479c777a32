"""What is said about a sample in an epoch: prefix and suffix, dropout, shuffled tags.

The order of events, and every result without a random draw, are those of sd-scripts; the draws come from the sample's
own generator.
"""

from __future__ import annotations

import torch

from library.config.dataset_specs import SubsetSpec


def worded(caption: str, subset: SubsetSpec, generator: torch.Generator) -> str:
    """The caption of one sample in one epoch."""
    if torch.rand((), generator=generator) < subset.caption_dropout_rate:
        return ""
    caption = wording_without_draws(caption, subset)
    if subset.shuffle_caption:
        caption = shuffled(caption, subset.keep_tokens, subset.caption_separator, generator)
    return caption


def wording_without_draws(caption: str, subset: SubsetSpec) -> str:
    """The caption with its prefix and suffix."""
    if subset.caption_prefix:
        caption = f"{subset.caption_prefix} {caption}"
    if subset.caption_suffix:
        caption = f"{caption} {subset.caption_suffix}"
    return caption


def varies(subset: SubsetSpec) -> bool:
    """Whether the same image may be captioned differently in another epoch."""
    return subset.shuffle_caption or subset.caption_dropout_rate > 0


def shuffled(caption: str, keep: int, separator: str, generator: torch.Generator) -> str:
    """Tags in random order, the first `keep` of them where they are. Joined by ", " whatever separated them."""
    tags = [tag.strip() for tag in caption.strip().split(separator)]
    fixed, loose = tags[:keep], tags[keep:]
    order = torch.rand(len(loose), generator=generator, dtype=torch.float64).argsort(stable=True).tolist()
    return ", ".join(fixed + [loose[i] for i in order])
