"""The dataset: every image with its caption, its bucket and its place in an epoch."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from library.config.dataset_specs import DatasetSpec, SubsetSpec
from library.data.bucket_assignment import about_sizes, about_skipped, is_skipped, placed
from library.data.buckets import Size
from library.data.images.image import DatasetImage
from library.data.images.scan import Seen, survey
from library.data.images.validation_split import calm, held_out
from library.data.regularization import Rotation, about_rotations, fill_up, share_out
from library.errors import Problem, raise_all


@dataclass(frozen=True, slots=True)
class Sample:
    """One visit to a picture in every epoch; a picture has as many samples as repeats.

    The id, `<dataset>/<folder name>/<file name>#<repeat>`, names the sample's random draws and stays the same when the
    folder moves or other images come and go.
    """

    sample_id: str
    picture: DatasetImage
    loss_weight: float


@dataclass
class Dataset:
    """All samples of all datasets of a plan. `plan` is what they were built from.

    `validation`: the pictures that `validation_split` holds out, each once and always seen and captioned alike; None if
    there are none. A source of latents or text that is made of this dataset has theirs too. Batches of
    `dataset.validation` with a seed that never changes, always of epoch 0, measure the loss on the same noise.
    """

    plan: Sequence[DatasetSpec]
    pictures: list[DatasetImage]
    samples: list[Sample]
    warnings: list[str] = field(default_factory=list)
    validation: Dataset | None = None
    images: list[Seen] = field(default_factory=list)
    """All that was found, also what cannot be used."""
    rotations: list[Rotation] = field(default_factory=list)
    """Where there are more regularization images than an epoch sees: which samples they take turns in."""
    digests: dict[Path, str] = field(default_factory=dict)
    """The SHA-256 of each image file, as far as a source of latents has read it: to know the pictures again later."""

    @property
    def all_pictures(self) -> list[DatasetImage]:
        """Those that are trained on and those that are held out."""
        return self.pictures + (self.validation.pictures if self.validation else [])

    @cached_property
    def groups(self) -> dict[tuple[int, Size], list[int]]:
        """Indices of the samples that may share a batch: one list per dataset and bucket, in ascending order."""
        groups: dict[tuple[int, Size], list[int]] = {}
        for index, sample in enumerate(self.samples):
            groups.setdefault((sample.picture.dataset, sample.picture.choice.bucket), []).append(index)
        return dict(sorted(groups.items()))

    def samples_of(self, seed: int, epoch: int) -> Sequence[Sample]:
        """The samples of an epoch: `samples`, with other regularization images in turn where there are too many.

        Each sample stays in its bucket, so that every epoch has the same number of steps.
        """
        if not self.rotations:
            return self.samples
        samples = list(self.samples)
        for rotation in self.rotations:
            for slot, (visitor, number) in zip(rotation.slots, rotation.visitors(seed, epoch), strict=True):
                samples[slot] = replace(
                    samples[slot],
                    sample_id=f"{rotation.names[visitor]}#{number}",
                    picture=self.pictures[rotation.pictures[visitor]],
                )
        return samples

    @cached_property
    def named(self) -> dict[str, DatasetImage]:
        """Each picture by what its samples are called after: their ids up to the last "#"."""
        seen = {sample.sample_id.rpartition("#")[0]: sample.picture for sample in self.samples}
        turns = [(name, self.pictures[i]) for r in self.rotations for name, i in zip(r.names, r.pictures, strict=True)]
        return seen | dict(turns)

    @cached_property
    def visits(self) -> list[int]:
        """How many samples each of `pictures` has in an epoch: its repeats, for regularisation images often others."""
        counts = Counter(id(sample.picture) for sample in self.samples)
        return [counts[id(picture)] for picture in self.pictures]


def build(
    plan: Sequence[DatasetSpec], *, prior_loss_weight: float = 1.0, fallback: Path | None = None, workers: int = 8
) -> Dataset:
    """The dataset of a plan.

    `prior_loss_weight` is the loss weight of regularisation images, `fallback` the output folder, where caches of
    folders that cannot be written are kept, `workers` the number of threads that read headers and captions.

    Raises UserError with every folder, image and caption that cannot be used.
    """
    dataset, problems = gather(plan, prior_loss_weight=prior_loss_weight, fallback=fallback, workers=workers)
    raise_all(problems)
    return dataset


def gather(
    plan: Sequence[DatasetSpec], *, prior_loss_weight: float = 1.0, fallback: Path | None = None, workers: int = 8
) -> tuple[Dataset, list[Problem]]:
    """`build` of what can be used, and what cannot; a folder of two datasets has each of its problems once."""
    seen = survey(plan, fallback, workers)
    problems, warnings = seen.problems, list(dict.fromkeys(seen.warnings))
    large_enough = [image for image in seen.images if not is_skipped(plan[image.dataset], image)]
    warnings += about_skipped(plan, seen.images)
    pictures = placed(plan, large_enough, problems)
    warnings += about_sizes(pictures)
    names = _names(plan, pictures)
    training, validation = _split(plan, pictures, names, warnings)
    if not problems and all(picture.subset.is_reg for picture in training):
        taken = f": `validation_split` holds out all {len(validation)}; lower it" if validation else ""
        if not pictures and len(large_enough) < len(seen.images):
            taken = ": `skip_image_resolution` leaves out all; lower it"
        problems.append(Problem(f"there is no image to train on{taken}"))
    samples, rotations = _samples(plan, training, names, prior_loss_weight, warnings)
    dataset = Dataset(plan, training, samples, warnings, images=seen.images, rotations=rotations)
    if validation:
        quiet = {id(subset): calm(subset) for spec in plan for subset in spec.subsets}
        visits = [Sample(f"{names[id(p)]}#0", replace(p, subset=quiet[id(p.subset)]), 1.0) for p in validation]
        dataset.validation = Dataset(plan, [visit.picture for visit in visits], visits)
    return dataset, list(dict.fromkeys(problems))


def _split(
    plan: Sequence[DatasetSpec], pictures: list[DatasetImage], names: dict[int, str], warnings: list[str]
) -> tuple[list[DatasetImage], list[DatasetImage]]:
    """The pictures that are trained on and those that are held out. Regularisation images are never held out."""
    by_subset: dict[int, list[DatasetImage]] = {}
    for picture in pictures:
        by_subset.setdefault(id(picture.subset), []).append(picture)
    out: set[str] = set()
    for members in by_subset.values():
        subset, spec = members[0].subset, plan[members[0].dataset]
        if spec.validation_split == 0 or subset.is_reg:
            continue
        # Ranked as in the first dataset: a folder that two datasets train at two sizes has the same pictures held out.
        ranked = {"0/" + names[id(picture)].partition("/")[2]: names[id(picture)] for picture in members}
        chosen = {ranked[name] for name in held_out(list(ranked), spec.validation_split, spec.validation_seed)}
        if not chosen:
            few = f"{len(members)} images are too few to hold out {spec.validation_split:g} of them"
            warnings.append(f"folder '{subset.image_dir}': {few}; all are trained on")
        out |= chosen
    return [p for p in pictures if names[id(p)] not in out], [p for p in pictures if names[id(p)] in out]


def _samples(
    plan: Sequence[DatasetSpec],
    pictures: list[DatasetImage],
    names: dict[int, str],
    prior_loss_weight: float,
    warnings: list[str],
) -> tuple[list[Sample], list[Rotation]]:
    """All samples, and where those of regularization images change from epoch to epoch."""
    samples: list[Sample] = []
    rotations: list[Rotation] = []
    for d in range(len(plan)):
        train = [picture for picture in pictures if picture.dataset == d and not picture.subset.is_reg]
        reg = [number for number, p in enumerate(pictures) if p.dataset == d and p.subset.is_reg]
        repeats = [pictures[number].subset.num_repeats for number in reg]
        visits = fill_up(repeats, sum(picture.subset.num_repeats for picture in train))
        for picture in train:
            samples += [Sample(f"{names[id(picture)]}#{n}", picture, 1.0) for n in range(picture.subset.num_repeats)]
        if all(visits):
            chosen = [(pictures[i], n) for i, number in zip(reg, visits, strict=True) for n in range(number)]
            samples += [Sample(f"{names[id(picture)]}#{n}", picture, prior_loss_weight) for picture, n in chosen]
            continue
        turns = _rotations(d, pictures, reg, names, sum(visits), len(samples))
        for rotation in turns:
            for visitor, n in rotation.visitors(0, 1):
                picture = pictures[rotation.pictures[visitor]]
                samples.append(Sample(f"{rotation.names[visitor]}#{n}", picture, prior_loss_weight))
        rotations += turns
        warnings.append(about_rotations(turns, len(reg), sum(visits)))
    return samples, rotations


def _rotations(
    dataset: int, pictures: list[DatasetImage], reg: list[int], names: dict[int, str], visits: int, start: int
) -> list[Rotation]:
    """`visits` visits, shared out over the buckets of regularization images; `start` is the first one's place."""
    by_bucket: dict[Size, list[int]] = {}
    for number in reg:
        by_bucket.setdefault(pictures[number].choice.bucket, []).append(number)
    repeats = {bucket: [pictures[i].subset.num_repeats for i in members] for bucket, members in by_bucket.items()}
    shares = share_out([sum(times) for times in repeats.values()], visits)
    found = []
    for (bucket, members), share in zip(by_bucket.items(), shares, strict=True):
        if share:
            purpose = f"regularization of {dataset}/{bucket[0]}x{bucket[1]}"
            called = [names[id(pictures[i])] for i in members]
            found.append(Rotation(range(start, start + share), members, called, repeats[bucket], purpose))
            start += share
    return found


def _names(plan: Sequence[DatasetSpec], pictures: Sequence[DatasetImage]) -> dict[int, str]:
    """Each picture's part of its samples' ids, by the picture's identity."""
    folders = {id(subset): name for spec in plan for subset, name in _folder_names(spec)}
    return {
        id(
            picture
        ): f"{picture.dataset}/{folders[id(picture.subset)]}/{_inside(picture.path, picture.subset.image_dir)}"
        for picture in pictures
    }


def _inside(path: Path, folder: Path) -> str:
    """The path as it is seen from the folder: the name alone, except where a metadata file names images elsewhere."""
    return path.name if path.parent == folder else Path(os.path.relpath(path, folder)).as_posix()


def _folder_names(spec: DatasetSpec) -> list[tuple[SubsetSpec, str]]:
    """Each subset with the name of its folder, numbered where two folders of a dataset are called the same."""
    taken: dict[str, int] = {}
    named = []
    for subset in spec.subsets:
        name = Path(subset.image_dir).resolve().name
        taken[name] = taken.get(name, 0) + 1
        named.append((subset, name if taken[name] == 1 else f"{name} ({taken[name]})"))
    return named
