"""What a run would do, found out without loading a model or writing a file: `--plan`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from library.config.dataset_specs import DatasetPlan
from library.config.option import Settings
from library.data.dataset import Dataset
from library.data.preflight.findings import Finding
from library.data.preflight.header_checks import found_at_hand
from library.data.sample_order import Geometry, steps_per_epoch
from library.models.family import Family
from library.models.skeleton import model_configs
from library.models.standard import Configs
from library.sampling.prompts import SamplePrompt
from library.training.callbacks.report import ReportSpec
from library.training.callbacks.samples import PreviewSpec
from library.training.callbacks.validation import Validation, ValidationSpec
from library.training.clock import Clock, LengthSpec, new_clock
from library.training.optim.weight_averages import AverageSpec
from library.training.plan.files import Kept, PlannedFile, Sizes, planned_files
from library.training.plan.memory import (
    Habits,
    MemoryParts,
    Surroundings,
    case_of,
    habits_of,
    held_in_caches,
    held_while_loading,
    latents_of,
)
from library.training.plan.network import NetworkShape, average_bytes, count_network
from library.training.runtime.distributed import Processes
from library.training.runtime.environment import EnvironmentSpec, choose_geometry
from library.training.runtime.mixed_precision import DTYPES
from library.training.saving.file_names import SavingSpec
from library.training.saving.fingerprint import check_settings_of_state
from library.training.saving.resume import read_course, read_position
from library.training.setup.assemble import check_disk, check_rates
from library.training.setup.base_model import BaseModelSpec
from library.training.setup.caching import CacheSpec
from library.training.setup.checks import Checked, check_before_loading
from library.training.trained.placeholder_token import WordSpec
from library.training.trained.plugins import check_length

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """Everything that `--plan` shows."""

    settings: Settings
    family: Family
    dataset: Dataset
    clock: Clock  # at the place where the run begins
    resumed: Path | None  # the state that it goes on from
    geometry: Geometry
    prompts: Sequence[SamplePrompt]
    network: NetworkShape | None
    vectors: int  # numbers of a new word's vectors
    parts: MemoryParts | None  # None where a step cannot be counted; `uncounted` says why
    uncounted: str
    habits: Habits
    around: Surroundings
    files: Sequence[PlannedFile]
    findings: Sequence[Finding]  # what a look at the pictures found without opening one


def make_plan(settings: Settings, datasets: DatasetPlan) -> Plan:
    """Look at the options, the pictures' and the model's headers, and count. Raises `UserError` as a run would."""
    libraries = psutil.Process().memory_info().rss
    base, output_dir = settings.take(BaseModelSpec), settings.take(SavingSpec).output_dir
    model_path = Path(base.pretrained_model_name_or_path)
    family, configs = model_configs(model_path)
    for line in settings.model_notes(family.value, base.prediction):
        logger.info(line)
    checked = check_before_loading(settings, datasets, tidy=False)
    dataset, resumed = checked.dataset, checked.resumed.folder
    geometry, clock = place_of(checked)
    counted, shape, uncounted = count_network(checked, case_of(checked, family, configs))
    vectors = vectors_of(settings.take(WordSpec), configs)
    word_bytes = 4 * vectors
    check_disk(output_dir, (shape.trained_bytes if shape else 0) + word_bytes)
    parts = None
    if counted is not None:
        optimizer = (shape.optimizer_bytes if shape else 0) + 2 * word_bytes
        if settings.take(AverageSpec).ema_device != "cpu":
            optimizer += (shape.average_bytes if shape else 0) + average_bytes(settings, vectors)
        beside = (counted.encode, counted.decode)
        model = (counted.unet, counted.vae, counted.text_encoders)
        parts = MemoryParts(*model, counted.network + word_bytes, optimizer, counted.step, *beside)
    loading = held_while_loading(model_path, parts.model if parts else 0, DTYPES[base.mixed_precision])
    return Plan(
        settings,
        family,
        dataset,
        clock,
        resumed,
        geometry,
        checked.prompts,
        shape,
        vectors,
        parts,
        uncounted,
        habits_of(checked, settings),
        Surroundings(libraries, held_in_caches(checked, settings, configs), loading),
        list(files_of(checked, clock, shape, word_bytes)),
        found_at_hand(dataset),
    )


def place_of(checked: Checked) -> tuple[Geometry, Clock]:
    """How a global batch is split, and where the run begins: anew, or where its state was written.

    Raises `UserError` where the state is of another configuration, as far as that shows without weights and pictures.
    """
    settings, folder, fingerprint = checked.settings, checked.resumed.folder, checked.resumed.fingerprint
    processes = Processes(count=int(os.environ.get("WORLD_SIZE", "1")))
    geometry = choose_geometry(settings.take(EnvironmentSpec).gradient_accumulation_steps, processes, fingerprint)
    steps = steps_per_epoch(checked.dataset, geometry.parts)
    clock = new_clock(settings.take(LengthSpec), steps, resumed=folder is not None)
    check_rates(settings, clock.total_steps)
    check_length(checked.module, checked.arguments, clock.total_epochs, clock.total_steps)
    if folder is not None and fingerprint is not None:
        check_settings_of_state(folder, fingerprint, settings, checked.dataset, geometry)
        clock.global_step = read_position(folder)
        validation = Validation(settings.take(ValidationSpec))
        validation.load_state_dict(read_course(folder))
        if validation.has_seen_enough and not clock.finished:
            clock.end_here()
    return geometry, clock


def files_of(checked: Checked, clock: Clock, shape: NetworkShape | None, word_bytes: int) -> Iterator[PlannedFile]:
    """What the run will write; `word_bytes` are those of a new word's vectors, 0 for none."""
    settings = checked.settings
    sizes = Sizes(
        network=shape.file_bytes if shape else None,
        word=word_bytes or None,
        state=(shape.state_bytes + shape.optimizer_bytes + shape.average_bytes if shape else 0)
        + 4 * word_bytes
        + average_bytes(settings, word_bytes // 4),
    )
    validation = settings.take(ValidationSpec)
    kept = Kept(
        best=validation.save_best and checked.dataset.validation is not None,
        average=settings.take(AverageSpec).is_on,
        ended_early=validation.early_stop,
        page=settings.take(ReportSpec).report,
        pictures=len(checked.prompts),
        latents=latents_of(checked.dataset) if settings.take(CacheSpec).cache_latents_to_disk else (),
    )
    return planned_files(settings.take(SavingSpec), settings.take(PreviewSpec), clock, sizes, kept)


def vectors_of(spec: WordSpec, configs: Configs) -> int:
    """Numbers that a new word's vectors have, in all text encoders together."""
    return spec.numbers(config["hidden_size"] for name, config in configs.items() if name.startswith("text_encoder"))
