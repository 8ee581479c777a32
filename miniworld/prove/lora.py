"""`python -m miniworld.prove lora`: a plain LoRA on each held-out style, at ranks 1 to 64.

Every arm (style, rank, seed) is a run of train_network.py on the style's 15 pictures; its files along the way are
judged by the denoising loss on 32 pictures of other content, and the last one also by the judge's style score and by
whether its pictures still show what the prompt names. Arms are kept as lines of JSON, keyed by their settings: a second
call goes on where the first stopped, and `--minutes` stops in time. Prints the table; writes it and grids of pictures.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from library.errors import UserError
from library.files import write_text
from library.models.family import StableDiffusion
from library.models.load import load_model
from library.training.network import NetworkSpec, create_network
from miniworld.draw import write_dataset
from miniworld.judge import Judge
from miniworld.pretrain.preview import save_grid
from miniworld.prove.measures import HeldOut, content_score, draw
from miniworld.sets import style_set
from miniworld.styles import HELD_OUT_STYLES
from networks import lora

MODEL = Path(__file__).parents[1] / "model"
RANKS = (1, 4, 16, 64, 2, 8, 32)  # the ends and the middle of the curve first
SHOWN = 8
"""Pictures of each arm in the grid."""


def prove(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m miniworld.prove lora", description=__doc__)
    parser.add_argument("--styles", nargs="*", default=list(HELD_OUT_STYLES), help="which styles (all)")
    parser.add_argument("--ranks", nargs="*", type=int, default=list(RANKS), help="which ranks")
    parser.add_argument("--steps", type=int, default=600, help="optimizer steps of an arm")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds")
    parser.add_argument("--minutes", type=float, help="begin no arm after this time")
    parser.add_argument("--output", type=Path, default=Path("output/prove/lora"))
    arguments = parser.parse_args(argv)
    unknown = [style for style in arguments.styles if style not in HELD_OUT_STYLES]
    if unknown:
        raise UserError(f"{unknown[0]} is not a held-out style; they are {', '.join(HELD_OUT_STYLES)}")
    torch.set_num_threads(1)
    end = time.monotonic() + 60 * arguments.minutes if arguments.minutes else float("inf")
    results = Results(arguments.output / "arms.jsonl")
    for seed in range(arguments.seeds):
        for rank in arguments.ranks:
            for style in arguments.styles:
                key = {"style": style, "rank": rank, "steps": arguments.steps, "seed": seed}
                if results.find(key) is None and time.monotonic() < end:
                    results.add(key, arm(style, rank, arguments.steps, seed, arguments.output))
    text = table(results.arms, arguments.steps)
    write_text(arguments.output / "table.md", text)
    print(text)


class Results:
    """Finished arms, one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.arms: list[dict[str, Any]] = [json.loads(line) for line in lines if line.endswith("}")]

    def find(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        return next((arm for arm in self.arms if all(arm[name] == value for name, value in key.items())), None)

    def add(self, key: Mapping[str, Any], measured: Mapping[str, Any]) -> None:
        self.arms.append({**key, **measured})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.arms[-1]) + "\n")
        print(json.dumps(self.arms[-1]), flush=True)


def arm(style: str, rank: int, steps: int, seed: int, output: Path) -> dict[str, Any]:
    """Train and measure one arm."""
    import train_network

    folder = output / f"{style}-{rank}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    write_dataset(folder / "pictures" / f"1_{style}", style_set(style, "train"))
    every = max(1, steps // 10)
    options = {
        "pretrained_model_name_or_path": MODEL,
        "train_data_dir": folder / "pictures",
        "caption_extension": ".txt",
        "resolution": "128,128",
        "network_module": "networks.lora",
        "network_dim": rank,
        "network_alpha": rank,
        "learning_rate": 1e-3,
        "lr_scheduler": "constant_with_warmup",
        "lr_warmup_steps": 20,
        "train_batch_size": 4,
        "max_train_steps": steps,
        "save_every_n_steps": every,
        "seed": seed,
        "output_dir": folder,
        "output_name": "lora",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    begun = time.process_time()
    code = train_network.main(["--network_train_unet_only", "--cache_latents", *words])
    if code:
        raise UserError(f"the arm {folder.name} ended with exit code {code}")
    seconds = time.process_time() - begun
    measured = measure(style, folder, steps, every)
    for path in folder.glob("lora-step*.safetensors"):
        path.unlink()
    return {**measured, "file_kilobytes": (folder / "lora.safetensors").stat().st_size // 1000, "cpu_seconds": seconds}


def measure(style: str, folder: Path, steps: int, every: int) -> dict[str, Any]:
    """The base model's and the network's figures on the style's test pictures."""
    test = style_set(style, "test")
    captions = [picture.caption for picture in test[:16]]
    base, judge = load_model(MODEL), Judge.load()
    held_out = HeldOut(base, test)
    before = draw(base, captions)
    losses = {0: held_out.loss(base)}
    for step in range(every, steps + 1, every):
        losses[step] = held_out.loss(with_network(folder / f"lora-step{step:08d}.safetensors"))
    after = draw(with_network(folder / "lora.safetensors"), captions)
    truth = np.stack([picture.image for picture in test[:SHOWN]])
    rows = [torch.from_numpy(rows[:SHOWN]).permute(0, 3, 1, 2) / 127.5 - 1 for rows in (truth, before, after)]
    save_grid(torch.cat(rows), folder.parent / f"{folder.name}.png", columns=SHOWN)
    best = min(losses, key=lambda step: losses[step])
    return {
        "held_out": {str(step): round(loss, 5) for step, loss in losses.items()},
        "base": losses[0],
        "end": losses[steps],
        "best": losses[best],
        "best_step": best,
        "style_before": judge.style_score(before, style),
        "style_after": judge.style_score(after, style),
        "content_before": content_score(judge, before, test[:16]),
        "content_after": content_score(judge, after, test[:16]),
    }


def with_network(file: Path) -> StableDiffusion:
    """The mini model with a trained network applied."""
    model = load_model(MODEL)
    spec = NetworkSpec(network_weights=file, dim_from_weights=True)
    options: Any = SimpleNamespace()
    create_network(lora, spec, {}, model, options).eval().requires_grad_(False)
    return model


def table(arms: Sequence[Mapping[str, Any]], steps: int) -> str:
    """Markdown: for every style and rank the held-out loss at the end and at the best step; means over the seeds."""
    lines = [
        f"Held-out denoising loss of a plain LoRA, at {steps} steps / at its best step (of ten).",
        "",
        "| style | rank | n | base | end | best (step) | style score before, after | content before, after |",
        "|---|---|---|---|---|---|---|---|",
    ]
    chosen = [arm for arm in arms if arm["steps"] == steps]
    for style, rank in sorted({(arm["style"], arm["rank"]) for arm in chosen}):
        same = [arm for arm in chosen if (arm["style"], arm["rank"]) == (style, rank)]
        mean = {
            name: float(np.mean([arm[name] for arm in same])) for name in same[0] if name not in ("style", "held_out")
        }
        lines.append(
            f"| {style} | {rank} | {len(same)} | {mean['base']:.4f} | {mean['end']:.4f} | "
            f"{mean['best']:.4f} ({mean['best_step']:.0f}) | {mean['style_before']:.2f}, {mean['style_after']:.2f} | "
            f"{mean['content_before']:.2f}, {mean['content_after']:.2f} |"
        )
    return "\n".join(lines) + "\n"
