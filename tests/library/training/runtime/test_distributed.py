"""Real processes: two that share a batch, one that is killed, one that is asked to stop."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[4]

pytestmark = pytest.mark.process


def _words(model: Path, pictures: Path, output: Path, *more: str) -> list[str]:
    options = {
        "pretrained_model_name_or_path": model,
        "train_data_dir": pictures,
        "output_dir": output,
        "output_name": "t",
        "resolution": "64,64",
        "caption_extension": ".txt",
        "network_module": "networks.lora",
        "network_dim": 2,
        "learning_rate": 1e-4,
        "seed": 7,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [str(ROOT / "train_network.py"), "--cache_latents", *words, *more]


def _start(words: list[str], folder: Path, **how) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *words], cwd=folder, env=environment, text=True, stderr=subprocess.PIPE, **how
    )


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "t.safetensors")


def _largest_difference(one, other) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def _verdict(folder: Path) -> dict:
    lines = [json.loads(line) for line in (folder / "t-log.jsonl").read_text(encoding="utf-8").splitlines()]
    return next(line for line in lines if line.get("event") == "verdict")


def _steps_logged(output: Path) -> int:
    log = output / "t-log.jsonl"
    return log.read_text(encoding="utf-8").count('"loss"') if log.exists() else 0


def test_two_processes_are_one_with_twice_the_batch_and_one_goes_on_where_they_stopped(
    train, tiny_model, pictures, tmp_path
):
    """Started as people do, with `accelerate launch`, which by itself starts only one process on a CPU.

    On straight paths, where noise is dealt out over the pictures of both processes.
    """
    two, one = tmp_path / "two", tmp_path / "one"
    launch = ["-m", "accelerate.commands.launch", "--num_processes", "2", "--cpu", "--mixed_precision", "no"]
    more = ("--train_batch_size", "2", "--max_train_steps", "3", "--save_state_on_train_end")
    measuring = {"validation_split": 0.5, "validate_every_n_steps": 1, "save_best": True}
    pairing = {"flow_model": True, "flow_use_ot": True, "contrastive_flow_matching": True}
    more += tuple(f"--{name}={value}" for name, value in (measuring | pairing).items())
    with _start([*launch, *_words(tiny_model, pictures, two, *more)], tmp_path) as process:
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    same = {"learning_rate": 1e-4, "network_dim": 2, **measuring, **pairing}
    assert train(output_dir=one, train_batch_size=4, max_train_steps=3, **same) == 0
    assert _largest_difference(_weights(two), _weights(one)) < 1e-5
    both, alone = _verdict(two), _verdict(one)
    assert both["best_step"] == alone["best_step"]
    assert both["interval"] == pytest.approx(alone["interval"], abs=1e-5)

    assert train(output_dir=two, train_batch_size=2, max_train_steps=5, resume="latest", **same) == 0
    assert train(output_dir=one, train_batch_size=4, max_train_steps=5, overwrite=True, **same) == 0
    assert _largest_difference(_weights(two), _weights(one)) < 1e-5


def test_a_run_killed_three_times_at_any_moment_ends_with_the_same_bits(train, tiny_model, pictures, tmp_path):
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    more = ("--max_train_steps", "40", "--save_every_n_steps", "2", "--save_state", "--network_dropout", "0.2")
    words = _words(tiny_model, pictures, killed, *more, "--resume", "latest")
    for goal, moment in ((3, 0.0), (9, 0.03), (16, 0.11)):
        with _start(words, tmp_path, stdout=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 240
            while _steps_logged(killed) < goal and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(moment)
            assert process.poll() is None, "the run ended before it could be killed"
            process.kill()
    options = {"max_train_steps": 40, "network_dropout": 0.2, "learning_rate": 1e-4, "train_batch_size": 1}
    assert train(output_dir=killed, resume="latest", **options) == 0
    assert train(output_dir=quiet, **options) == 0
    assert _largest_difference(_weights(quiet), _weights(killed)) == 0
    lines = (killed / "t-log.jsonl").read_text(encoding="utf-8").splitlines()
    assert [line["step"] for line in map(json.loads, lines) if "loss" in line] == list(range(1, 41))


def test_sigterm_writes_a_state_and_ends_with_143(train, tiny_model, pictures, tmp_path):
    output = tmp_path / "out"
    words = _words(tiny_model, pictures, output, "--max_train_steps", "100000")
    with _start(words, tmp_path) as process:
        while _steps_logged(output) < 2 and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 143, errors
    assert "--resume" in errors
    (state,) = output.glob("t-step*-state")
    place = json.loads((state / "train_state.json").read_text())
    assert place["current_step"] == _steps_logged(output)
    assert not list(output.glob("*.safetensors"))
