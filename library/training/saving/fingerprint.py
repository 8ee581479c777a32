"""What a file says of the run that made it, and what a state must agree with to be resumed."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from library.adapters.metadata import (
    DatasetFacts,
    ImageFacts,
    Metadata,
    ModelFacts,
    RunFacts,
    SubsetFacts,
    minimum_metadata,
    saving_metadata,
    training_metadata,
)
from library.adapters.modelspec import modelspec
from library.config.dataset_keys import PLACES
from library.config.option import Option, Settings
from library.data.dataset import Dataset, Sample
from library.data.sample_order import Geometry
from library.files import file_hash
from library.models.family import StableDiffusion
from library.training.clock import Clock
from library.training.saving.resume import ResumeSpec, read_details
from library.training.saving.state_differences import (
    CONTENT,
    HELD_OUT,
    MODEL,
    PATHS_OF_MODELS,
    PICTURES,
    SOURCE,
    SUBSETS,
    Details,
    Expected,
    Fingerprint,
)


def model_facts(model: StableDiffusion, options: Mapping[str, Any]) -> ModelFacts:
    return ModelFacts(
        family=model.family.value,
        is_v_prediction=model.prediction_type == "v_prediction",
        is_flow=model.is_flow,
        source=str(options["pretrained_model_name_or_path"]),
        vae=str(options["vae"]) if options["vae"] else None,
    )


def dataset_facts(dataset: Dataset) -> list[DatasetFacts]:
    """The datasets as metadata describes them, with the captions as they are in their files."""
    facts = []
    for number, spec in enumerate(dataset.plan):
        subsets = []
        for subset in spec.subsets:
            images = [
                ImageFacts(picture.size, picture.choice.bucket, visits, picture.caption)
                for picture, visits in zip(dataset.pictures, dataset.visits, strict=True)
                if picture.dataset == number and picture.subset is subset
            ]
            subsets.append(
                SubsetFacts(
                    image_dir=subset.image_dir,
                    metadata_file=subset.metadata_file,
                    num_repeats=subset.num_repeats,
                    images=images,
                    is_reg=subset.is_reg,
                    class_tokens=subset.class_tokens,
                    options=asdict(subset),
                )
            )
        bounds = (spec.min_bucket_reso, spec.max_bucket_reso) if spec.enable_bucket else (None, None)
        facts.append(DatasetFacts(spec.batch_size, spec.resolution, spec.enable_bucket, *bounds, subsets))
    return facts


def optimizer_text(optimizer: torch.optim.Optimizer, arguments: Mapping[str, Any]) -> str:
    """`module.Class(name=value,...)`, as kohya's trainer writes it."""
    kind = type(optimizer)
    listed = ",".join(f"{name}={value}" for name, value in arguments.items())
    return f"{kind.__module__}.{kind.__name__}" + (f"({listed})" if listed else "")


def metadata_writer(
    options: Mapping[str, Any],
    declared: Mapping[str, Option],
    model: StableDiffusion,
    dataset: Dataset,
    run: RunFacts,
    title: str,
) -> Callable[[Clock, str], Metadata]:
    """A function that gives the metadata of a file of a kind ("lora", ...) written at the clock's place."""
    base = model_facts(model, options)
    fixed = training_metadata(options, base, dataset_facts(dataset), run, declared)

    def metadata(clock: Clock, kind: str) -> Metadata:
        at = saving_metadata(fixed, epoch=clock.epochs_done, steps=clock.global_step, finished_at=time.time())
        if options["no_metadata"]:
            at = minimum_metadata(at)
        return at | modelspec(
            options,
            base,
            kind=kind,
            title=title,
            resolution=dataset.plan[0].resolution,
            date=datetime.now(),
        )

    return metadata


def fingerprint(
    options: Mapping[str, Any], declared: Mapping[str, Option], model: StableDiffusion, geometry: Geometry
) -> dict[str, Any]:
    """What a state must agree with: the options that decide the result, the base model, and how an epoch is cut.

    The length of the run is not part of it: a run may be resumed to go on for longer.
    """
    return (
        facts_of_options(options, declared)
        | {MODEL: digest_of_weights(model.modules.values()), SOURCE: str(options[PATHS_OF_MODELS[0]])}
        | _facts_of_steps(geometry)
    )


def facts_of_options(options: Mapping[str, Any], declared: Mapping[str, Option]) -> dict[str, Any]:
    """The values of those options that a state is compared by."""
    return {name: by_content(options[name]) for name, option in declared.items() if option.has_result}


def check_settings_of_state(
    state: Path, theirs: Fingerprint, settings: Settings, dataset: Dataset, geometry: Geometry
) -> None:
    """Refuse a state of another configuration, as far as that shows before weights and pictures are read."""
    options = settings.effective()
    if options["seed"] is None:
        options["seed"] = theirs.get("seed")
    ours = facts_of_options(options, settings.options) | _facts_of_steps(geometry) | _facts_of_data(dataset)
    expected = expected_state(settings, ours, data_details(dataset))
    expected.changes(state, {name: theirs[name] for name in ours if name in theirs}, read_details(state))


