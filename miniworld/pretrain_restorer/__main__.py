"""`python -m miniworld.pretrain_restorer`: from the mini model to `miniworld/restorer`.

    faces     drawn faces and damaged versions of them, as latents     faces/*.pt
    encoder   the IRControlNet E, around the frozen mini U-Net          encoder.checkpoint.pt, encoder-*.png
    assemble  E's averaged weights in fp16, in diffusers layout         --output
    measure   what it makes of faces it has not seen                    measured.json, measured.png

Every stage goes on where it was stopped, at most two minutes back; finished stages are skipped. On one processor the
defaults take about half an hour; on a GPU (`--device cuda`) batches and steps are larger.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from miniworld.pretrain.lockstep import launch
from miniworld.pretrain_restorer import encoder
from miniworld.pretrain_restorer.assemble import assemble
from miniworld.pretrain_restorer.faces import encode_faces
from miniworld.pretrain_restorer.measure import measure

STAGES = ("faces", "encoder", "assemble", "measure")
MODEL = Path(__file__).parents[1] / "model"
RESTORER = Path(__file__).parents[1] / "restorer"


@dataclass(frozen=True)
class RestorerSize:
    """How much of everything."""

    faces: int
    versions: int
    """Damaged pictures of each face."""
    steps: int
    batch: int


SIZES = {"cpu": RestorerSize(16_000, 2, 1000, 32), "cuda": RestorerSize(50_000, 4, 12_000, 128)}


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    size = SIZES[options.device]
    folder, seed, processes, device = options.work, options.seed, options.processes, options.device
    folder.mkdir(parents=True, exist_ok=True)
    if device == "cpu":
        torch.set_num_threads(1)
    faces, versions = options.faces or size.faces, options.versions or size.versions
    steps = options.steps or (None if options.minutes else size.steps)
    recipe = encoder.EncoderRecipe(steps, options.minutes, faces, options.batch or size.batch)

    stages: dict[str, Callable[[], object]] = {
        "faces": lambda: encode_faces(folder, options.model, seed, faces, versions, processes, device),
        "encoder": lambda: launch(encoder.train, processes, device, folder, options.model, seed, recipe),
        "assemble": lambda: assemble(folder, options.model, options.output),
        "measure": lambda: measure(folder, options.model, options.output, seed, device),
    }
    for stage in STAGES if options.stage == "all" else (options.stage,):
        stages[stage]()


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m miniworld.pretrain_restorer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--stage", choices=("all", *STAGES), default="all")
    parser.add_argument("--model", type=Path, default=MODEL, help="the mini model that is to restore")
    parser.add_argument("--work", type=Path, default=Path("output/pretrain_restorer"), help="checkpoints, sample grids")
    parser.add_argument("--output", type=Path, default=RESTORER, help="where the finished E goes")
    parser.add_argument("--device", choices=tuple(SIZES), default="cpu")
    parser.add_argument("--processes", type=int, default=1, help="of one thread each, in lock step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, help="wall time of the stage `encoder`: picks the number of steps")
    parser.add_argument("--steps", type=int, help="steps of the stage `encoder`, also of a resumed one")
    parser.add_argument("--batch", type=int, help="faces in a step, over all processes")
    parser.add_argument("--faces", type=int, help="faces to train on")
    parser.add_argument("--versions", type=int, help="damaged pictures of each face")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
