"""Merge networks into a model, or into one network: networks/merge_lora.py --sd_model model.safetensors --models a b
--ratios 0.7 0.5 --save_to merged.safetensors; without --sd_model the networks become one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started by its path: the repository is where `library` is found
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from library.command import run_command
from library.config.option import Settings
from library.config.options.config import CONFIG
from library.config.options.network_tools import MERGE, asked, merge_problems, written_to
from library.config.parse import parse
from library.console import show

CHECKS = (asked("models", "ratios", "save_to"), merge_problems, written_to("models", "sd_model"))


def merge(argv: Sequence[str]) -> None:
    description = " ".join(str(__doc__).split())
    settings = parse(argv, MERGE, CONFIG, prog="networks/merge_lora.py", description=description, checks=CHECKS)
    merge_by(settings)


def merge_by(settings: Settings, *, sdxl: bool = False) -> None:
    """What the options of either merge command ask for."""
    # The engine is imported here and nowhere above: a mistake in the options must not wait for torch.
    from library.adapters.block_weights import read_block_weights
    from library.adapters.merge_commands import Result, is_file_name, merge_into_model, merge_together, read_weighted
    from library.adapters.merge_model import MergePrecision
    from library.adapters.merge_networks import added, concatenated
    from library.adapters.save_network import PRECISIONS
    from library.adapters.tool_arguments import check_target, chosen_device
    from library.models.family import Family

    device = chosen_device(settings["device"])
    save_to, is_sd2 = settings["save_to"], bool(settings.values.get("v2"))
    has_folder = Path(settings["sd_model"] or "no model").is_dir()
    check_target(save_to, folder=has_folder and not is_file_name(save_to))
    blocks = read_block_weights(settings.values.get("lbws") or [], is_sdxl=True)
    networks = read_weighted(settings["models"], settings["ratios"], blocks)
    work, save = PRECISIONS[settings["precision"]], PRECISIONS.get(settings["save_precision"])
    if settings["sd_model"]:
        model = Path(settings["sd_model"])
        family = Family.SDXL if sdxl else None
        options = {"family": family, "is_sd2": is_sd2, "brief": settings["no_metadata"], "device": device}
        lines = merge_into_model(networks, model, save_to, MergePrecision(work, save), **options)
    else:
        result = Result(save_to, save or work, brief=settings["no_metadata"], is_sd2=is_sd2)
        way = concatenated if settings["concat"] else added
        lines = merge_together(networks, way, result, shuffle=settings["shuffle"])
    for line in lines:
        show(line)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(merge, argv)


if __name__ == "__main__":
    sys.exit(main())
