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
from library.config.option import Settings
from library.data.dataset import Dataset, Sample
from library.data.sample_order import Geometry
from library.files import file_hash
from library.models.family import StableDiffusion
from library.training.clock import Clock
from library.training.saving.resume import read_details
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

# Options that decide what the remaining steps do. Others, such as how often is saved, may change at a resume. The base
# model is known by its weights, wherever it lies.
DECISIVE = (
    *("seed", "mixed_precision", "full_fp16", "full_bf16", "clip_skip"),
    *("fp8_base", "fp8_base_unet"),
    *("network_module", "network_dim", "network_alpha", "network_args", "network_dropout", "scale_weight_norms"),
    *("network_train_unet_only", "network_train_text_encoder_only", "unet_lr", "text_encoder_lr", "learning_rate"),
    *("optimizer_type", "optimizer_args", "max_grad_norm", "max_token_length", "min_timestep", "max_timestep"),
    *("lr_scheduler", "lr_warmup_steps", "lr_scheduler_num_cycles", "lr_scheduler_power", "lr_scheduler_args"),
    *("lr_decay_steps", "lr_scheduler_timescale", "lr_scheduler_min_lr_ratio", "network_weights", "base_weights"),
    *("token_string", "num_vectors_per_token", "init_word", "weights", "embedding_initializer", "initializer_args"),
    *("embedding_lr", "reg_weight", "embedding_start_step", "embedding_stop_step", "network_start_step"),
    *("use_object_template", "use_style_template", "caption_template", "lr_scheduler_type", "weighted_captions"),
    *("v_parameterization", "prior_loss_weight", "loss_type", "huber_schedule", "huber_c", "huber_scale"),
    *("min_snr_gamma", "scale_v_pred_loss_like_noise_pred", "v_pred_like_loss", "debiased_estimation_loss"),
    *("noise_offset", "noise_offset_random_strength", "adaptive_noise_scale", "zero_terminal_snr"),
    *("flow_model", "flow_timestep_distribution", "flow_logit_mean", "flow_logit_std", "flow_uniform_static_ratio"),
    *("flow_uniform_shift", "flow_uniform_base_pixels", "flow_use_ot", "contrastive_flow_matching", "cfm_lambda"),
    *("vae_custom_scale", "vae_custom_shift", "vae_reflection_padding", "immiscible_noise"),
    *("ema_decay", "ema_update_every", "ema_validate"),
    *("multires_noise_iterations", "multires_noise_discount", "ip_noise_gamma", "ip_noise_gamma_random_strength"),
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
    """The datasets as metadata describes them, with the captions as they stand in their files."""
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
    options: Mapping[str, Any], model: StableDiffusion, dataset: Dataset, run: RunFacts, title: str
) -> Callable[[Clock, str], Metadata]:
    """A function that gives the metadata of a file of a kind ("lora", ...) written at the clock's place."""
    base = model_facts(model, options)
    fixed = training_metadata(options, base, dataset_facts(dataset), run)

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
    options: Mapping[str, Any], decisive: Sequence[str], model: StableDiffusion, geometry: Geometry
) -> dict[str, Any]:
    """What a state must agree with: the `decisive` options, the base model, and how an epoch is cut.

    The length of the run is not part of it: a run may be resumed to go on for longer.
    """
    return (
        {name: _by_content(options[name]) for name in decisive}
        | {MODEL: digest_of_weights(model.modules.values()), SOURCE: str(options[PATHS_OF_MODELS[0]])}
        | _facts_of_steps(geometry)
    )


def check_settings_of_state(
    state: Path, theirs: Fingerprint, settings: Settings, dataset: Dataset, geometry: Geometry
) -> None:
    """Refuse a state of another configuration, as far as that shows before weights and pictures are read."""
    options = settings.effective()
    if options["seed"] is None:
        options["seed"] = theirs.get("seed")
    ours = {name: _by_content(options[name]) for name in DECISIVE} | _facts_of_steps(geometry) | _facts_of_data(dataset)
    expected = expected_state(settings, ours, data_details(dataset))
    expected.changes(state, {name: theirs.get(name) for name in ours}, read_details(state))


def expected_state(settings: Settings, ours: Fingerprint, details: Details | None = None) -> Expected:
    """What a run of these settings expects of the state that it goes on from."""
    fixed = frozenset(name for name, option in settings.options.items() if option.shapes_tensors)
    return Expected(ours, details or {}, fixed, bool(settings["resume_with_changes"]))


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
    nowhere = {"image_dir": None, "metadata_file": None, "conditioning_data_dir": None}
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


def _by_content(value: Any) -> Any:
    """An option's value; a file that it names is known by what it holds, wherever it lies."""
    if isinstance(value, list):
        return [_by_content(item) for item in value]
    if isinstance(value, Path) and value.is_file():
        return CONTENT + file_hash(value)[:16]
    return json.loads(json.dumps(value, default=str))
