"""What is counted on tensors without content is what a program holds, and the tables' cases are the configs' own."""

from __future__ import annotations

import gc

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from library.models.family import Family
from tests.benchmarks.counted_memory import Counter
from tests.benchmarks.memory_switches import NOTHING, ROOT, config_case, rows
from tests.rehearsal.__main__ import shipped

KIB = 1024


def test_the_counter_knows_what_is_alive_and_what_was_at_the_most() -> None:
    with FakeTensorMode(), Counter() as counter:
        first = torch.zeros(256)  # 1 KiB
        second = torch.zeros(3, 256)
        assert counter.now == 4 * KIB
        view = second[1:]
        assert counter.now == 4 * KIB
        del first
        assert counter.now == 3 * KIB
        del second
        assert counter.now == 3 * KIB  # the view holds it
        del view
        assert counter.now == 0
        assert counter.peak == 4 * KIB


def test_what_autograd_keeps_is_counted_and_checkpointing_keeps_less() -> None:
    held = {}
    for checkpointed in (False, True):
        with FakeTensorMode(), Counter() as counter:
            weights = [torch.ones(64, 64) for _ in range(8)]
            start = counter.now
            x = torch.ones(16, 64, requires_grad=True)  # 4 KiB, as each layer's output

            def block(x: torch.Tensor, weights: list[torch.Tensor] = weights) -> torch.Tensor:
                for weight in weights:
                    x = torch.tanh(x @ weight)
                return x

            y = checkpoint(block, x, use_reentrant=False) if checkpointed else block(x)
            gc.collect()
            held[checkpointed] = counter.now - start
            assert y is not None
    assert held[False] == 9 * 4 * KIB  # the input and what each tanh gave
    assert held[True] == 2 * 4 * KIB  # the input and the output


def test_the_rows_are_each_switch_alone_and_all_together() -> None:
    names = list(rows())
    assert names[0] == NOTHING
    together = [name for name, switches in rows().items() if len(switches) > 1]
    assert together == ["all of them but fp8_base", "all of them"]


def test_a_config_is_counted_with_its_own_options() -> None:
    case = config_case(ROOT / "configs" / "sdxl_lora_8gb.toml", "sdxl")
    assert (case.family, case.side, case.rank, case.batch) == (Family.SDXL, 1024, 16, 1)
    assert (case.cache_latents, case.network_train_unet_only, case.adamw_8bit, case.full_bf16) == (True,) * 4
    assert (case.memory.fp8_base, case.memory.fp8_base_unet, case.memory.gradient_checkpointing) == (False, True, True)


def test_every_config_for_a_full_size_model_is_rehearsed_on_its_family() -> None:
    found = shipped(ROOT / "configs")
    for name, family in found.items():
        if "_lora_" in name and name.startswith("sd"):
            assert name.startswith(family)
    assert {"sd1", "sd2", "sdxl"} == set(found.values())
    assert "quickstart.toml" not in found
