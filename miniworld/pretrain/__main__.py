"""`python -m miniworld.pretrain`: from nothing to `miniworld/model`.

    drawings      the pretraining set                      train.npy, validation.npy, art.npy
    tokenizer     a CLIP tokenizer of the world's words    tokenizer/
    vae           the autoencoder                          vae/
    latents       every drawing, encoded                   latents.pt
    text_encoder  the text encoder, by contrast            text_encoder.pt
    unet          the U-Net, and the text encoder with it  unet.checkpoint.pt, unet-*.png
    assemble      fp16 weights in diffusers layout         --output

Every stage goes on where it was stopped, at most two minutes back; finished stages are skipped. `--processes` may
change in between: the global batch is cut over them. On two processors the defaults take about two hours; on a GPU
(`--device cuda`) batches, drawings and steps are larger.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from miniworld.captions import VOCABULARY
from miniworld.pretrain import text_encoder, unet, vae
from miniworld.pretrain.assemble import assemble
from miniworld.pretrain.drawings import draw_all
from miniworld.pretrain.latents import encode_all
from miniworld.pretrain.lockstep import launch
from miniworld.tokenizer import write_tokenizer

STAGES = ("drawings", "tokenizer", "vae", "latents", "text_encoder", "unet", "assemble")
SHARE_OF_TIME = {"vae": 0.35, "text_encoder": 0.03, "unet": 0.55}
"""Of `--minutes`; the rest is for the stages that do not train."""


@dataclass(frozen=True)
class PretrainSize:
    """How much of everything; what a machine can do in an evening, or a GPU in minutes."""

    drawings: int
    vae_steps: int
    vae_crops: int
    text_steps: int
    text_groups: int
    unet_steps: int
    unet_batch: int


SIZES = {
    "cpu": PretrainSize(
        40_000, vae_steps=2600, vae_crops=36, text_steps=450, text_groups=2, unet_steps=7800, unet_batch=32
    ),
    "cuda": PretrainSize(
        200_000, vae_steps=6000, vae_crops=144, text_steps=1500, text_groups=8, unet_steps=12_000, unet_batch=128
    ),
}


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    size = SIZES[options.device]
    folder, seed, processes, device = options.work, options.seed, options.processes, options.device
    folder.mkdir(parents=True, exist_ok=True)

    def minutes(stage: str) -> float | None:
        return options.minutes and options.minutes * SHARE_OF_TIME[stage]

    def steps(stage: str, default: int) -> int | None:
        return getattr(options, f"{stage}_steps") or (None if options.minutes else default)

    vae_recipe = vae.VaeRecipe(steps("vae", size.vae_steps), minutes("vae"), size.vae_crops)
    text_recipe = text_encoder.TextEncoderRecipe(
        steps("text_encoder", size.text_steps), minutes("text_encoder"), size.text_groups
    )
    unet_recipe = unet.UNetRecipe(steps("unet", size.unet_steps), minutes("unet"), size.unet_batch)
    counts = {"validation": 512, "art": 2000, "train": options.drawings or size.drawings}

    stages: dict[str, Callable[[], object]] = {
        "drawings": lambda: draw_all(folder, seed, counts, processes),
        "tokenizer": lambda: write_tokenizer(VOCABULARY, folder / "tokenizer"),
        "vae": lambda: launch(vae.train, processes, device, folder, seed, vae_recipe),
        "latents": lambda: encode_all(folder, processes, device),
        "text_encoder": lambda: launch(text_encoder.train, processes, device, folder, seed, text_recipe),
        "unet": lambda: launch(unet.train, processes, device, folder, seed, unet_recipe),
        "assemble": lambda: assemble(folder, options.output),
    }
    for stage in STAGES if options.stage == "all" else (options.stage,):
        stages[stage]()


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m miniworld.pretrain", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stage", choices=("all", *STAGES), default="all")
    parser.add_argument(
        "--work", type=Path, default=Path("output/pretrain"), help="drawings, checkpoints, sample grids"
    )
    parser.add_argument("--output", type=Path, default=Path("miniworld/model"), help="where the finished model goes")
    parser.add_argument("--device", choices=tuple(SIZES), default="cpu")
    parser.add_argument(
        "--processes", type=int, default=1, help="of one thread each, in lock step; 2 on two processors"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, help="wall time of all training: picks the numbers of steps")
    parser.add_argument("--drawings", type=int, help="pictures of the pretraining set")
    for stage in ("vae", "text_encoder", "unet"):
        parser.add_argument(f"--{stage}_steps", type=int, help=f"steps of the stage `{stage}`, also of a resumed one")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
