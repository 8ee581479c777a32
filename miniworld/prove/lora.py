"""`python -m miniworld.prove lora`: a plain LoRA on each held-out style, at ranks 1 to 64.

Every arm (style, rank, seed) is a run of train_network.py on the style's 15 pictures; its files along the way are
judged by the denoising loss on 32 pictures of other content, the last one also by what the judge sees in its pictures.
Arms are kept as lines of JSON, keyed by their settings, and shared with `prove ac_lora`: a second call goes on where
the first stopped, and `--minutes` stops in time. Prints the table of the finished arms; `--write-docs FILE` puts it
there between its marks.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from miniworld.prove.arms import lora
from miniworld.prove.sweep import add_style_options, prove_on_styles
from miniworld.prove.tables import cell, markdown

RANKS = (4, 1, 64, 16, 2, 8, 32)  # the middle and the ends of the curve first


def prove(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m miniworld.prove lora", description=__doc__)
    parser.add_argument("--ranks", nargs="*", type=int, default=list(RANKS), help="which ranks")
    add_style_options(parser)
    arguments = parser.parse_args(argv)
    prove_on_styles([lora(rank) for rank in arguments.ranks], arguments, "lora", table)


def table(results: Sequence[Mapping[str, Any]], steps: int) -> str:
    """The curve over ranks: for every style the held-out loss at the end and at the best step; means over the seeds."""
    chosen = [arm for arm in results if arm["method"] == "LoRA" and arm["steps"] == steps]
    base = {arm["style"]: arm for arm in results if arm["method"] == "base model"}
    rows = []
    for style, rank in sorted({(arm["style"], arm["dim"]) for arm in chosen}):
        same = [arm for arm in chosen if (arm["style"], arm["dim"]) == (style, rank)]
        untrained = f"{base[style]['end']:.4f}" if style in base else ""
        best = f"{cell(same, 'best', 4)} ({'/'.join(str(arm['best_step']) for arm in same)})"
        row = [style, rank, len(same), untrained, cell(same, "end", 4), best, cell(same, "prior", 3)]
        rows.append([*row, cell(same, "frechet", 0), cell(same, "style_score", 2), cell(same, "content_score", 2)])
    head = ["style", "rank", "n", "base", f"end ({steps})", "best (step)", "prior", "Fréchet", "style", "content"]
    return f"Held-out denoising loss of a plain LoRA over its rank.\n\n{markdown(head, rows)}"
