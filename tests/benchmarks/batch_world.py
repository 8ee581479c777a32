"""A small batch on disk for the measurements of train_batch.py: datasets, a tiny model, and the command's words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
BASE = """
pretrained_model_name_or_path = "{model}"
caption_extension = ".txt"
resolution = "64,64"
cache_latents = true
network_train_unet_only = true
learning_rate = 1e-3
max_train_steps = {steps}
save_state = true
save_every_n_steps = {every}
save_last_n_steps = {every}
save_last_n_steps_state = {every}
"""
JOBS = """
[batch]
output_dir = "{output}"
datasets = ["{styles}/*"]
seeds = {seeds}
max_attempts = {attempts}
min_free_disk = "0"
[methods.lora]
network_module = "networks.lora"
network_dim = 2
network_dropout = 0.2
[methods.ac]
network_module = "networks.ac_lora"
network_dim = 3
network_args = ["ac_mode=product", "ac_every_n_steps=7"]
"""


@dataclass
class World:
    """A folder with model, datasets and configs; `output` is where the batch writes."""

    folder: Path
    datasets: int = 3
    seeds: tuple[int, ...] = (1,)
    steps: int = 20
    attempts: int = 1000
    model: Path | None = None

    def __post_init__(self) -> None:
        for number in range(self.datasets):
            write_dataset(self.folder / "styles" / f"style{number}" / "1_sks", number)
        if self.model is None:
            from library.models.family import Family
            from library.models.save import save_folder
            from miniworld.tiny import build

            self.model = self.folder / "model"
            save_folder(build(Family.SD1), self.model)
        self.base = self.folder / "base.toml"
        self.base.write_text(BASE.format(model=self.model, steps=self.steps, every=max(1, self.steps // 4)))

    def words(self, output: Path, *more: str) -> list[str]:
        """The command for a batch that writes to `output`."""
        jobs = output.with_suffix(".toml")
        facts = {"output": output, "styles": self.folder / "styles", "seeds": list(self.seeds)}
        jobs.write_text(JOBS.format(**facts, attempts=self.attempts))
        files = ["--config_file", str(self.base), "--jobs", str(jobs)]
        return [sys.executable, str(ROOT / "train_batch.py"), *files, *more]

    def start(self, output: Path, *more: str) -> subprocess.Popen[bytes]:
        log = output.with_suffix(".log").open("ab")
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(self.words(output, *more), cwd=ROOT, stdout=log, stderr=log, env=environment)

    def run(self, output: Path, *more: str) -> int:
        return self.start(output, *more).wait()


def write_dataset(folder: Path, number: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(3):
        pixels = np.random.default_rng(100 * number + i).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"sks, a red circle, number {number}{i}", encoding="utf-8")


def records(output: Path) -> dict[str, dict[str, Any]]:
    files = sorted((output / "_batch" / "jobs").glob("*.json"))
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def weights(output: Path) -> dict[str, dict[str, bytes]]:
    """The final weights of every job, as bytes."""
    from safetensors.numpy import load_file

    files = {name: output / name / f"{name}.safetensors" for name in records(output)}
    return {name: {k: t.tobytes() for k, t in load_file(f).items()} for name, f in files.items() if f.exists()}


def workers_of(driver: int) -> list[int]:
    """The children of a driver that train, as far as they are alive (a zombie is not)."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            words = (entry / "cmdline").read_text()
        except OSError:
            continue
        if int(parent) == driver and state != "Z" and "child.py" in words:
            found.append(int(entry.name))
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
