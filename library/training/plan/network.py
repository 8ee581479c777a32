"""The network of a plan, made without numbers: its parts, the bytes of its files, and a step with it."""

from __future__ import annotations

import re
from collections import Counter as Tally
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from library.config.option import Settings
from library.models.family import StableDiffusion
from library.training.optim.optimizers import OptimizerSpec, create_optimizer
from library.training.optim.weight_averages import AverageSpec
from library.training.plan.step_memory import FAKE, Case, Counted, count
from library.training.runtime.memory import MemorySpec
from library.training.runtime.mixed_precision import DTYPES
from library.training.saving.file_names import SavingSpec
from library.training.setup.build import SAVED_AS
from library.training.setup.checks import Checked
from library.training.trainables import SAMPLED_ELEMENTS
from library.training.trained.network import NetworkSpec, create_network
from library.training.trained.network_trainable import NetworkRates, NetworkTrainable, optimizer_groups

PART = re.compile(r"_(te\d*|unet)(?=_)")
MOST_ELEMENTS = 2**20  # of a parameter that the optimizer is tried on


@dataclass
class TrainedPart:
    """The network's share in one part of the model; `rates` are learning rates, empty where it is not trained."""

    modules: set[str] = field(default_factory=set)
    parameters: int = 0
    rates: set[float] = field(default_factory=set)


@dataclass(frozen=True)
class NetworkShape:
    """A network without its numbers: by part ("unet", "te", "te1", ...), and the bytes of its file and its state."""

    parts: dict[str, TrainedPart]
    file_bytes: int
    state_bytes: int
    optimizer_bytes: int
    average_bytes: int  # of the averaged weights, if they are kept
    trained_bytes: int  # of the parameters as they are trained


def count_network(checked: Checked, case: Case) -> tuple[Counted | None, NetworkShape | None, str]:
    """A step counted and the network's shape; or neither, and why a network module cannot be counted."""
    found: list[NetworkTrainable] = []
    # Weights to start from change no size; reading them would be loading.
    settings = checked.settings.changed(base_weights=None)
    if not settings.take(NetworkSpec).dim_from_weights:
        settings = settings.changed(network_weights=None)
    memory = settings.take(MemorySpec)

    def make(model: StableDiffusion) -> Any:
        if checked.module is None:
            return None
        # Converting tensors without content afterwards is what PyTorch cannot do: they are made as they will be.
        torch.set_default_dtype(torch.float16 if memory.full_fp16 else DTYPES["bf16" if memory.full_bf16 else "no"])
        spec = settings.take(NetworkSpec)
        network = create_network(checked.module, spec, checked.arguments, model, settings.namespace())
        rates = settings.take(NetworkRates).as_arguments
        found.append(NetworkTrainable(network, *optimizer_groups(network, *rates), model, FAKE))
        return network

    try:
        counted = count(case, make)
    except Exception as error:  # a network module of somebody else may do what tensors without content cannot
        if not found and checked.module is None:
            raise
        return None, None, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return counted, network_shape(found[0], settings) if found else None, ""


def network_shape(trainable: NetworkTrainable, settings: Settings) -> NetworkShape:
    rates = {id(p): group["lr"] for group in trainable.parameter_groups() for p in group["params"]}
    parts: dict[str, TrainedPart] = {}
    for name, parameter in trainable.network.named_parameters():
        module = name.partition(".")[0]
        place = PART.search(f"_{module}")
        part = parts.setdefault(place[1] if place else "network", TrainedPart())
        part.modules.add(module)
        part.parameters += parameter.numel()
        if id(parameter) in rates and rates[id(parameter)] != 0:
            part.rates.add(rates[id(parameter)])
    saved = SAVED_AS[settings.take(SavingSpec).save_precision]
    tensors = dict(trainable.network.state_dict())
    each = [t.nbytes if saved is None or t.dim() == 0 else t.numel() * saved.itemsize for t in tensors.values()]
    samples = sum(4 * min(parameter.numel(), SAMPLED_ELEMENTS) for parameter in trainable.parameters)
    shapes = Tally((tuple(p.shape), p.dtype) for p in trainable.parameters)
    return NetworkShape(
        parts=parts,
        file_bytes=sum(each) + header_bytes(tensors),
        state_bytes=sum(t.nbytes for t in tensors.values()) + samples + 4 * header_bytes(tensors),
        optimizer_bytes=optimizer_bytes(settings.take(OptimizerSpec), shapes),
        average_bytes=average_bytes(settings, sum(parameter.numel() for parameter in trainable.parameters)),
        trained_bytes=sum(parameter.nbytes for parameter in trainable.parameters),
    )


def average_bytes(settings: Settings, numbers: int) -> int:
    """Of the averages of so many numbers that are trained, which are float32."""
    return 4 * numbers if settings.take(AverageSpec).is_on else 0


def header_bytes(tensors: dict[str, torch.Tensor]) -> int:
    """About: the names, types, shapes and places of a safetensors file, and its metadata."""
    return sum(len(name) + 75 for name in tensors) + 4000


def optimizer_bytes(spec: OptimizerSpec, shapes: Tally[tuple[tuple[int, ...], torch.dtype]]) -> int:
    """What the optimizer keeps beside the parameters: tried on one parameter of each shape, or of a part of it."""
    total = 0.0
    for (shape, dtype), number in shapes.items():
        rows = max(1, min(shape[0], MOST_ELEMENTS * shape[0] // max(1, torch.Size(shape).numel())))
        parameter = torch.nn.Parameter(torch.full((rows, *shape[1:]), 0.5, dtype=dtype))
        optimizer, _ = create_optimizer(spec, [{"params": [parameter], "lr": spec.learning_rate}])
        parameter.grad = torch.full_like(parameter, 1e-3)
        optimizer.step()
        held = sum(value.nbytes for value in tensors_in(optimizer.state[parameter]))
        total += held * (shape[0] / rows) * number
    return int(total)


def tensors_in(state: Any) -> Iterator[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, dict):
        for value in state.values():
            yield from tensors_in(value)
