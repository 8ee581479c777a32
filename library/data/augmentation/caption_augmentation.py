"""Caption augmentation, the text of a sample in an epoch: prefix and suffix, wildcards, caption shuffle (of tags), and
caption dropout.

The order of events, and every result without a random draw, are those of sd-scripts but for three things: prefix and
suffix go around every line of a caption of several lines, a divider of fixed tags never stays in the text, and a third
divider is a divider too. Each draw comes from a generator of its own, so that switching one option on leaves what the
others draw as it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import floor

import torch

from library.config.dataset_specs import SubsetSpec

Draw = Callable[[str], torch.Generator]
"""A fresh generator for one purpose, e.g. `draw("caption shuffle")`."""

CHOICE = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")  # an escaped brace, or {one|of|these}


@dataclass(frozen=True, slots=True)
class Moment:
    """When a caption is used. Epochs are 1-based; `step` optimizer steps are done, of `total_steps` if that is known.

    Raises RuntimeError where a share of the run is asked for and its length is not known.
    """

    epoch: int
    step: int = 0
    total_steps: int | None = None

    def steps(self, steps_or_share: float) -> int:
        """A number of steps, or below 1 the share of the run, in whole steps."""
        if steps_or_share >= 1 or steps_or_share == 0:
            return floor(steps_or_share)
        if self.total_steps is None:
            raise RuntimeError("a share of the run is asked for, and its length was not given")
        return floor(steps_or_share * self.total_steps)


def worded(caption: str, subset: SubsetSpec, moment: Moment, draw: Draw) -> str:
    """The caption of one sample at one moment. `caption` may have several lines, of which one is used."""
    return "" if is_dropped(subset, moment, draw) else augment(caption, subset, moment, draw)


def augment(caption: str, subset: SubsetSpec, moment: Moment, draw: Draw) -> str:
    """What is used where the caption is not dropped."""
    text = framed(_line(caption, subset, draw), subset)
    if subset.enable_wildcard:
        text = with_choices_made(text, draw("caption choices"))
    if varies_tags(subset):
        first, loose, last = divided(text, subset)
        loose = warmed_up(loose, subset, moment)
        if subset.shuffle_caption:
            loose = shuffled(loose, draw("caption shuffle"))
        if subset.caption_tag_dropout_rate > 0:
            loose = thinned(loose, subset.caption_tag_dropout_rate, draw("caption tag dropout"))
        text = ", ".join([*first, *loose, *last])
    elif subset.keep_tokens_separator and subset.keep_tokens_separator in text:
        text = ", ".join(tag for part in divided(text, subset) for tag in part)
    if subset.secondary_separator:
        text = text.replace(subset.secondary_separator, subset.caption_separator)
    return text


def only_wording(caption: str, subset: SubsetSpec) -> str | None:
    """What is used whenever the caption is not dropped, or None if that is not always the same."""
    if varies_tags(subset):
        return None
    if subset.enable_wildcard and ("\n" in caption or "{" in framed(caption, subset)):
        return None
    return augment(caption, subset, Moment(1), lambda purpose: torch.Generator())  # nothing is left to chance


def varies_tags(subset: SubsetSpec) -> bool:
    """Whether tags are shuffled, left out, or come in one after the other."""
    return subset.shuffle_caption or subset.caption_tag_dropout_rate > 0 or subset.token_warmup_step > 0


def may_be_dropped(subset: SubsetSpec) -> bool:
    """Whether a whole caption is sometimes left out."""
    return subset.caption_dropout_rate > 0 or subset.caption_dropout_every_n_epochs > 0


def is_dropped(subset: SubsetSpec, moment: Moment, draw: Draw) -> bool:
    """Whether the caption is dropped: by chance, or in each nth epoch."""
    every = subset.caption_dropout_every_n_epochs
    if every > 0 and moment.epoch % every == 0:
        return True
    rate = subset.caption_dropout_rate
    return rate > 0 and bool(torch.rand((), generator=draw("caption dropout")) < rate)


def framed(line: str, subset: SubsetSpec) -> str:
    """The line with its prefix and suffix."""
    if subset.caption_prefix:
        line = f"{subset.caption_prefix} {line}"
    if subset.caption_suffix:
        line = f"{line} {subset.caption_suffix}"
    return line


def with_choices_made(text: str, generator: torch.Generator) -> str:
    """Each {a|b} replaced by a or b; {{ and }} are braces."""

    def chosen(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0][0]
        return _one_of(match[1].split("|"), generator)

    return CHOICE.sub(chosen, text)


def divided(text: str, subset: SubsetSpec) -> tuple[list[str], list[str], list[str]]:
    """Tags that stay first, tags that vary, tags that stay last.

    `keep_tokens_separator` divides the three where it occurs, and empty tags are left out; else the first `keep_tokens`
    tags stay, and empty tags with them.
    """
    divider, separator = subset.keep_tokens_separator, subset.caption_separator
    if divider and divider in text:
        stripped = ([tag.strip() for tag in part.split(separator)] for part in text.split(divider))
        first, loose, *rest = ([tag for tag in tags if tag] for tags in stripped)
        return first, loose, [tag for tags in rest for tag in tags]
    tags = [tag.strip() for tag in text.strip().split(separator)]
    return tags[: subset.keep_tokens], tags[subset.keep_tokens :], []


def warmed_up(tags: list[str], subset: SubsetSpec, moment: Moment) -> list[str]:
    """The first tags, `token_warmup_min` of them at the start and all of them from `token_warmup_step` on."""
    until, least = moment.steps(subset.token_warmup_step), subset.token_warmup_min
    if moment.step >= until:
        return tags
    return tags[: floor(moment.step * ((len(tags) - least) / until)) + least]


def shuffled(tags: list[str], generator: torch.Generator) -> list[str]:
    """The tags in random order."""
    order = torch.rand(len(tags), generator=generator, dtype=torch.float64).argsort(stable=True).tolist()
    return [tags[i] for i in order]


def thinned(tags: list[str], rate: float, generator: torch.Generator) -> list[str]:
    """The tags without those that are left out, each with probability `rate`."""
    kept = (torch.rand(len(tags), generator=generator, dtype=torch.float64) >= rate).tolist()
    return [tag for tag, stays in zip(tags, kept, strict=True) if stays]


def _line(caption: str, subset: SubsetSpec, draw: Draw) -> str:
    lines = caption.split("\n")
    if len(lines) == 1 or not subset.enable_wildcard:
        return lines[0]
    return _one_of(lines, draw("caption line"))


def _one_of(choices: list[str], generator: torch.Generator) -> str:
    return choices[int(torch.randint(len(choices), (), generator=generator))]