def expected_state(settings: Settings, ours: Fingerprint, details: Details | None = None) -> Expected:
    """What a run of these settings expects of the state that it goes on from.

    A state that does not tell an option is one of a time without it, in which its default was in use.
    """
    presumed = {
        name: ours[name] if option.recorded_late else by_content(option.default)
        for name, option in settings.options.items()
        if option.has_result and name in ours
    }
    fixed = frozenset(name for name, option in settings.options.items() if option.shapes_tensors)
    return Expected(ours, details or {}, fixed, settings.take(ResumeSpec).resume_with_changes, presumed)


def dataset_fingerprint(dataset: Dataset, validation_seed: int = 0) -> dict[str, Any]:
    """What of the data a state must agree with: not where it lies or when it was copied, but what it holds.

    Held-out pictures and the seed of their noise belong to it: losses on others would not tell which step was best.
    """
    held_out = dataset.validation.samples if dataset.validation else []
    return _facts_of_data(dataset) | {
        PICTURES: _digest_of_samples(_all_samples(dataset), dataset.digests),
        HELD_OUT: _digest_of_samples(held_out, dataset.digests) if held_out else None,
        "validation_seed": validation_seed if held_out else None,
    }


def data_details(dataset: Dataset) -> dict[str, Any]:
    """What the digests of a dataset's fingerprint were made of, so that a difference can be named.

    What pictures hold is part of it once they have been read.
    """
    held_out = dataset.validation.samples if dataset.validation else []
    names = [subset.image_dir.name for spec in dataset.plan for subset in spec.subsets]
    subsets = zip(names, _subset_facts(dataset), strict=True)
    return {
        SUBSETS: [{"folder": name} | {key: str(value) for key, value in facts.items()} for name, facts in subsets],
        PICTURES: _rows_of_pictures(_all_samples(dataset), dataset.digests),
        HELD_OUT: _rows_of_pictures(held_out, dataset.digests),
    }


def _rows_of_pictures(samples: Sequence[Sample], digests: Mapping[Path, str]) -> dict[str, Any]:
    """What is seen of each picture, by the ids of its samples without the repeat."""
    rows: dict[str, Any] = {}
    for sample in samples:
        name, picture = sample.sample_id.rpartition("#")[0] or sample.sample_id, sample.picture
        if name not in rows:
            rows[name] = {
                "content": digests.get(picture.path),
                "mask": file_hash(picture.mask.file) if picture.mask and picture.mask.file else None,
                "bucket": list(picture.choice.bucket),
                "caption": picture.caption,
            }
    return rows


def _subset_facts(dataset: Dataset) -> list[dict[str, Any]]:
    nowhere = dict.fromkeys(PLACES)
    return [asdict(subset) | nowhere for spec in dataset.plan for subset in spec.subsets]


def _all_samples(dataset: Dataset) -> list[Sample]:
    """Those of an epoch, and one of each regularization image whose turn comes in another one."""
    seen = {id(sample.picture) for sample in dataset.samples}
    others = [(name, picture) for name, picture in dataset.named.items() if id(picture) not in seen]
    return [*dataset.samples, *(Sample(name, picture, 0.0) for name, picture in others)]


def _facts_of_data(dataset: Dataset) -> dict[str, Any]:
    """What of the data is known without reading a picture."""
    return {
        SUBSETS: _digest(json.dumps(_subset_facts(dataset), default=str).encode()),
        "samples per epoch": len(dataset.samples),
        "batch sizes": [spec.batch_size for spec in dataset.plan],
    }


def _facts_of_steps(geometry: Geometry) -> dict[str, Any]:
    return {"batches per optimizer step": geometry.parts, "processes": geometry.num_processes}


def digest_of_weights(modules: Iterable[nn.Module]) -> str:
    """A digest of a few elements of every tensor: enough to see another model, without reading gigabytes."""
    some = [tensor.reshape(-1)[:: max(1, tensor.numel() // 8)] for m in modules for tensor in m.parameters()]
    return _digest(torch.cat([elements.detach().float().cpu() for elements in some]).numpy().tobytes())


def _digest_of_samples(samples: Sequence[Sample], digests: Mapping[Path, str]) -> str:
    """A digest of all that is seen in `samples`; a picture that no source of latents has read counts by its length."""
    pictures = {sample.picture.path: sample.picture for sample in samples}
    contents = {path: digests.get(path, picture.stamp.size) for path, picture in pictures.items()}
    masks = {path: file_hash(p.mask.file) for path, p in pictures.items() if p.mask and p.mask.file}
    rows = [
        (s.sample_id, contents[s.picture.path], masks.get(s.picture.path), s.picture.choice.bucket, s.picture.caption)
        for s in samples
    ]
    return _digest(json.dumps(rows).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def by_content(value: Any) -> Any:
    """An option's value; a file that it names is known by what it holds, wherever it lies."""
    if isinstance(value, list):
        return [by_content(item) for item in value]
    if isinstance(value, Path) and value.is_file():
        return CONTENT + file_hash(value)[:16]
    return json.loads(json.dumps(value, default=str))
