"""What a network's training is made of, for a state that goes on bit for bit, whatever its module calls its state_dict.

For most modules that is their state_dict. Some answer with their file's tensors instead (LyCORIS' and kohya's DyLoRA
put blocks together, LyCORIS multiplies by a scalar), from which what was trained cannot be had back.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from library.errors import UserError

EXTRA_STATE = "_extra_state"  # as torch names what a module's get_extra_state gives


def memory_of(network: nn.Module) -> dict[str, Tensor]:
    """The state_dict where that is the network's own parameters and buffers; else these and modules' extra state."""
    state = network.state_dict()
    if is_own(network, state):
        return state
    extra = {name: tensor for name, tensor in state.items() if name.endswith(EXTRA_STATE)}
    return {**dict(network.named_parameters()), **dict(network.named_buffers()), **extra}


def restore_memory(network: nn.Module, memory: Mapping[str, Tensor]) -> None:
    """Put back what `memory_of` gave. Raises `UserError` where the network is another one."""
    own = memory_of(network)
    for name in {**own, **memory}:
        if name not in own or name not in memory:
            raise UserError(f"the state's network does not fit this one: {name} is only in one of them")
    if is_own(network, network.state_dict()):
        network.load_state_dict(memory)
        return
    with torch.no_grad():
        for name, tensor in memory.items():
            if name.endswith(EXTRA_STATE):
                network.get_submodule(name.removesuffix(EXTRA_STATE).removesuffix(".")).set_extra_state(tensor)
            else:
                own[name].copy_(tensor)


def is_own(network: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Whether a state_dict holds every parameter of the network, and nothing but its memory and extra state."""
    live = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    tensors = {name: tensor for name, tensor in state.items() if not name.endswith(EXTRA_STATE)}
    shared = all(name in live and live[name].data_ptr() == tensor.data_ptr() for name, tensor in tensors.items())
    return shared and all(name in tensors for name, _ in network.named_parameters())
