"""A pivot put together from its settings, out of the parts that every training here is made of."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from library.config.option import Settings
from library.files import file_hash
from library.training.callbacks.samples import PreviewSpec
from library.training.clock import Clock
from library.training.log.header import images_event
from library.training.log.timing import Stopwatch
from library.training.optim.optimizers import OptimizerSpec
from library.training.run import Run
from library.training.runtime.environment import Environment, choose_environment
from library.training.runtime.memory import place
from library.training.saving.file_names import SavingSpec
from library.training.saving.fingerprint import digest_of_weights, fingerprint, optimizer_text
from library.training.saving.resume import read_position
from library.training.setup.assemble import (
    Resumed,
    assemble,
    build_optimizers,
    check_free_disk,
    check_rates,
    check_surroundings,
)
from library.training.setup.caching import VaeEncoder
from library.training.trainables import Trainable
from restoration.damage.ranges import Degradation
from restoration.options import TEXT, degradation_of, settings_of
from restoration.pivots.batches import Latents, RestorationBatches
from restoration.pivots.header import HeaderSpec, constant_header, metadata_writer
from restoration.pivots.memory_budget import budget, count_of
from restoration.pivots.objective import Restoration, RestorationSpec
from restoration.pivots.person import People, PersonSpec, base_mark, give_weights
from restoration.pivots.pivot import MARK, PivotSpec, decided_by, person_file
from restoration.pivots.samples import RestorationPreviewSpec, build_previews
from restoration.pivots.trainable import build_trainable, freeze, network_plugin, untrained
from restoration.pivots.training_pictures import PictureSpec, TrainingPictures, find_training_pictures
from restoration.system.cleaner import load_cleaner
from restoration.system.load import Restorer, load_named_restorer
from restoration.system.system import System

logger = logging.getLogger(__name__)


def build_pivot(settings: Settings, pivot: str) -> Run:
    """The run of one pivot, ready for the loop. `settings` are those of the whole command."""
    file_of_g, mark = person_file(settings), decided_by(settings, pivot)
    settings = settings_of(settings, pivot)
    spec, saving = settings.take(PivotSpec), settings.take(SavingSpec)
    plugin = network_plugin(spec) if pivot == TEXT else None
    resumed = check_surroundings(settings)
    check_rates(settings, spec.max_train_steps)
    environment, stopwatch = choose_environment(settings, resumed.fingerprint), Stopwatch()
    with stopwatch.during("load"):
        restorer = load_named_restorer(settings)
    system, model = restorer.system, restorer.system.model
    person = settings.take(PersonSpec).person(base_mark(model.unet))
    side = spec.resolution or model.native_size
    pictures = find_training_pictures(settings.take(PictureSpec), pivot, model, person, side, environment)
    people = People(model, pictures.people, spec.network_module)
    if pivot != TEXT and not pictures.people:
        give_weights(model, file_of_g, spec.network_module)

    trainable = build_trainable(settings, pivot, system, plugin, environment)
    check_free_disk(saving.output_dir, [trainable])
    latents = build_latents(spec.cleaner, degradation_of(settings), restorer, side, environment)
    batches = build_batches(spec, system, pictures, latents, environment)
    clock = Clock(batches.steps_per_epoch, spec.max_train_steps)
    if spec.cache_conditions:
        with stopwatch.during("cache"):
            latents.prepare(batches.visits(_position(resumed), clock.total_steps), environment.processes.is_main)
    place(model, environment.processes.device, vae=not spec.cache_conditions, text_encoders=False)
    freeze(system, trainable, environment)

    optimizers, notes = build_optimizers(settings, [trainable], clock, environment.processes)
    for line in [*restorer.notes, *notes, *describe(settings, pivot, system, trainable, pictures, environment)]:
        logger.info(line)

    def written_mark() -> dict[str, str]:
        """A pivot that moved nothing is never taken for a finished one."""
        return {MARK: mark} if trainable.findings().moved else {}

    objective = build_objective(settings.take(RestorationSpec), pivot, system, environment, people)
    objective.tell_timesteps = [trainable.on_timesteps]
    facts = settings.take(HeaderSpec)
    optimizer = optimizer_text(optimizers.optimizer, settings.take(OptimizerSpec).arguments)
    header = constant_header(facts, pivot, model, optimizer)
    return assemble(
        settings,
        environment,
        resumed,
        objective=objective,
        trainables=[trainable],
        batches=batches,
        clock=clock,
        optimizers=optimizers,
        metadata=metadata_writer(facts, person, pictures, header, environment, written_mark),
        fingerprint=fingerprint_of(settings, pivot, system, pictures, environment),
        rates={f"{pivot}_learning_rate": spec.learning_rate},
        previews=build_previews(
            settings.take(RestorationPreviewSpec),
            settings.take(PreviewSpec),
            saving,
            system,
            latents,
            pictures.faces,
            person.prompt,
            environment.processes.device,
        ),
        opening=[images_event([(face.path, face.prompt) for face in pictures.faces])],
        stopwatch=stopwatch,
    )


def build_latents(
    cleaner: str | None, degradation: Degradation, restorer: Restorer, side: int, environment: Environment
) -> Latents:
    """What becomes of a face: damaged, cleaned by R, and encoded, at `side` pixels."""
    model, device = restorer.system.model, environment.processes.device
    return Latents(
        VaeEncoder(model, device),
        load_cleaner(cleaner, device, restorer.cleaner),
        degradation.for_size(side),
        model.scaling_factor,
        side,
        environment.seed,
    )


def build_batches(
    spec: PivotSpec, system: System, pictures: TrainingPictures, latents: Latents, environment: Environment
) -> RestorationBatches:
    """Which faces make which step, each with what G reads for it."""
    texts = {face.prompt: system.text([face.prompt])[0] for face in [*pictures.faces, *pictures.prior]}
    return RestorationBatches(
        pictures.faces,
        pictures.prior,
        latents,
        texts,
        seed=environment.seed,
        batch_size=spec.train_batch_size,
        geometry=environment.geometry,
        prior_loss_weight=spec.prior_loss_weight,
    )


def build_objective(
    spec: RestorationSpec, pivot: str, system: System, environment: Environment, people: People
) -> Restoration:
    device = environment.processes.device
    if pivot == TEXT:
        return Restoration(system, device, noise=spec.text_timesteps, in_context=spec.in_context)
    return Restoration(
        system,
        device,
        noise=spec.model_timesteps,
        trains_encoder=True,
        null_above=spec.null_above,
        before=people.show,
    )


def fingerprint_of(
    settings: Settings, pivot: str, system: System, pictures: TrainingPictures, environment: Environment
) -> dict[str, Any]:
    """What a state must agree with to be gone on from."""
    spec, options = settings.take(PivotSpec), settings.values | {"seed": environment.seed}
    if spec.cleaner and Path(spec.cleaner).is_file():
        options |= {"cleaner": Path(spec.cleaner)}  # a file and not a name: its content counts
    return fingerprint(options, settings.options, system.model, environment.geometry) | {
        "learning_rate": spec.learning_rate,  # the pivot's own
        "weights of E": digest_of_weights([system.encoder]) if pivot == TEXT else None,
        "pictures": {face.sample_id: file_hash(face.path) for face in [*pictures.faces, *pictures.prior]},
    }


def describe(
    settings: Settings,
    pivot: str,
    system: System,
    trainable: Trainable,
    pictures: TrainingPictures,
    environment: Environment,
) -> list[str]:
    """What will be trained on what, and what it needs, for people to read before it begins."""
    trained = trainable.parameters
    number = sum(tensor.numel() for tensor in trained)
    others = untrained(system, trainable)
    loss = settings.take(RestorationSpec)
    timesteps = loss.text_timesteps if pivot == TEXT else loss.model_timesteps
    needed = budget(
        trained,
        others,
        eight_bit="8bit" in settings.take(OptimizerSpec).name.lower(),
        half=environment.precision.dtype != torch.float32,
    )
    prior = f" and {len(pictures.prior)} of the prior" if pictures.prior else ""
    return [
        f"step {1 if pivot == TEXT else 2} ({pivot} pivot): {len(pictures.faces)} pictures{prior}; "
        f"{number:,} parameters are trained, {sum(map(count_of, others)):,} frozen; "
        f"timesteps {timesteps.min_timestep or 0} to {(timesteps.max_timestep or 1000) - 1}",
        f"this needs {needed}",
    ]


def _position(resumed: Resumed) -> int:
    return read_position(resumed.folder) if resumed.folder else 0
