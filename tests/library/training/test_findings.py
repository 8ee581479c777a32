"""What a network does between steps and what it found out reach the log, pictures and the last paragraph."""

import json
from pathlib import Path

import pytest

MODULE = """
from networks.lora import *
from networks.lora import create_network as plain_network


def create_network(*arguments, **keywords):
    fail = keywords.pop("fail", None)
    network = plain_network(*arguments, **keywords)
    calls = []

    def on_progress(p):
        calls.append(p.global_step)
        return {"event": "pruned", "kept": 0.5, "ranks": {"a": 2}}

    def conclude():
        if fail:
            raise RuntimeError("it was on and could do nothing; set fail to nothing")

    network.on_progress = on_progress
    network.conclude = conclude
    network.findings = lambda: ["two of four were needed"]
    network.figures = lambda: {
        "series": {"kept energy": {"x": [1, 2], "lines": {"all": [0.5, 0.6]}}},
        "heat_maps": {"ranks": {"rows": ["a", "b"], "columns": ["1"], "values": [[2], [None]], "label": "rank"}},
    }
    return network


OPTIONS = dict(OPTIONS, fail="whether it fails")
"""


@pytest.fixture
def finder(tmp_path, monkeypatch):
    """A network module of somebody else's that finds something out."""
    (tmp_path / "finding_network.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "finding_network", raising=False)
    return "finding_network"


def _events(folder: Path, name: str) -> list[dict]:
    lines = map(json.loads, (folder / "t-log.jsonl").read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line.get("event") == name]


def test_what_a_network_did_between_two_steps_is_a_line_of_the_log(train, finder, tmp_path):
    assert train(network_module=finder, max_train_steps=None, max_train_epochs=3) == 0
    events = _events(tmp_path / "out", "pruned")
    assert [(e["step"], e["epoch"], e["kept"], e["ranks"]) for e in events] == [
        (4, 1, 0.5, {"a": 2}),
        (8, 2, 0.5, {"a": 2}),
    ]


def test_a_resumed_run_that_does_it_again_logs_it_once(train, finder, tmp_path):
    options = {"network_module": finder, "save_every_n_epochs": 1, "save_state": True}
    assert train(**options, max_train_steps=None, max_train_epochs=3) == 0
    state = tmp_path / "out" / "t-000001-state"
    assert train(**options, max_train_steps=None, max_train_epochs=3, resume=state) == 0
    assert [event["step"] for event in _events(tmp_path / "out", "pruned")] == [4, 8]


def test_figures_are_drawn_beside_the_file_and_lines_are_printed(train, finder, tmp_path, capsys):
    assert train(network_module=finder) == 0
    assert {"t_kept_energy.png", "t_ranks.png"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert "    two of four were needed\n" in capsys.readouterr().out


def test_a_network_that_calls_its_run_a_failure_ends_it_with_its_sentence_and_the_file_is_there(
    train, finder, tmp_path, capsys
):
    assert train(network_module=finder, network_args=["fail=1"]) == 1
    assert "it was on and could do nothing; set fail to nothing" in capsys.readouterr().err
    assert (tmp_path / "out" / "t.safetensors").is_file()
