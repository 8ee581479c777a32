"""Merge networks of any ranks into one LoRA of a new rank, the best approximation of their sum:
networks/svd_merge_lora.py --models a.safetensors b.safetensors --ratios 0.7 0.5 --new_rank 16 --save_to c.safetensors
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started by its path: the repository is where `library` is found
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from library.command import run_command
from library.config.options.config import CONFIG
from library.config.options.network_tools import SVD_MERGE, asked, merge_problems, written_to
from library.config.parse import parse
from library.console import show


def merge(argv: Sequence[str]) -> None:
    name, description = "networks/svd_merge_lora.py", " ".join(str(__doc__).split())
    checks = (asked("models", "ratios", "save_to"), merge_problems, written_to("models"))
    settings = parse(argv, SVD_MERGE, CONFIG, prog=name, description=description, checks=checks)

    # The engine is imported here and nowhere above: a mistake in the options must not wait for torch.
    from library.adapters.block_weights import read_block_weights
    from library.adapters.merge_commands import Result, merge_together, read_weighted
    from library.adapters.merge_networks import decomposed
    from library.adapters.ranks import RankChoice
    from library.adapters.save_network import PRECISIONS
    from library.adapters.tool_arguments import check_target, chosen_device

    device = chosen_device(settings["device"])
    check_target(settings["save_to"])
    networks = read_weighted(settings["models"], settings["ratios"], read_block_weights(settings["lbws"] or []))
    rank, conv_rank = settings["new_rank"], settings["new_conv_rank"] or settings["new_rank"]
    dtype = PRECISIONS[settings["save_precision"] or settings["precision"]]
    arguments = {"conv_dim": str(conv_rank), "conv_alpha": str(conv_rank)} if settings["new_conv_rank"] else None
    result = Result(settings["save_to"], dtype, brief=settings["no_metadata"], arguments=arguments)
    for line in merge_together(networks, decomposed(RankChoice(rank, conv_rank), device), result):
        show(line)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(merge, argv)


if __name__ == "__main__":
    sys.exit(main())
