"""The pretend GPU refuses what CUDA refuses, and counts where CUDA's host would wait."""

from __future__ import annotations

import pytest
import torch

from tests import pretend_gpu as pretend
from tests.pretend_gpu import MixedDevices, pretend_gpu


def test_tensors_of_the_cpu_and_of_the_device_do_not_mix_and_the_line_is_named():
    with pretend_gpu():
        ours, theirs = torch.ones(2, device=pretend.DEVICE), torch.ones(2)
        with pytest.raises(MixedDevices, match=r"aten::add: a CPU tensor of shape \(2,\).*test_pretend_gpu.py:"):
            _ = ours + theirs
        assert (ours * torch.tensor(3.0)).tolist() == [3.0, 3.0]  # a number is no tensor to CUDA either


def test_reads_and_copies_that_block_are_waits_and_pinned_ones_are_not():
    with pretend_gpu() as gpu:
        values = torch.arange(4.0).to(pretend.DEVICE)
        assert list(gpu.waits.values()) == [1]
        assert float(values.sum()) == 6.0
        assert bool((values > -1).all())
        assert values.tolist() == [0, 1, 2, 3]
        assert sum(gpu.waits.values()) == 4
        _ = values[values > 1], values.cpu(), values.new_tensor([1.0])
        assert sum(gpu.waits.values()) == 7
        torch.ones(2**20).pin_memory().to(pretend.DEVICE, non_blocking=True)
        torch.ones(8).to(pretend.DEVICE, non_blocking=True)  # small ones are taken aside
        assert sum(gpu.waits.values()) == 7
        assert gpu.copies == 2
        torch.ones(2**20).to(pretend.DEVICE, non_blocking=True)
        assert sum(gpu.waits.values()) == 8


def test_an_event_waits_only_where_nothing_was_launched_after_it():
    with pretend_gpu() as gpu:
        values = torch.zeros(2, device=pretend.DEVICE)
        event = torch.get_device_module(pretend.DEVICE).Event()
        event.record()
        values += 1
        event.synchronize()
        assert not gpu.waits
        event.record()
        event.synchronize()
        assert sum(gpu.waits.values()) == 1


def test_a_module_is_trained_on_it():
    with pretend_gpu():
        layer = torch.nn.Linear(2, 1).to(pretend.DEVICE)
        weight = layer.weight
        layer(torch.ones(3, 2, device=pretend.DEVICE)).sum().backward()
        assert weight.grad is not None
        assert weight.grad.tolist() == [[3.0, 3.0]]
        torch.optim.SGD(layer.parameters(), lr=1.0).step()
        assert weight is layer.weight
        assert weight.device.type == pretend.NAME
