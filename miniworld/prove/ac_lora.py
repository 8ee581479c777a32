"""`python -m miniworld.prove ac_lora`: the shape of the AC-LoRA paper's Table 1, on held-out styles of the mini model.

The base model, LoRA at fixed ranks, DyLoRA and LoKr (of lycoris-lora 3.4.0), and AC-LoRA by both of its presets: each
arm a run of train_network.py on a style's 15 pictures, under the same learning rate, batch, steps and layers. AutoLoRA,
also in that table, is left out: it needs a validation set and a second optimizer. Arms are kept as lines of JSON, keyed
by their settings, and shared with `prove lora`: a second call goes on where the first stopped, and `--minutes` stops in
time. Prints the tables of the finished arms and what they say; `--write-docs FILE` puts it there between its marks.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from miniworld.prove.arms import Method, lora
from miniworld.prove.sweep import add_style_options, prove_on_styles
from miniworld.prove.verdict import report


def ac_lora(preset: str, rank: int) -> Method:
    return Method(f"AC-LoRA {preset}", rank, "networks.ac_lora", (f"ac_mode={preset}",))


LAYERS = "preset=attn-mlp"  # the linear layers and 1 x 1 convolutions of the transformer blocks, as networks.lora
DYLORA = Method("DyLoRA", 32, "lycoris.kohya", ("algo=dylora", "block_size=4", LAYERS), alpha=8, file_scale=4)
"""Eight blocks of four ranks, each trained in one step of eight, at a scale of 1 where all are in use. LyCORIS 3.4.0
trains at alpha / blocks but writes a file that others read as alpha / rank: a fourth, which is put right here."""
LOKR = Method("LoKr", 32, "lycoris.kohya", ("algo=lokr", LAYERS))
"""Both Kronecker factors whole (LyCORIS' own choice at this width), factors as equal as they can be."""

FIRST = [lora(4), ac_lora("product", 32), lora(64), lora(1), ac_lora("paper", 32), lora(16), DYLORA, LOKR]
THEN = [lora(2), lora(8), lora(32), ac_lora("product", 64), ac_lora("paper", 64)]


def prove(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m miniworld.prove ac_lora", description=__doc__)
    parser.add_argument("--all", action="store_true", help="also LoRA 2, 8, 32 and AC-LoRA at a maximum rank of 64")
    add_style_options(parser)
    arguments = parser.parse_args(argv)
    prove_on_styles(FIRST + THEN * arguments.all, arguments, "ac_lora", report)
