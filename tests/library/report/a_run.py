"""A run's files without a run: a log of any length, samples, weights, as a training leaves them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

DATA = {
    "event": "data",
    "step": 0,
    "images": 15,
    "repeats": 4,
    "buckets": [{"size": [512, 768], "images": 10}, {"size": [768, 512], "images": 5}],
    "problems": [{"kind": "corrupt", "file": "/home/ana/bad.png", "sentence": "cannot be opened"}],
}
VERDICT = {
    "event": "verdict",
    "step": 60,
    "sentence": "the run overfits: the held-out loss has grown",
    "best_step": 40,
    "best_file": "style-best.safetensors",
    "best_loss": 0.21875,
    "last_loss": 0.25,
    "difference": 0.03125,
    "interval": [0.015625, 0.046875],
    "overfitted": True,
}


def picture(path: Path, number: int, side: int = 64, **texts: str) -> Path:
    """Soft blotches that no two numbers share."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    info = PngInfo()
    for name, text in texts.items():
        info.add_itxt(name, text)
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(path, pnginfo=info)
    return path


def loss_at(step: int) -> float:
    return 0.1 + 0.2 * math.exp(-step / 40) + 0.05 * math.sin(step * 12.9898)


def step_line(step: int, per_epoch: int = 10) -> dict[str, Any]:
    return {
        "step": step,
        "epoch": (step - 1) // per_epoch + 1,
        "loss": loss_at(step),
        "avr_loss": loss_at(step) + 1e-7 * step,
        "gradient_norm": 0.5,
        "lr": {"unet": 1e-4 * step, "text_encoder": 5e-5},
        "seconds": 0.25 + 0.01 * (step % 3),
    }


def findings_line(step: int, modules: int = 6, restarts: int = 3) -> dict[str, Any]:
    rows = [f"lora_unet_down_blocks_{i}" for i in range(modules)]
    return {
        "event": "findings",
        "step": step,
        "trainable": "network",
        "moved": 12,
        "tensors": 12,
        "change": 0.0123456789,
        "lines": ["rank was needed most in the middle"],
        "failure": None,
        "series": {
            "threshold": {"x": [1, 2, 3], "lines": {"p": [0.9, None, 0.97]}, "x_label": "epochs", "y_label": ""}
        },
        "heat_maps": {
            "ranks": {
                "rows": rows,
                "columns": [str(i) for i in range(restarts)],
                "values": [[(r + c) % 7 + 1 for c in range(restarts)] for r in range(modules)],
                "label": "rank after each RESTART",
                "groups": ["down" if 2 * r < modules else "up" for r in range(modules)],
            }
        },
        "tables": {"norms": {"columns": ["vector", "norm"], "rows": [["clip_l_0", 0.4375]]}},
        "pictures": {},
    }


def settings_line(**values: Any) -> dict[str, Any]:
    told = {"network_dim": 8, "output_dir": "/home/ana/out", "wandb_api_key": "(secret)"} | values
    settings: dict[str, Any] = {
        name: {"value": value, "origin": "style.toml line 3", "path": name.endswith("_dir")}
        for name, value in told.items()
    }
    settings["clip_skip"] = {"value": None, "origin": "default"}
    return {
        "event": "settings",
        "step": 0,
        "settings": settings,
        "no_effect": ["`lowram` in style.toml line 4 has no effect"],
        "notes": [],
        "command": "train_network.py --config_file /home/ana/style.toml",
        "versions": {"torch": "2.13.0"},
        "started": "2026-11-21 12:00:00",
    }


def make_run(
    folder: Path,
    *,
    name: str = "style",
    steps: int = 60,
    prompts: tuple[str, ...] = ("a red boat", "a blue house"),
    samples_at: tuple[int, ...] = (0, 20, 40, 60),
    images: int = 3,
    captions: tuple[str, ...] = (),
    ended: bool = True,
    more: tuple[dict[str, Any], ...] = (),
) -> Path:
    """Write the files of a run into `folder`; returns its log. `more` are further lines of the log."""
    data = [picture(folder / "data" / f"{i}.png", 100 + i) for i in range(images)]
    told = list(captions) or [f"caption {i}" for i in range(images)]
    lines: list[dict[str, Any]] = [
        {"event": "begin", "step": 0, "total_steps": steps, "total_epochs": -(-steps // 10)},
        settings_line(),
        {"event": "images", "step": 0, "count": images, "pictures": [str(p) for p in data], "captions": told},
    ]
    for step in range(steps + 1):
        if step:
            lines.append(step_line(step))
        if step in samples_at:
            files = [
                picture(folder / "sample" / f"{name}_{step:06d}_{i:02d}.png", 1000 * step + i, prompt=prompt, seed="7")
                for i, prompt in enumerate(prompts)
            ]
            lines.append({"event": "samples", "step": step, "files": [file.name for file in files]})
        if step and step % 20 == 0:
            lines.append(
                {"event": "validation", "step": step, "epoch": step // 10, "validation_loss": 0.3 - step / 500}
            )
            lines.append({"event": "restart", "step": step, "before": step + 1, "epoch": step // 10, "p": 0.9})
    lines += more
    if ended:
        weights = folder / f"{name}.safetensors"
        weights.write_bytes(b"weights" * 1000)
        lines.append({"event": "saved", "step": steps, "file": weights.name})
        lines.append(findings_line(steps))
        spent = {"load": 2.5, "samples": 4.25, "steps": 15.5}
        lines.append(
            {"event": "time", "step": steps, "spent": spent, "peak_memory": 1_234_567_890, "memory_of": "this"}
        )
        lines.append({"event": "end", "step": steps, "seconds": 20.0, "skipped": 0, "trainables": {}})
    log = folder / f"{name}-log.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return log
