"""Memory: what checkpointing saves, what an 8-bit optimizer keeps, what the printed budget counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import UNet2DConditionModel
from torch import nn

from library.models.family import Family
from library.models.standard import standard_configs
from miniworld.tiny import build
from restoration.pivots.memory_budget import GIB, SMALL, budget, count_of
from restoration.system.system import IRControlNet, System
from tests.benchmarks.restoration_memory import counted as counted_step
from tests.restoration.conftest import shaken


def kept_bytes(forward: Callable[[], torch.Tensor], leave_out: nn.Module) -> tuple[int, torch.Tensor]:
    """Bytes that a forward pass keeps for the backward pass, weights not counted."""
    weights = {parameter.data_ptr() for parameter in leave_out.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = forward()
    return sum(kept.values()), result


@pytest.mark.parametrize("trained", ["unet", "encoder"])
def test_checkpointing_keeps_a_small_part_and_gives_the_same_gradients(trained: str):
    model = build(Family.SD2)
    system = System(model, shaken(IRControlNet.copy_of(model.unet)).requires_grad_(False))
    module = (system.unet if trained == "unet" else system.encoder).requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    noisy, condition = (torch.randn(1, 4, 32, 32, generator=generator) for _ in range(2))
    text, timesteps = system.text(["a face"]), torch.tensor([100])

    def forward() -> torch.Tensor:
        with torch.set_grad_enabled(trained == "encoder"):
            controls = system.controls(noisy, timesteps, condition)
        return system.predict(noisy, timesteps, text, controls).square().mean()

    whole, loss = kept_bytes(forward, module)
    loss.backward()
    gradients = [p.grad.clone() for p in module.parameters() if p.grad is not None]
    module.zero_grad()
    system.unet.enable_gradient_checkpointing()
    system.encoder.enable_gradient_checkpointing()
    part, loss = kept_bytes(forward, module)
    loss.backward()
    assert part <= 0.25 * whole
    again = [p.grad for p in module.parameters() if p.grad is not None]
    assert all((a - b).abs().max() <= 1e-6 for a, b in zip(gradients, again, strict=True))


def test_the_budget_is_what_the_tensors_count_and_both_steps_at_full_size_fit_24_gib():
    with init_empty_weights():
        unet: Any = UNet2DConditionModel.from_config(standard_configs(Family.SD2)["unet"])
        encoder: Any = IRControlNet.for_config(standard_configs(Family.SD2)["unet"])
    assert (count_of(unet), count_of(encoder)) == (865_910_724, 363_153_280)
    for trained, frozen, expected in ((unet, encoder, 10.4), (encoder, unet, 5.5)):
        frozen.to(torch.bfloat16)
        tensors = list(trained.float().parameters())
        needed = budget(tensors, [frozen], eight_bit=True, half=True)
        assert needed.weights == needed.gradients == sum(t.nbytes for t in tensors)
        assert needed.frozen == sum(p.nbytes for p in frozen.parameters())
        assert needed.total / GIB == pytest.approx(expected, abs=0.4)
        assert needed.total / GIB < 24
        assert f"{needed.total / GIB:.2f} GiB" in str(needed)


def test_the_budget_of_an_optimizer_is_what_it_keeps():
    pytest.importorskip("bitsandbytes")
    import bitsandbytes

    module = nn.Sequential(nn.Linear(256, 256), nn.Linear(256, 16))
    optimizer = bitsandbytes.optim.AdamW8bit(module.parameters(), lr=1e-3)
    module(torch.randn(2, 256)).sum().backward()
    optimizer.step()
    states = [s[name] for s in optimizer.state.values() for name in ("state1", "state2")]
    assert {state.dtype for state in states if state.numel() >= SMALL} == {torch.uint8}
    counted = budget(list(module.parameters()), [], eight_bit=True, half=False).optimizer
    assert counted == sum(state.nbytes for state in states)
    assert counted <= 0.35 * sum(2 * 4 * parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("pivot", "most"), [("model", 0.5), ("text", 0.8)])  # one picture; one and one of the prior
def test_what_a_step_keeps_at_full_size_is_small_beside_the_weights(pivot: str, most: float):
    assert counted_step(pivot, checkpointing=True)[1] <= most
