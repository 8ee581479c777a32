"""How much of each dataset is held out: as somebody wrote it, or what it takes to find the best step."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from library.config.dataset_specs import DatasetSpec
from library.config.image_folders import count_images
from library.config.option import Settings
from library.errors import Problem


def with_shares(specs: Sequence[DatasetSpec], left_open: Collection[int]) -> list[DatasetSpec]:
    """A share held out of each dataset of which nobody set how much (`left_open`, by index), to find the best step.

    Where pictures are held out already, those are measured on, and nothing is taken from the training.
    """
    if any(spec.validation_split for spec in specs):
        return list(specs)
    return [
        replace(spec, validation_split=share_held_out(images_to_train_on(spec))) if spec.index in left_open else spec
        for spec in specs
    ]


def share_held_out(images: int) -> float:
    """The share that is held out where a best step is asked for and nobody says how much: an eighth of the images.

    Fewer than 4 cannot tell a rise from chance, and more than 32 only take time; but never more than a quarter.
    """
    wanted = min(max(images / 8, 4), 32)
    return min(wanted / max(images, 1), 0.25)


def images_to_train_on(spec: DatasetSpec) -> int:
    """Those in the dataset's folders; images that metadata files name are not counted."""
    return sum(count_images(s.image_dir) for s in spec.subsets if not s.is_reg and s.metadata_file is None)


def holding_out_problems(specs: Sequence[DatasetSpec], places: Mapping[int, str], settings: Settings) -> list[Problem]:
    """What `validation_split` makes impossible; `places` says by index where that of a dataset was written."""
    trained = [spec for spec in specs if any(not subset.is_reg for subset in spec.subsets)]
    if not trained:
        return []
    if all(spec.validation_split == 1 for spec in trained):
        message = " and ".join(dict.fromkeys(places[spec.index] for spec in trained))
        what = "holds out every image and leaves none to train on"
        advice = "write a share such as 0.1, or 1.0 into only the [[datasets]] that is to be measured on"
        return [Problem(f"{message} = 1 {what}; {advice}.", understood=True)]
    if settings.values.get("save_best") and not any(spec.validation_split for spec in trained):
        asks = "early_stop" if settings.explicit("early_stop") and settings["early_stop"] else "save_best"
        message = f"{settings.place(asks)} needs pictures that are held out, and `validation_split` is 0"
        return [Problem(f"{message}; leave it out, or set it to a share such as 0.2.", understood=True)]
    return []
