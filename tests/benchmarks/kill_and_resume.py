"""Kill a training at random moments and resume it: python -m tests.benchmarks.kill_and_resume [--kills 30]

One run is left alone. Another is killed with SIGKILL again and again, each time started anew with `--resume latest`,
until it has finished. The final weights must be the same bit for bit, and the page made of the killed run's files must
say where it stopped; prints how many kills hit and where.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "quickstart.toml"


def command(output: Path, *more: str) -> list[str]:
    words = [sys.executable, str(ROOT / "train_network.py"), "--config_file", str(CONFIG), "--output_dir", str(output)]
    words += [
        "--sample_prompts",
        "",
        "--no-sample_at_first",
        "--sample_every_n_epochs",
        "0",
        "--network_dropout",
        "0.1",
    ]
    return [*words, "--flip_aug", "--save_state", "--save_every_n_steps", "3", "--save_last_n_steps_state", "3", *more]


def run(words: list[str]) -> None:
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def steps_logged(output: Path) -> int:
    """The last step in a run's log; 0 if there is none."""
    logs = list(output.glob("*-log.jsonl"))
    numbers = [0]
    for line in logs[0].read_text(encoding="utf-8").splitlines() if logs else []:
        try:
            numbers.append(json.loads(line)["step"])
        except ValueError:
            continue  # the line that the kill cut off
    return numbers[-1]


def kill_once(words: list[str], output: Path, more_steps: int, jitter: float) -> bool:
    """Start a run, wait until it is `more_steps` further and a moment longer, kill it; False if it finished first."""
    goal = steps_logged(output) + more_steps
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and steps_logged(output) < goal:
            time.sleep(0.02)
        time.sleep(jitter)
        if process.poll() is not None:
            return False
        process.kill()
    return True


def kill_and_resume(kills: int, steps: int, seed: int, folder: Path, *more: str) -> int:
    """How many kills hit. Raises AssertionError if the weights or the logged steps differ from the quiet run's."""
    length = ("--max_train_epochs", "", "--max_train_steps", str(steps), *more)
    quiet, killed = folder / "quiet", folder / "killed"
    run(command(quiet, *length))
    rng = random.Random(seed)
    words = command(killed, *length, "--resume", "latest")
    hits = 0
    for _ in range(kills):
        hits += kill_once(words, killed, rng.randrange(0, 6), rng.uniform(0, 0.4))
        print(f"kill {hits}: step {steps_logged(killed)}", flush=True)
        if (killed / "blueprint-state").exists():
            break
        check_page(killed, steps)
    run(words)
    assert (quiet / "blueprint.safetensors").exists()
    ours, theirs = (weights(path / "blueprint.safetensors") for path in (killed, quiet))
    assert ours == theirs, "the weights differ from the undisturbed run's"
    assert logged(killed) == list(range(1, steps + 1)), "a step is doubled or missing in the log"
    return hits


def check_page(output: Path, steps: int) -> None:
    """A page that the killed run wrote is whole, and one made of its files says where it stopped."""
    from library.report.run_page import page_of, write_run_page

    log = output / "blueprint-log.jsonl"
    if not steps_logged(output):
        return
    page = page_of(log)
    assert not page.exists() or page.read_text("utf-8").rstrip().endswith("</html>"), "half a page was written"
    assert f"stopped at step {steps_logged(output):,} of {steps:,}" in write_run_page(log).read_text("utf-8")


def weights(path: Path) -> dict[str, bytes]:
    from safetensors.numpy import load_file

    return {name: tensor.tobytes() for name, tensor in load_file(path).items()}


def logged(output: Path) -> list[int]:
    lines = (output / "blueprint-log.jsonl").read_text(encoding="utf-8").splitlines()
    return [line["step"] for line in map(json.loads, lines) if "loss" in line]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        hits = kill_and_resume(arguments.kills, arguments.steps, arguments.seed, Path(folder))
    print(f"{hits} kills, each followed by --resume latest: the weights are bit-identical, no step is logged twice")


if __name__ == "__main__":
    main()
