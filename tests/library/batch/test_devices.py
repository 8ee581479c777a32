"""GPUs of a batch are counted among those that an outer CUDA_VISIBLE_DEVICES leaves, as on a shared server."""

import pytest

from library.batch.engines.devices import VISIBLE, refuse_invisible, visible_to_child
from library.batch.read_batch import read_devices
from library.errors import ConfigError


def test_numbers_count_the_gpus_that_are_left_and_names_stay(monkeypatch):
    monkeypatch.setenv(VISIBLE, "2, 3")
    assert [visible_to_child(name) for name in ("0", "1", "cpu", "GPU-1a2b", "MIG-77")] == [
        "2",
        "3",
        "",
        "GPU-1a2b",
        "MIG-77",
    ]
    monkeypatch.setenv(VISIBLE, "GPU-aa,MIG-bb")
    assert visible_to_child("1") == "MIG-bb"
    monkeypatch.delenv(VISIBLE)
    assert visible_to_child("1") == "1"


def test_a_gpu_that_is_not_left_is_refused(monkeypatch):
    monkeypatch.setenv(VISIBLE, "2,3")
    refuse_invisible(["0", "1", "GPU-1a2b"])
    with pytest.raises(
        ConfigError, match=r"CUDA_VISIBLE_DEVICES leaves 2 GPUs \(2,3\), counted from 0, so there is no 2"
    ):
        refuse_invisible(["0", "2"])


def test_devices_are_numbers_names_or_cpu():
    assert read_devices("0, GPU-1a2b,MIG-77 ,cpu") == ["0", "GPU-1a2b", "MIG-77", "cpu"]
    with pytest.raises(ConfigError, match="'cuda:0' is neither the number of a GPU nor cpu"):
        read_devices("cuda:0")
