"""When a network is told how far the run is, and what it is told."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

MODULE = """
from networks.lora import *
from networks.lora import create_network as plain_network

TOLD = []
MOMENTS = []


def create_network(*arguments, **keywords):
    every = keywords.pop("tell_every", None)
    network = plain_network(*arguments, **keywords)
    if every:
        network.progress_every_n_steps = int(every)

    def on_progress(p):
        TOLD.append(p)
        MOMENTS.append(sorted(path.name for path in OUTPUT.iterdir()))

    network.on_progress = on_progress
    return network


OPTIONS = dict(OPTIONS, tell_every="steps between two calls")
"""


@pytest.fixture
def teller(tmp_path, monkeypatch):
    """A network module of somebody else's that listens."""
    (tmp_path / "listening_network.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "listening_network", raising=False)
    import importlib

    module: Any = importlib.import_module("listening_network")
    module.OUTPUT = tmp_path / "out"
    return module


def _losses(folder: Path) -> dict[int, float]:
    lines = map(json.loads, (folder / "t-log.jsonl").read_text(encoding="utf-8").splitlines())
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def test_a_network_hears_of_every_epoch_but_the_last_once_its_file_and_state_are_written(train, teller, tmp_path):
    options = {"network_module": "listening_network", "max_train_steps": None, "max_train_epochs": 3}
    assert train(**options, save_every_n_epochs=1, save_state=True) == 0
    assert [(p.epochs_done, p.total_epochs, p.global_step, p.total_steps) for p in teller.TOLD] == [
        (1, 3, 4, 12),
        (2, 3, 8, 12),
    ]
    assert [p.count for p in teller.TOLD] == [7, 7]
    assert {"t-000001.safetensors", "t-000001-state"} <= set(teller.MOMENTS[0])
    losses = _losses(tmp_path / "out")
    counts = {1: 2, 2: 2, 3: 2, 4: 2}
    sum_of_means = sum(losses[step] for step in counts)
    assert teller.TOLD[0].loss_sum == pytest.approx(sum_of_means * 7 / 4, rel=0.35)  # the short batch weighs less
    assert 0 < teller.TOLD[0].relative_mse_sum / 7 < 3
    assert teller.TOLD[0].optimizer.param_groups


def test_a_network_may_ask_to_be_informed_every_few_steps(train, teller):
    options = {"network_module": "listening_network", "network_args": ["tell_every=3"], "max_train_steps": 10}
    assert train(**options) == 0
    assert [p.global_step for p in teller.TOLD] == [3, 4, 6, 8, 9]
    assert teller.TOLD[0].count in (5, 6)
    assert all(math.isfinite(p.loss_sum) for p in teller.TOLD)


def test_a_run_resumed_at_the_end_of_an_epoch_makes_the_call_that_its_state_was_written_before(train, teller):
    options = {"network_module": "listening_network", "save_state_on_train_end": True}
    assert train(**options, max_train_steps=4) == 0
    assert teller.TOLD == []
    assert train(**options, max_train_steps=6, resume="latest") == 0
    assert [(p.global_step, p.epochs_done, p.count) for p in teller.TOLD] == [(4, 1, 7)]
