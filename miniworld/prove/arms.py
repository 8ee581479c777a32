"""One arm of the proofs on held-out styles: train_network.py on a style's 15 pictures, and its files measured."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from library.errors import UserError
from miniworld.draw import write_dataset
from miniworld.prove.exam import MODEL, StyleExam
from miniworld.sets import style_set

BATCH, LEARNING_RATE, WARM_UP = 4, 1e-3, 20
MEASURED_AT = (0.1, 0.2, 0.3, 0.5, 0.8, 1.0)
"""Where on the way the held-out loss is measured, as shares of the steps."""


@dataclass(frozen=True)
class Method:
    """A network module with its arguments. `dim` is its rank, or the largest that it may use."""

    name: str
    dim: int
    module: str = "networks.lora"
    arguments: tuple[str, ...] = ()
    alpha: float | None = None
    """None is the rank: a scale of 1."""
    file_scale: float = 1.0
    """What alpha / rank of its files must be multiplied with to be the scale that it was trained at."""

    @property
    def label(self) -> str:
        return f"{self.name} {self.dim}"


def lora(rank: int) -> Method:
    return Method("LoRA", rank)


def arm_key(style: str, method: Method, steps: int, seed: int) -> dict[str, Any]:
    """What an arm is known by among the results: every setting that is not the same for all."""
    return {
        "style": style,
        "method": method.name,
        "dim": method.dim,
        "alpha": method.alpha or method.dim,
        "arguments": " ".join(method.arguments),
        "steps": steps,
        "seed": seed,
    }


def base_key(style: str) -> dict[str, Any]:
    """The arm of the base model itself: nothing is trained, and no seed changes it."""
    return {"style": style, "method": "base model"}


def train_and_measure(
    style: str, method: Method, steps: int, seed: int, exam: StyleExam, folder: Path
) -> dict[str, Any]:
    """Train one arm in `folder`, which is made anew, and measure it; the last file and a row of pictures stay."""
    shutil.rmtree(folder, ignore_errors=True)
    write_dataset(folder / "pictures" / f"1_{style}", style_set(style, "train"))
    seconds = train(method, folder, steps, seed)
    last = folder / "network.safetensors"
    losses = {}
    for step in measured_steps(steps):
        file = last if step == steps else folder / f"network-step{step:08d}.safetensors"
        losses[step] = exam.held_out_loss(exam.with_network(method.module, file, method.file_scale))
    trained = exam.with_network(method.module, last, method.file_scale)
    best = min(losses, key=lambda step: losses[step])
    measured = {
        "held_out": {str(step): round(loss, 5) for step, loss in losses.items()},
        "end": losses[steps],
        "best": losses[best],
        "best_step": best,
        **exam.measure(trained, folder.with_suffix(".png")),
        **describe_file(last),
        "cpu_seconds": round(seconds, 1),
    }
    for path in folder.glob("network-step*.safetensors"):
        path.unlink()
    shutil.rmtree(folder / "pictures")
    return measured


def measured_steps(steps: int) -> list[int]:
    """The steps at which the held-out loss is measured: on multiples of a tenth, at which files are written."""
    every = max(1, steps // 10)
    multiples = {max(every, round(share * steps) // every * every) for share in MEASURED_AT[:-1]}
    return sorted({step for step in multiples if step < steps} | {steps})


def train(method: Method, folder: Path, steps: int, seed: int) -> float:
    """Run train_network.py on the folder's pictures; returns its CPU seconds."""
    import train_network

    random.seed(seed)  # LyCORIS draws DyLoRA's ranks from Python's own generator
    begun = time.process_time()
    code = train_network.main([*command_line(method, folder, steps, seed), "--overwrite"])
    if code:
        raise UserError(f"the arm {folder.name} ended with exit code {code}")
    return time.process_time() - begun


def command_line(method: Method, folder: Path, steps: int, seed: int) -> list[str]:
    """The options of train_network.py for an arm."""
    options = {
        "pretrained_model_name_or_path": MODEL,
        "train_data_dir": folder / "pictures",
        "caption_extension": ".txt",
        "resolution": "128,128",
        "network_module": method.module,
        "network_dim": method.dim,
        "network_alpha": method.alpha or method.dim,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler": "constant_with_warmup",
        "lr_warmup_steps": WARM_UP,
        "train_batch_size": BATCH,
        "max_train_steps": steps,
        "save_every_n_steps": max(1, steps // 10),
        "seed": seed,
        "output_dir": folder,
        "output_name": "network",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    arguments = ["--network_args", *method.arguments] if method.arguments else []
    return ["--network_train_unet_only", "--cache_latents", *words, *arguments]


def describe_file(file: Path) -> dict[str, Any]:
    """Size and parameters of a network file; and what AC-LoRA found, where the file tells it."""
    with safe_open(file, "pt") as stored:
        metadata: Mapping[str, str] = stored.metadata() or {}
        shapes = [stored.get_slice(name).get_shape() for name in stored.keys() if not name.endswith(".alpha")]  # noqa: SIM118
    return {
        "kilobytes": round(file.stat().st_size / 1000),
        "parameters": int(sum(np.prod(shape) for shape in shapes)),
        **ranks_found(metadata),
    }


def ranks_found(metadata: Mapping[str, str]) -> dict[str, float]:
    """How many RESTARTs AC-LoRA made, the mean rank of the modules at the last, and the one in the file."""
    restarts = json.loads(metadata.get("ss_ac_lora_restarts", "[]"))
    if not restarts:
        return {}
    in_file = json.loads(metadata["ss_ac_lora_ranks"])
    return {
        "restarts": len(restarts),
        "rank_found": restarts[-1]["mean_rank"],
        "rank_in_file": round(float(np.mean(list(in_file.values()))), 2),
    }
