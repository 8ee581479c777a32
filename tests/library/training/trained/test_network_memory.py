"""The memory of a network comes back bit for bit, also where its module's state_dict is its file's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from library.errors import UserError
from library.training.trained.network_trainable import is_own, memory_of, restore_memory


class Plain(nn.Module):
    cached: Tensor

    def __init__(self, value: float):
        super().__init__()
        self.weight = nn.Parameter(torch.full((2,), value))
        self.register_buffer("alpha", torch.tensor(value))
        self.register_buffer("cached", torch.tensor(value), persistent=False)


class Blocks(Plain):
    """Saves its two parameters as one, times a buffer that is not saved, as DyLoRA and LyCORIS do."""

    def __init__(self, value: float):
        super().__init__(value)
        self.more = nn.Parameter(torch.full((3,), value))
        self.seen = 0

    def state_dict(self, *args, destination=None, prefix="", keep_vars=False) -> dict[str, Tensor]:  # type: ignore[override]
        destination = {} if destination is None else destination
        destination[prefix + "joined"] = torch.cat([self.weight, self.more]) * self.cached
        destination[prefix + "_extra_state"] = self.get_extra_state()
        return destination

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.seen)

    def set_extra_state(self, state: Tensor) -> None:
        self.seen = int(state)


def network_of(kind: type, value: float) -> nn.Module:
    network = nn.Module()
    network.lora_unet_x = kind(value)
    return network


def test_the_memory_of_an_ordinary_network_is_its_state_dict():
    network = network_of(Plain, 1.0)
    assert memory_of(network).keys() == network.state_dict().keys() == {"lora_unet_x.weight", "lora_unet_x.alpha"}
    assert is_own(network, network.state_dict())


@pytest.mark.parametrize("kind", [Plain, Blocks])
def test_memory_comes_back_bit_for_bit(kind):
    trained, fresh = network_of(kind, 0.1), network_of(kind, 7.0)
    vars(trained.lora_unet_x)["seen"] = 5
    restore_memory(fresh, {name: tensor.clone() for name, tensor in memory_of(trained).items()})
    assert torch.equal(fresh.lora_unet_x.weight, trained.lora_unet_x.weight)  # type: ignore[arg-type]
    if kind is Blocks:
        assert torch.equal(fresh.lora_unet_x.more, trained.lora_unet_x.more)  # type: ignore[arg-type]
        assert torch.equal(fresh.lora_unet_x.cached, trained.lora_unet_x.cached)  # type: ignore[arg-type]
        assert vars(fresh.lora_unet_x)["seen"] == 5


def test_the_memory_of_another_network_is_refused_by_name():
    with pytest.raises(UserError, match=r"lora_unet_x\.(more|alpha|weight)"):
        restore_memory(network_of(Blocks, 1.0), memory_of(network_of(Plain, 1.0)))
