"""Keys of datasets that do nothing without another one: noted at the start when they are set alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from library.config.dataset_keys import BY_NAME, KEYS
from library.config.dataset_specs import DatasetPlan
from library.config.image_folders import SourceSpec
from library.config.option import Settings, is_off
from library.config.options.captions import VARY_TAGS
from library.config.options.validation import VALIDATION

NEEDS = {key.name: key.option.needs_key for key in KEYS if key.option.needs_key}
"""Key -> those of which one must be on for it to have an effect."""


def lonely_keys(plan: DatasetPlan, settings: Settings) -> Iterator[str]:
    """A line for each key that is set somewhere and has no effect anywhere in the plan."""
    specs: list[Any] = [*plan, *(subset for dataset in plan for subset in dataset.subsets)]
    for name, partners in NEEDS.items():
        default = BY_NAME[name].option.default
        mine = [spec for spec in specs if hasattr(spec, name)]
        is_set = any(not is_off(getattr(spec, name), default) for spec in mine)
        if is_set and not any(getattr(spec, partner, None) for spec in mine for partner in partners):
            others = " or ".join(f"`{partner}`" for partner in partners)
            yield f"{settings.place(name)} has no effect without {others}."
    subsets = [subset for dataset in plan for subset in dataset.subsets]
    source = settings.take(SourceSpec)
    repeats = source.dataset_repeats
    if settings.explicit("dataset_repeats") and repeats != 1 and all(s.num_repeats != repeats for s in subsets):
        yield f"{settings.place('dataset_repeats')} has no effect: every subset has a number of repeats of its own."
    steps, epochs = "max_train_steps", "max_train_epochs"
    if settings.origins[steps].kind == "command line" and settings[epochs] is not None:
        yield f"{settings.place(steps)} has no effect: {settings.place(epochs)} counts, as in sd-scripts; take it out."
    to_disk = "cache_text_encoder_outputs_to_disk"
    if settings[to_disk] and any(getattr(subset, name) for subset in subsets for name in VARY_TAGS):
        what = "keeps nothing: captions whose tags vary are made anew in each epoch and encoded as they come"
        yield f"{settings.place(to_disk)} {what}."
    if not any(getattr(spec, "validation_split", 0) for spec in specs):
        for name in (option.name for option in VALIDATION if option.needs_key and not option.levels):
            if settings.explicit(name) and settings[name] is not None:
                lacks = "no picture is held out; set `validation_split`, say to 0.1"
                yield f"{settings.place(name)} has no effect: {lacks}."
    if source.masked_loss and not any(s.alpha_mask or s.conditioning_data_dir for s in subsets):
        lacks = "no subset has masks; give one a `conditioning_data_dir` or `alpha_mask`"
        yield f"{settings.place('masked_loss')} has no effect: {lacks}."
