"""A pivot put together from its settings, out of the parts that every training here is made of."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from library.config.option import Settings
from library.diffusion.noise import NoiseSpec
from library.files import file_hash
from library.training.clock import Clock
from library.training.log.header import images_event
from library.training.log.timing import Stopwatch
from library.training.run import Run
from library.training.runtime.environment import Environment, choose_environment
from library.training.runtime.memory import place
from library.training.saving.fingerprint import digest_of_weights, fingerprint
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
from restoration.options import TEXT, degradation_of, settings_of
from restoration.pivots.batches import Latents, RestorationBatches
from restoration.pivots.header import constant_header, metadata_writer
from restoration.pivots.memory_budget import budget, count_of
from restoration.pivots.objective import Restoration, text_timesteps
from restoration.pivots.person import People, Person, base_mark, class_prompt_of, give_weights
from restoration.pivots.pivot import MARK, decided_by, person_file
from restoration.pivots.samples import build_previews
from restoration.pivots.trainable import build_trainable, freeze, network_plugin, untrained
from restoration.pivots.training_pictures import TrainingPictures, find_training_pictures
from restoration.restoring.sampling import lowest_noise_timesteps
from restoration.system.cleaner import load_cleaner
from restoration.system.load import Restorer, load_named_restorer
from restoration.system.system import System

logger = logging.getLogger(__name__)


def build_pivot(settings: Settings, pivot: str) -> Run:
    """The run of one pivot, ready for the loop. `settings` are those of the whole command."""
    file_of_g, mark = person_file(settings), decided_by(settings, pivot)
    settings = settings_of(settings, pivot)
    plugin = network_plugin(settings) if pivot == TEXT and settings["network_module"] else None
    resumed = check_surroundings(settings)
    check_rates(settings, settings["max_train_steps"])
    environment, stopwatch = choose_environment(settings, resumed.fingerprint), Stopwatch()
    with stopwatch.during("load"):
        restorer = load_named_restorer(settings)
    system, model = restorer.system, restorer.system.model
    person = person_of(settings, base_mark(model.unet))
    side = settings["resolution"] or model.native_size
    pictures = find_training_pictures(settings, pivot, model, person, side, environment)
    people = People(model, pictures.people, settings["network_module"])
    if pivot != TEXT and not pictures.people:
        give_weights(model, file_of_g, settings["network_module"])

    trainable = build_trainable(settings, pivot, system, plugin, environment)
    check_free_disk(settings["output_dir"], [trainable])
    latents = build_latents(settings, restorer, side, environment)
    batches = build_batches(settings, system, pictures, latents, environment)
    clock = Clock(batches.steps_per_epoch, settings["max_train_steps"])
    if settings["cache_conditions"]:
        with stopwatch.during("cache"):
            latents.prepare(batches.visits(_position(resumed), clock.total_steps), environment.processes.is_main)
    place(model, environment.processes.device, vae=not settings["cache_conditions"], text_encoders=False)
    freeze(system, trainable, environment)

    optimizers, notes = build_optimizers(settings, [trainable], clock, environment.processes)
    for line in [*restorer.notes, *notes, *describe(settings, pivot, system, trainable, pictures, environment)]:
        logger.info(line)

    def written_mark() -> dict[str, str]:
        """A pivot that moved nothing is never taken for a finished one."""
        return {MARK: mark} if trainable.findings().moved else {}

    objective = build_objective(settings, pivot, system, environment, people)
    objective.tell_timesteps = [trainable.on_timesteps]
    header = constant_header(settings, pivot, model, optimizers)
    return assemble(
        settings,
        environment,
        resumed,
        objective=objective,
        trainables=[trainable],
        batches=batches,
        clock=clock,
        optimizers=optimizers,
        metadata=metadata_writer(settings, person, pictures, header, environment, written_mark),
        fingerprint=fingerprint_of(settings, pivot, system, pictures, environment),
        rates={f"{pivot}_learning_rate": settings["learning_rate"]},
        previews=build_previews(settings, system, latents, pictures.faces, person.prompt, environment.processes.device),
        opening=[images_event([(face.path, face.prompt) for face in pictures.faces])],
        stopwatch=stopwatch,
    )


def person_of(settings: Settings, base: str) -> Person:
    """The person as the options describe them."""
    prompt, token = settings["prompt"], settings["token"]
    class_prompt = class_prompt_of(prompt, token)
    return Person(prompt, settings["class_prompt"] or class_prompt, token, settings["gamma"], base)


def build_latents(settings: Settings, restorer: Restorer, side: int, environment: Environment) -> Latents:
    """What becomes of a face: damaged, cleaned by R, and encoded, at `side` pixels."""
    model, device = restorer.system.model, environment.processes.device
    return Latents(
        VaeEncoder(model, device),
        load_cleaner(settings["cleaner"], device, restorer.cleaner),
        degradation_of(settings).for_size(side),
        model.scaling_factor,
        side,
        environment.seed,
    )


def build_batches(
    settings: Settings, system: System, pictures: TrainingPictures, latents: Latents, environment: Environment
) -> RestorationBatches:
    """Which faces make which step, each with what G reads for it."""
    texts = {face.prompt: system.text([face.prompt])[0] for face in [*pictures.faces, *pictures.prior]}
    return RestorationBatches(
        pictures.faces,
        pictures.prior,
        latents,
        texts,
        seed=environment.seed,
        batch_size=settings["train_batch_size"],
        geometry=environment.geometry,
        prior_loss_weight=settings["prior_loss_weight"],
    )


def build_objective(
    settings: Settings, pivot: str, system: System, environment: Environment, people: People
) -> Restoration:
    low, high = settings["min_timestep"], settings["max_timestep"]
    if pivot == TEXT:
        return Restoration(
            system,
            environment.processes.device,
            noise=text_timesteps(settings["gamma"], low, high),
            in_context=settings["in_context"],
        )
    null = lowest_noise_timesteps(settings["gamma"]) if settings["high_noise_text"] == "null" else None
    return Restoration(
        system,
        environment.processes.device,
        noise=NoiseSpec(min_timestep=low, max_timestep=high),
        trains_encoder=True,
        null_above=null,
        before=people.show,
    )


def fingerprint_of(
    settings: Settings, pivot: str, system: System, pictures: TrainingPictures, environment: Environment
) -> dict[str, Any]:
    """What a state must agree with to be gone on from."""
    options: dict[str, Any] = settings.values | {"seed": environment.seed}
    if options["cleaner"] and Path(options["cleaner"]).is_file():
        options["cleaner"] = Path(options["cleaner"])  # a file and not a name: its content counts
    return fingerprint(options, settings.options, system.model, environment.geometry) | {
        "learning_rate": options["learning_rate"],  # the pivot's own
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
    low, high = settings["min_timestep"] or 0, settings["max_timestep"]
    high = high or (lowest_noise_timesteps(settings["gamma"]) if pivot == TEXT else 1000)
    needed = budget(
        trained,
        others,
        eight_bit="8bit" in (settings["optimizer_type"] or "").lower(),
        half=environment.precision.dtype != torch.float32,
    )
    prior = f" and {len(pictures.prior)} of the prior" if pictures.prior else ""
    return [
        f"step {1 if pivot == TEXT else 2} ({pivot} pivot): {len(pictures.faces)} pictures{prior}; "
        f"{number:,} parameters are trained, {sum(map(count_of, others)):,} frozen; timesteps {low} to {high - 1}",
        f"this needs {needed}",
    ]


def _position(resumed: Resumed) -> int:
    return read_position(resumed.folder) if resumed.folder else 0
