"""What every run needs before a model is loaded: its processes, its seed, how a global batch is split."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass

import torch

from library.config.option import Settings
from library.config.spec import declared, spec
from library.data.sample_order import Geometry
from library.errors import UserError
from library.training.runtime.distributed import Processes, start_processes
from library.training.runtime.memory import MemorySpec
from library.training.runtime.mixed_precision import Precision
from library.training.saving.resume import Fingerprint

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Environment:
    """`session` is a number that all processes share; a resumed run keeps it, one that takes changes gets its own."""

    processes: Processes
    seed: int
    geometry: Geometry
    precision: Precision
    session: int


@spec
class EnvironmentSpec:
    """The options on processes, seed, accumulation and precision; field names are the options'."""

    ddp_timeout: int | None = declared
    seed: int | None = declared
    gradient_accumulation_steps: int = declared
    mixed_precision: str = declared
    resume_with_changes: bool = declared


def choose_environment(settings: Settings, resumed: Fingerprint | None) -> Environment:
    """The footing of a new run, or of one that goes on from the state with the fingerprint `resumed`."""
    spec = settings.take(EnvironmentSpec)
    processes = start_processes(spec.ddp_timeout)
    if spec.ddp_timeout and processes.count == 1:
        logger.info(f"{settings.place('ddp_timeout')} has no effect: there is one process, which waits for no other")
    for line in slow_on_cpu(settings, processes.device):
        logger.info(line)
    goes_on = resumed if not spec.resume_with_changes else None
    scale_loss = False if settings.take(MemorySpec).full_fp16 else None
    return Environment(
        processes=processes,
        seed=choose_seed(spec.seed, resumed, processes),
        geometry=choose_geometry(spec.gradient_accumulation_steps, processes, resumed),
        precision=Precision(spec.mixed_precision, processes.device, scale_loss=scale_loss),
        session=processes.agree(goes_on["session"] if goes_on else secrets.randbits(32)),
    )


def slow_on_cpu(settings: Settings, device: torch.device) -> list[str]:
    """A line on what saves a GPU's memory and costs time without one."""
    if device.type != "cpu":
        return []
    asked = [settings.place("mixed_precision") + " = bf16"] if settings["mixed_precision"] == "bf16" else []
    asked += [settings.place("gradient_checkpointing")] if settings["gradient_checkpointing"] else []
    what = " and ".join(asked)
    return [f"{what}: on a CPU this takes longer, bf16 up to ten times; leave it out if memory allows"] if asked else []


def choose_seed(asked: int | None, resumed: Fingerprint | None, processes: Processes) -> int:
    """The seed asked for; else that of the state that is resumed; else a random one that all processes share."""
    if asked is not None:
        return asked
    if resumed is not None:
        return int(resumed["seed"])
    return processes.agree(secrets.randbits(31))


def choose_geometry(accumulation: int, processes: Processes, resumed: Fingerprint | None) -> Geometry:
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
        logger.info(
            f"the state was written by {resumed['processes']} processes: accumulating {accumulation} batches keeps its "
            f"{parts} batches per optimizer step"
        )
    return Geometry(accumulation, processes.count, processes.index)
