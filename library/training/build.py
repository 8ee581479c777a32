"""A network training put together from its settings: each part made by its own room, in the order in which they need
each other."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from library.adapters.metadata import RunFacts
from library.adapters.modelspec import thumbnail
from library.atomic import sweep_temporaries
from library.config.datasets import DatasetPlan
from library.config.option import Settings
from library.config.values import split_key_values
from library.data.batches import Batches
from library.data.dataset import Dataset
from library.data.dataset import build as build_dataset
from library.data.order import Geometry
from library.data.text_cache import captions_to_come
from library.errors import UserError, raise_all
from library.files import check_free_space, check_writable
from library.models.family import StableDiffusion
from library.models.load import load_model
from library.models.text import TextConditioner
from library.sampling.previews import write_previews
from library.sampling.prompts import SamplePrompt, read_prompts
from library.training.checkpoints import Checkpoints, state_to_resume
from library.training.clock import Clock, total_steps
from library.training.description import fingerprint, metadata_writer, optimizer_text
from library.training.file_names import SavingSpec, check_names
from library.training.guard import Guard
from library.training.journal import Journal
from library.training.lock import OutputLock
from library.training.memory import MemorySpec, checkpoint_gradients, choose_attention, on_device, place
from library.training.network import NetworkSpec, NetworkTrainable, create_network, merge_base_weights, optimizer_groups
from library.training.objectives import NoisePrediction
from library.training.optimizers import Optimizers, OptimizerSpec, create_optimizer, optimizer_class
from library.training.plugins import check_arguments, import_plugin
from library.training.precision import DTYPES, Precision
from library.training.previews import Previews, PreviewSpec
from library.training.processes import CPU, Processes, start_processes
from library.training.run import Run
from library.training.schedules import ScheduleSpec, learning_rate_multiplier, parse_arguments
from library.training.signals import Signals
from library.training.sources import CacheSpec, latent_source, text_source
from library.training.state import Fingerprint, read_fingerprint
from library.training.trackers import TrackerSpec, check_trackers, create_trackers

SAVED_AS = {None: None, "float": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Checked:
    """What a run is made of, as far as it is known to be good before a model is loaded."""

    settings: Settings
    module: ModuleType
    arguments: dict[str, str]
    dataset: Dataset
    prompts: list[SamplePrompt]
    resume: Path | None
    resumed: Fingerprint | None


def check_before_loading(settings: Settings, plan: DatasetPlan, say: Callable[[str], None]) -> Checked:
    """Everything that can be wrong and takes no model to find out. Raises `UserError`."""
    saving = settings.take(SavingSpec)
    raise_all(check_writable(saving.output_dir))
    sweep_temporaries(saving.output_dir)
    module = import_plugin(settings["network_module"], "network_module", ("create_network",))
    arguments = split_key_values(settings["network_args"])
    check_arguments(module, arguments, "network_args")
    parse_arguments(settings["optimizer_args"] or (), "optimizer_args")
    optimizer_class(settings["optimizer_type"], CPU)
    if settings["metadata_thumbnail"]:
        thumbnail(settings["metadata_thumbnail"])
    prompts = read_prompts(settings["sample_prompts"]) if settings["sample_prompts"] else []
    for line in [line for prompt in prompts for line in prompt.warnings]:
        say(line)
    resume = state_to_resume(saving, settings["resume"], say)
    check_names(saving)
    check_trackers(settings.take(TrackerSpec))
    dataset = build_dataset(plan, prior_loss_weight=settings["prior_loss_weight"], fallback=saving.output_dir)
    resumed = read_fingerprint(resume) if resume else None
    return Checked(settings, module, arguments, dataset, prompts, resume, resumed)


def build_run(checked: Checked, say: Callable[[str], None]) -> Run:
    """The run, ready for the loop; `say` shows a line worth knowing."""
    settings, dataset = checked.settings, checked.dataset
    processes = start_processes()
    seed = choose_seed(settings["seed"], checked.resumed, processes)
    options: dict[str, Any] = settings.effective() | {"seed": seed}
    saving, memory = settings.take(SavingSpec), settings.take(MemorySpec)
    precision = Precision(settings["mixed_precision"], processes.device, scale_loss=False if memory.full_fp16 else None)
    geometry = choose_geometry(settings["gradient_accumulation_steps"], processes, checked.resumed, say)

    model = load_base_model(settings, say)
    trainable = build_network(checked, model, seed, processes, say)
    raise_all(check_free_space(saving.output_dir, need_on_disk(trainable)))

    conditioner = TextConditioner(model, clip_skip=settings["clip_skip"], max_token_length=settings["max_token_length"])
    train_text = trains_text_encoder(settings)
    place(model, processes.device, vae=False, text_encoders=True)
    caches = settings.take(CacheSpec)
    latents, lines = latent_source(caches, dataset, model, processes, saving.output_dir)
    text = None
    if not train_text:
        with torch.no_grad(), precision.autocast():
            text = text_source(caches, dataset, conditioner, saving.output_dir, show=processes.is_main)
    place(model, processes.device, vae=False, text_encoders=train_text or captions_to_come(dataset) is None)
    batches = Batches(
        dataset,
        latents,
        text,
        seed=seed,
        geometry=geometry,
        workers=settings["max_data_loader_n_workers"],
        pin=processes.device.type == "cuda",
    )

    steps = batches.steps_per_epoch
    clock = Clock(steps, total_steps(steps, settings["max_train_steps"], settings["max_train_epochs"]))
    optimizers, note = build_optimizers(settings, trainable, clock, processes)
    for line in [*model.notes, *dataset.warnings, *lines, *([note] if note else [])]:
        say(line)
    if conditioner.truncated:
        say(f"{conditioner.truncated} captions are longer than {conditioner.max_token_length} tokens and are cut there")

    session = processes.agree(checked.resumed["session"] if checked.resumed else secrets.randbits(32))
    facts = RunFacts(
        session_id=session,
        started_at=time.time(),
        num_epochs=clock.total_epochs,
        num_batches_per_epoch=steps,
        max_train_steps=clock.total_steps,
        optimizer=optimizer_text(
            optimizers.optimizer, parse_arguments(settings["optimizer_args"] or (), "optimizer_args")
        ),
        network_args=checked.arguments,
        network_dim=settings["network_dim"] or trainable.rank,
        num_processes=processes.count,
        datasets_from_config=bool(settings["dataset_config"] or settings.dataset_tables),
    )
    metadata = metadata_writer(options, model, dataset, facts, title=saving.last_stem)
    marks = fingerprint(options, model, dataset, geometry) | {"session": session, "output_name": saving.output_name}
    return Run(
        objective=NoisePrediction(
            model,
            lambda captions: conditioner.encode(captions, grad=True),
            processes.device,
            min_timestep=settings["min_timestep"] or 0,
            max_timestep=settings["max_timestep"],
        ),
        trainables=[trainable],
        optimizers=optimizers,
        batches=batches,
        clock=clock,
        checkpoints=Checkpoints(saving, metadata, marks, checked.resume),
        journal=Journal(
            saving.log if processes.is_main else None,
            clock,
            create_trackers(settings.take(TrackerSpec), settings.public()) if processes.is_main else (),
        ),
        previews=build_previews(checked, model, conditioner, saving, processes),
        precision=precision,
        guard=Guard(scaled=precision.scaler.is_enabled()),
        signals=Signals(shared=processes.count > 1),
        lock=OutputLock(saving.output_dir if processes.is_main else None, saving.last_stem),
        processes=processes,
        seed=seed,
    )


def choose_seed(asked: int | None, resumed: Fingerprint | None, processes: Processes) -> int:
    """The seed asked for; else that of the state that is resumed; else a random one that all processes share."""
    if asked is not None:
        return asked
    if resumed is not None:
        return int(resumed["seed"])
    return processes.agree(secrets.randbits(31))


def choose_geometry(
    accumulation: int, processes: Processes, resumed: Fingerprint | None, say: Callable[[str], None]
) -> Geometry:
    """How a global batch is split. A state resumed by another number of processes keeps its global batch: accumulation
    makes up for the difference."""
    if resumed is not None and resumed["processes"] != processes.count:
        parts = int(resumed["batches per optimizer step"])
        if parts % processes.count:
            raise UserError(
                f"the state takes {parts} batches per optimizer step, which {processes.count} processes cannot share; "
                f"use a number of processes that divides {parts}"
            )
        accumulation = parts // processes.count
        say(
            f"the state was written by {resumed['processes']} processes: accumulating {accumulation} batches keeps its "
            f"{parts} batches per optimizer step"
        )
    return Geometry(accumulation, processes.count, processes.index)


def load_base_model(settings: Settings, say: Callable[[str], None]) -> StableDiffusion:
    """The model that is trained on. Raises `UserError` if it contradicts `v2` or `v_parameterization`."""
    dtype = DTYPES[settings["mixed_precision"]]
    model = load_model(
        settings["pretrained_model_name_or_path"],
        dtype=dtype,
        vae=settings["vae"],
        vae_dtype=torch.float32 if settings["no_half_vae"] else None,
        tokenizer_cache_dir=settings["tokenizer_cache_dir"],
        prediction_type="v_prediction" if settings["v_parameterization"] else None,
    )
    if settings["v2"] != (model.family.value == "sd2") and settings.explicit("v2"):
        say(f"{settings.place('v2')} does not match the weights, which are {model.family.value}; the weights count")
    return model


def trains_text_encoder(settings: Settings) -> bool:
    """Whether text-encoder weights are among those that are trained."""
    if settings["network_train_unet_only"]:
        return False
    rates = settings["text_encoder_lr"]
    return any(rates) if rates else settings["learning_rate"] > 0


def build_network(
    checked: Checked, model: StableDiffusion, seed: int, processes: Processes, say: Callable[[str], None]
) -> NetworkTrainable:
    """The network on the model, on its device, as a trainable of the loop."""
    settings = checked.settings
    spec, memory = settings.take(NetworkSpec), settings.take(MemorySpec)
    line = choose_attention(model.unet, memory, processes.device)
    if line:
        say(line)
    if memory.gradient_checkpointing:
        checkpoint_gradients(model, trains_text_encoder(settings))
    # A network's initial weights come from torch's generator: the same seed gives the same start on every process.
    torch.manual_seed(seed % 2**63)
    for line in merge_base_weights(checked.module, spec, model, DTYPES[settings["mixed_precision"]]):
        say(line)
    network = create_network(checked.module, spec, checked.arguments, model, settings.namespace(), say)
    groups, names = optimizer_groups(
        network, settings["text_encoder_lr"], settings["unet_lr"], settings["learning_rate"]
    )
    full = DTYPES["fp16"] if memory.full_fp16 else DTYPES["bf16"] if memory.full_bf16 else None
    network.to(device=processes.device, dtype=full)
    return NetworkTrainable(
        network,
        groups,
        names,
        model,
        processes.device,
        save_dtype=SAVED_AS[settings["save_precision"]],
        scale_weight_norms=spec.scale_weight_norms,
    )


def need_on_disk(trainable: NetworkTrainable) -> int:
    """Bytes that a file, its temporary copy and a state take."""
    weights = sum(parameter.nbytes for parameter in trainable.network.parameters())
    return 6 * weights + 2**20


def build_optimizers(
    settings: Settings, trainable: NetworkTrainable, clock: Clock, processes: Processes
) -> tuple[Optimizers, str | None]:
    spec, schedule = settings.take(OptimizerSpec), settings.take(ScheduleSpec)
    optimizer, note = create_optimizer(spec, trainable.parameter_groups(), processes.device)
    multiplier = learning_rate_multiplier(schedule, clock.total_steps, spec.learning_rate)
    return Optimizers(optimizer, multiplier, trainable.group_names, spec.max_grad_norm), note


def build_previews(
    checked: Checked, model: StableDiffusion, conditioner: TextConditioner, saving: SavingSpec, processes: Processes
) -> Previews:
    """Sample pictures of the prompts, drawn with everything on the device for as long as it takes."""
    spec = checked.settings.take(PreviewSpec)
    folder = saving.output_dir / "sample"

    def draw(epoch: int | None, step: int) -> list[Path]:
        with on_device(model, processes.device):
            return write_previews(
                model,
                conditioner,
                checked.prompts,
                folder,
                output_name=saving.output_name,
                epoch=epoch,
                step=step,
                sampler=spec.sample_sampler,
                vae_dtype=model.vae.dtype,
            )

    return Previews(spec, draw if checked.prompts else None, saving.output_dir)
