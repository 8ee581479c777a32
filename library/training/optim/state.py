"""An optimizer's state as tensors by name and the rest as JSON, for a folder of state, and back without a loss.

Optimizers keep more than two moments: 8-bit ones nest dictionaries with quantisation tables in them, adaptive ones keep
numbers and tensors in their parameter groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from library.errors import UserError

TENSOR = "tensor in the file"
TUPLE = "tuple"
PLAIN = (str, int, float, bool, type(None))


def split_optimizer_state(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by their place ("state/0/exp_avg"), and the rest, with that name in each tensor's place.

    Raises `UserError` for what neither can hold.
    """
    tensors: dict[str, Tensor] = {}
    parts = {"state": {str(i): values for i, values in state["state"].items()}, "groups": state["param_groups"]}
    rest = {name: _taken(part, name, tensors) for name, part in parts.items()}
    return _own_memory(tensors), rest


def join_optimizer_state(tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> dict[str, Any]:
    """The other way of `split_optimizer_state`."""
    state = {int(parameter): _given(values, tensors) for parameter, values in rest["state"].items()}
    return {"state": state, "param_groups": _given(rest["groups"], tensors)}


def load_exactly(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """`optimizer.load_state_dict`, without the rounding: torch casts every moment to its parameter's dtype.

    Optimizers that keep float32 moments of half-precision weights would go on with others than they were saved with.
    """
    optimizer.load_state_dict(state)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for i, saved in state["state"].items():
        own = optimizer.state[parameters[i]]
        for name, value in saved.items():
            loaded = own.get(name)
            if isinstance(value, Tensor) and isinstance(loaded, Tensor) and loaded.dtype != value.dtype:
                own[name] = value.to(loaded.device)


def _taken(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[place] = value.detach()
        return {TENSOR: place}
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {name: _taken(item, f"{place}/{name}", tensors) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_taken(item, f"{place}/{i}", tensors) for i, item in enumerate(value)]
        return {TUPLE: items} if isinstance(value, tuple) else items
    if isinstance(value, PLAIN):
        return value
    raise UserError(
        f"the optimizer keeps a {type(value).__name__} ({place}), which a state cannot hold; "
        "train without save_state, or with another `optimizer_type`"
    )


def _own_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """8-bit optimizers share one table among all parameters, which a file of named tensors must not."""
    seen: set[int] = set()
    alone = {}
    for name, tensor in tensors.items():
        alone[name] = tensor.clone() if tensor.data_ptr() in seen else tensor.contiguous()
        seen.add(tensor.data_ptr())
    return alone


def _given(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_given(item, tensors) for item in value]
    if not isinstance(value, Mapping):
        return value
    if set(value) == {TENSOR}:
        return tensors[value[TENSOR]]
    if set(value) == {TUPLE}:
        return tuple(_given(item, tensors) for item in value[TUPLE])
    return {name: _given(item, tensors) for name, item in value.items()}
