"""`python -m miniworld.prove overfit`: does the verdict at the end of a run tell whether it overfitted?

Every arm is a run of train_network.py with `save_best` on 15 drawn pictures of a style: far too long and too strong,
or gentle. Some of the pictures are held out, by which the run chooses its best step; the truth is the loss on 32 other
pictures of the style, of the best file and of the last one. Each seed draws other pictures and holds out others.

Arms are kept as lines of JSON, keyed by their settings: a second call goes on where the first stopped, and `--minutes`
stops in time. Prints the table of the finished arms; `--write-docs FILE` puts it there between its marks.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from library.errors import UserError
from library.files import write_text
from library.models.family import StableDiffusion
from library.models.load import load_model
from miniworld.draw import write_dataset
from miniworld.prove.exam import MODEL, with_file
from miniworld.prove.measures import HeldOut
from miniworld.prove.results import Results, add_options, measure_what_is_missing
from miniworld.prove.tables import cell, markdown, write_between_marks
from miniworld.sets import style_set

OUTPUT = Path("output/prove/overfit")
STYLE = "oil"
BATCH, MEASURED_EVERY = 2, 20  # pictures in a step, steps


@dataclass(frozen=True)
class OverfitArm:
    """How strongly and how long a LoRA is trained."""

    name: str
    rank: int
    learning_rate: float
    steps: int


ARMS = {
    arm.name: arm
    for arm in (
        OverfitArm("too long", 64, 2e-3, 200),
        OverfitArm("far too long", 64, 2e-3, 400),
        OverfitArm("gentle", 4, 5e-4, 120),
    )
}


def prove(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m miniworld.prove overfit", description=__doc__)
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=list(ARMS), help="which arms (all)")
    parser.add_argument("--write-docs", type=Path, metavar="FILE", help="put the table between its marks in this file")
    add_options(parser, OUTPUT)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    results = Results(arguments.output / "arms.jsonl")
    base = load_model(MODEL)
    keys = [
        {**asdict(ARMS[name]), "style": STYLE, "seed": seed}
        for seed in range(arguments.seeds)
        for name in arguments.arms
    ]
    measure_what_is_missing(
        results, keys, lambda key: train_and_measure(key, base, arguments.output), arguments.minutes
    )
    text = results.signed(table(results.arms))
    write_text(arguments.output / "table.md", text)
    if arguments.write_docs:
        write_between_marks(arguments.write_docs, "prove overfit", text)
    print(text)


def train_and_measure(key: Mapping[str, Any], base: StableDiffusion, output: Path) -> dict[str, Any]:
    """Train one arm, and measure its best and its last file on pictures of the style that it has never seen."""
    folder = output / f"{key['name'].replace(' ', '-')}-{key['seed']}"
    shutil.rmtree(folder, ignore_errors=True)
    write_dataset(folder / "pictures" / f"1_{STYLE}", style_set(STYLE, "train", key["seed"]))
    train(key, folder)
    fresh = HeldOut(base, style_set(STYLE, "test", key["seed"]))
    log = [json.loads(line) for line in (folder / "network-log.jsonl").read_text(encoding="utf-8").splitlines()]
    verdict = next(line for line in reversed(log) if line.get("event") == "verdict")
    measured = {
        "best_step": verdict["best_step"],
        "overfitted": verdict["overfitted"],
        "held_out_best": verdict["best_loss"],
        "held_out_last": verdict["last_loss"],
        "difference": verdict["difference"],
        "interval": verdict["interval"],
        "fresh_best": fresh.loss(with_file(base, folder / "network-best.safetensors")),
        "fresh_last": fresh.loss(with_file(base, folder / "network.safetensors")),
    }
    shutil.rmtree(folder / "pictures")
    for file in folder.glob("*.safetensors"):
        file.unlink()
    return measured


def train(key: Mapping[str, Any], folder: Path) -> None:
    """Run train_network.py on the folder's pictures."""
    import train_network

    if code := train_network.main([*command_line(key, folder), "--overwrite"]):
        raise UserError(f"the arm {folder.name} ended with exit code {code}")


def command_line(key: Mapping[str, Any], folder: Path) -> list[str]:
    """The options of train_network.py for an arm."""
    options = {
        "pretrained_model_name_or_path": MODEL,
        "train_data_dir": folder / "pictures",
        "caption_extension": ".txt",
        "resolution": "128,128",
        "network_module": "networks.lora",
        "network_dim": key["rank"],
        "network_alpha": key["rank"],
        "learning_rate": key["learning_rate"],
        "lr_scheduler": "constant_with_warmup",
        "lr_warmup_steps": 20,
        "train_batch_size": BATCH,
        "max_train_steps": key["steps"],
        "validate_every_n_steps": MEASURED_EVERY,
        "validation_seed": key["seed"],
        "seed": key["seed"],
        "output_dir": folder,
        "output_name": "network",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return ["--network_train_unet_only", "--cache_latents", "--save_best", "--no-report", *words]


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """A row for each kind of arm: how often it was called overfitted, and how often its best file was the better."""
    rows = []
    for name, arm in ARMS.items():
        mine = [result for result in results if all(result.get(field) == value for field, value in asdict(arm).items())]
        if mine:
            called = sum(result["overfitted"] for result in mine)
            better = sum(result["fresh_best"] < result["fresh_last"] for result in mine)
            steps = sorted(result["best_step"] for result in mine)
            figures = [
                cell(mine, column, 4) for column in ("held_out_best", "held_out_last", "fresh_best", "fresh_last")
            ]
            counts = [f"{called} of {len(mine)}", f"{better} of {len(mine)}"]
            rows.append([name, arm.rank, arm.learning_rate, arm.steps, f"{steps[0]} to {steps[-1]}", *figures, *counts])
    head = ["arm", "rank", "rate", "steps", "best step", "held out: best", "last", "fresh: best", "last"]
    return markdown([*head, "called overfitted", "best file is better on fresh pictures"], rows)
