"""A network training put together from its settings: each part made by its own file, in the order in which they need
each other."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from library.adapters.metadata import RunFacts
from library.config.datasets import is_described
from library.config.option import Settings
from library.data.batches import Batches
from library.data.caches.text_encoder_cache import captions_in_full, captions_to_come
from library.data.dataset import Dataset
from library.data.keys import seed_generators
from library.data.preflight.in_run import data_event, leaks_of
from library.data.preflight.lengths import about_lengths, count_of
from library.data.sample_order import Geometry, steps_per_epoch
from library.diffusion.loss import LossSpec
from library.diffusion.noise import NoiseSpec
from library.diffusion.rectified_flow import FlowSpec
from library.diffusion.weights import WeightSpec
from library.models.accelerator import accelerator
from library.models.family import StableDiffusion
from library.models.text import TextConditioner, TextEmbeddings, TextSpec
from library.sampling.previews import write_previews
from library.training.callbacks.samples import Previews, PreviewSpec
from library.training.callbacks.validation import Validation, ValidationSpec
from library.training.clock import LengthSpec, new_clock
from library.training.log.header import Opening, images_event
from library.training.log.timing import Stopwatch
from library.training.objectives import NoisePrediction
from library.training.optim.optimizers import OptimizerSpec
from library.training.optim.weight_averages import AverageSpec, about_averages
from library.training.rectified_flow import RectifiedFlow
from library.training.run import Run
from library.training.runtime.environment import Environment, choose_environment
from library.training.runtime.memory import MemorySpec, on_device, place, save_memory
from library.training.runtime.mixed_precision import DTYPES
from library.training.saving.file_names import SavingSpec
from library.training.saving.fingerprint import (
    check_settings_of_state,
    data_details,
    dataset_fingerprint,
    fingerprint,
    metadata_writer,
    optimizer_text,
)
from library.training.setup.assemble import assemble, build_optimizers, check_free_disk, check_rates
from library.training.setup.base_model import BaseModelSpec, LoadModel, load_base_model
from library.training.setup.caching import CacheSpec, latent_source, text_source
from library.training.setup.checks import Checked, runs_text_encoder
from library.training.trainables import Trainable
from library.training.trained.network import NetworkSpec, create_network, merge_base_weights
from library.training.trained.network_trainable import NetworkRates, NetworkTrainable, optimizer_groups
from library.training.trained.placeholder_token import WordSpec, build_word, with_templates
from library.training.trained.plugins import check_length
from library.training.work import BatchSource

logger = logging.getLogger(__name__)

SAVED_AS = {None: None, "float": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def build_run(checked: Checked, load: LoadModel = load_base_model) -> Run:
    """The run, ready for the loop; `say` shows a line worth knowing, `load` gives the base model."""
    settings, dataset, stopwatch = checked.settings, checked.dataset, Stopwatch()
    saving, validation = settings.take(SavingSpec), settings.take(ValidationSpec)
    environment = choose_environment(settings, checked.resumed.fingerprint)
    processes = environment.processes
    if checked.resumed.folder is not None and checked.resumed.fingerprint is not None:
        check_settings_of_state(
            checked.resumed.folder, checked.resumed.fingerprint, settings, dataset, environment.geometry
        )
    steps = steps_per_epoch(dataset, environment.geometry.parts)
    clock = new_clock(settings.take(LengthSpec), steps, resumed=checked.resumed.folder is not None)
    check_rates(settings, clock.total_steps)
    check_length(checked.module, checked.arguments, clock.total_epochs, clock.total_steps)

    with stopwatch.during("load"):
        model = load(settings, processes.device)
        for line in settings.model_notes(model.family.value, model.prediction_type):
            logger.info(line)
        trainables, conditioner = build_trainables(checked, model, environment)
    check_free_disk(saving.output_dir, trainables)
    objective = build_objective(settings, model, conditioner, processes.device)
    objective.tell_timesteps = [trainable.on_timesteps for trainable in trainables]
    with stopwatch.during("cache"):
        batches, held_out = build_batches(checked, model, conditioner, environment, clock.total_steps)
    optimizers, notes = build_optimizers(settings, trainables, clock, processes)
    if model.is_flow:
        logger.info(settings.take(FlowSpec).describe())
    for line in [*model.notes, *notes, *about_averages(settings.take(AverageSpec), optimizers.optimizer)]:
        logger.info(line)

    options: dict[str, Any] = settings.effective() | {"seed": environment.seed}
    facts = RunFacts(
        session_id=environment.session,
        started_at=time.time(),
        num_epochs=clock.total_epochs,
        num_batches_per_epoch=steps,
        max_train_steps=clock.total_steps,
        optimizer=optimizer_text(optimizers.optimizer, settings.take(OptimizerSpec).arguments),
        network_args=checked.arguments,
        network_dim=settings.take(NetworkSpec).network_dim or rank_of(trainables),
        num_processes=processes.count,
        num_validation_images=len(dataset.validation.samples) if dataset.validation else 0,
        datasets_from_config=is_described(settings),
    )
    return assemble(
        settings,
        environment,
        checked.resumed,
        objective=objective,
        trainables=trainables,
        batches=batches,
        clock=clock,
        optimizers=optimizers,
        metadata=metadata_writer(options, settings.options, model, dataset, facts, title=saving.last_stem),
        fingerprint=fingerprint(options, settings.options, model, environment.geometry)
        | dataset_fingerprint(dataset, validation.seed),
        details=data_details(dataset),
        previews=build_previews(checked, model, conditioner, environment),
        validation=Validation(validation, objective, held_out),
        opening=about_data(dataset, conditioner),
        stopwatch=stopwatch,
    )


def about_data(dataset: Dataset, conditioner: TextConditioner) -> Opening:
    """What the log says of the pictures, which are read by now; what spoils a measurement is reported at once."""
    tokenizer = conditioner.model.tokenizers[0]
    lengths = about_lengths(dataset, conditioner.max_token_length, count_of(tokenizer)) if conditioner.truncated else ()
    data = data_event(dataset, list(lengths))
    for line in leaks_of(data):
        logger.info(line)
    return [images_event([(p.path, p.caption) for p in dataset.pictures if not p.subset.is_reg]), data]


def build_objective(
    settings: Settings, model: StableDiffusion, conditioner: TextConditioner, device: torch.device
) -> NoisePrediction | RectifiedFlow:
    """What is minimised, or only measured."""
    noise, distance = settings.take(NoiseSpec), settings.take(LossSpec)

    def encode(captions: list[str]) -> TextEmbeddings:
        return conditioner.encode(captions, grad=True)

    if model.is_flow:
        white = NoiseSpec(immiscible_noise=noise.immiscible_noise)
        return RectifiedFlow(model, encode, device, settings.take(FlowSpec), noise=white, distance=distance)
    weighting = settings.take(WeightSpec)
    return NoisePrediction(model, encode, device, noise=noise, distance=distance, weighting=weighting)


def build_conditioner(spec: TextSpec, model: StableDiffusion) -> TextConditioner:
    """The text encoders as the options on captions ask them."""
    return TextConditioner(model, **spec.keywords)


def build_trainables(
    checked: Checked, model: StableDiffusion, environment: Environment
) -> tuple[list[Trainable], TextConditioner]:
    """What is trained, and the text encoders as they are asked.

    A new word comes before the network: where its vectors start must not depend on a network that is not trained yet.
    """
    settings, module, device = checked.settings, checked.module, environment.processes.device
    save_dtype = SAVED_AS[settings.take(SavingSpec).save_precision]
    trainables: list[Trainable] = []
    lines, spec = [], settings.take(NetworkSpec)
    if module is not None:
        dtype = DTYPES[settings.take(BaseModelSpec).mixed_precision]
        lines += merge_base_weights(module, spec, model, dtype)
    if checked.word is None:
        rows, conditioner = None, build_conditioner(settings.take(TextSpec), model)
    else:
        rows, conditioner = build_word(settings, checked.word, model, device, save_dtype)
        trainables.append(rows)
    lines += save_memory(model, settings.take(MemorySpec), device, train_text_encoder=runs_text_encoder(checked))
    for line in lines:
        logger.info(line)
    if module is not None:
        network = build_network(settings, module, checked.arguments, model, environment)
        network.start_step = spec.network_start_step
        trainables.append(network)
        if rows is not None:
            rows.save_beside(network, bundled=settings.take(WordSpec).bundle_embeddings)
    return trainables, conditioner


def rank_of(trainables: list[Trainable]) -> int | None:
    """The rank in use of the network, if there is one."""
    return next((trainable.rank for trainable in trainables if isinstance(trainable, NetworkTrainable)), None)


def build_batches(
    checked: Checked,
    model: StableDiffusion,
    conditioner: TextConditioner,
    environment: Environment,
    run_length: int,
) -> tuple[BatchSource, BatchSource | None]:
    """Batches of cached (or live) latents and embeddings, and those of the pictures that are held out, if any are; what
    no step needs of the model leaves the device."""
    settings, dataset, processes = checked.settings, checked.dataset, environment.processes
    train_text = runs_text_encoder(checked)
    caches, memory = settings.take(CacheSpec), settings.take(MemorySpec)
    output_dir = settings.take(SavingSpec).output_dir
    device, keep = processes.device, memory.highvram
    # With lowram the device has more memory than the computer: the U-Net stays on it while the others work.
    place(model, device, unet=memory.lowram, keep_reserved=keep)
    latents, lines = latent_source(caches, dataset, model, processes, output_dir)
    text = None
    if not train_text:
        place(model, device, unet=memory.lowram, text_encoders=True, keep_reserved=keep)
        with torch.no_grad(), environment.precision.autocast():
            text, more = text_source(caches, dataset, conditioner, output_dir, show=processes.is_main)
        lines += more
    text_encoders = train_text or captions_to_come(dataset) is None
    place(model, device, text_encoders=text_encoders, keep_reserved=keep)
    for line in [*dataset.warnings, *lines]:
        logger.info(line)
    conditioner.tokens(captions_in_full(dataset))  # those that are made anew in each epoch were not seen yet
    if conditioner.truncated:
        logger.info(
            f"{conditioner.truncated} captions are longer than {conditioner.max_token_length} tokens and are cut there"
        )
    batches = Batches(
        dataset,
        latents,
        text,
        seed=environment.seed,
        geometry=environment.geometry,
        workers=caches.max_data_loader_n_workers,
        pin=accelerator(device) is not None,
        total_steps=run_length,
    )
    held_out = None
    if dataset.validation is not None:
        held_out = Batches(
            dataset.validation,
            latents,
            text,
            seed=settings.take(ValidationSpec).seed,
            geometry=Geometry(1, processes.count, processes.index),
            workers=caches.max_data_loader_n_workers,
            pin=accelerator(device) is not None,
        )
    if checked.word is None:
        return batches, held_out
    return with_templates(settings, batches, dataset), held_out and with_templates(settings, held_out, dataset)


ROUNDED = {
    "full_fp16": (
        "full_fp16: in float16 the optimizer's averages of small gradients are 0, and steps come out far too large or "
        "NaN; leave it out, mixed_precision = fp16 alone keeps the network and its averages in float32"
    ),
    "full_bf16": (
        "full_bf16: an update below about a 500th of its weight rounds to nothing; without it, mixed_precision = bf16 "
        "alone keeps the network and its averages in float32"
    ),
}
"""What networks whose weights are not in float32 cannot learn."""


def build_network(
    settings: Settings,
    module: ModuleType,
    arguments: dict[str, str],
    model: StableDiffusion,
    environment: Environment,
) -> NetworkTrainable:
    """The network on the model, on its device, as a trainable of the loop. `arguments` are those of `network_args`."""
    processes = environment.processes
    spec, memory, saving = settings.take(NetworkSpec), settings.take(MemorySpec), settings.take(SavingSpec)
    # A network's initial weights come from torch's generator: the same seed gives the same start on every process.
    seed_generators(environment.seed)
    network = create_network(module, spec, arguments, model, settings.namespace())
    groups, names = optimizer_groups(network, *settings.take(NetworkRates).as_arguments)
    full = DTYPES["fp16"] if memory.full_fp16 else DTYPES["bf16"] if memory.full_bf16 else None
    network.to(device=processes.device, dtype=full)
    if full is not None:
        logger.info(ROUNDED["full_fp16" if memory.full_fp16 else "full_bf16"])
    trainable = NetworkTrainable(
        network,
        groups,
        names,
        model,
        processes.device,
        save_dtype=SAVED_AS[saving.save_precision],
        scale_weight_norms=spec.scale_weight_norms,
    )
    if processes.is_main and not hasattr(module, "OPTIONS"):  # a module that was written for another trainer
        trainable.save_on_trial(saving.output_dir, saving.extension)
    return trainable


def build_previews(
    checked: Checked, model: StableDiffusion, conditioner: TextConditioner, environment: Environment
) -> Previews:
    """Sample pictures of the prompts, drawn with everything on the device for as long as it takes."""
    spec, saving = checked.settings.take(PreviewSpec), checked.settings.take(SavingSpec)
    folder = saving.output_dir / "sample"
    highvram = checked.settings.take(MemorySpec).highvram

    def draw(epoch: int | None, step: int) -> list[Path]:
        with on_device(model, environment.processes.device, keep_reserved=highvram):
            return write_previews(
                model,
                conditioner,
                checked.prompts,
                folder,
                output_name=saving.output_name,
                epoch=epoch,
                step=step,
                run_seed=environment.seed,
                sampler=spec.sample_sampler,
                vae_dtype=model.vae.dtype,
            )

    return Previews(spec, draw if checked.prompts else None, saving.sheet)
