"""Give a LoRA other ranks: networks/resize_lora.py --model in.safetensors --new_rank 16 --save_to out.safetensors"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started by its path: the repository is where `library` is found
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from library.command import run_command
from library.config.options.config import CONFIG
from library.config.options.network_tools import RESIZE, asked, resize_problems, written_to
from library.config.parse import parse
from library.console import show


def resize(argv: Sequence[str]) -> None:
    checks = (asked("model", "save_to"), resize_problems, written_to("model"))
    settings = parse(
        argv, RESIZE, CONFIG, prog="networks/resize_lora.py", description=str(__doc__).splitlines()[0], checks=checks
    )

    # The engine is imported here and nowhere above: a mistake in the options must not wait for torch.
    from tqdm import tqdm

    from library.adapters.layers import read_network
    from library.adapters.ranks import RankChoice
    from library.adapters.resize import resize_layers, resized_metadata, resized_tensors, summary, with_same_alpha
    from library.adapters.save_network import PRECISIONS, write_network
    from library.adapters.tool_arguments import check_target, chosen_device

    device = chosen_device(settings["device"])
    check_target(settings["save_to"])
    file = read_network(settings["model"])
    choice = RankChoice(
        settings["new_rank"],
        settings["new_conv_rank"] or settings["new_rank"],
        settings["dynamic_method"],
        settings["dynamic_param"],
    )
    layers = resize_layers(file, choice, device)
    resized = list(tqdm(layers, desc="resizing", total=len(file.layers), unit="layer", disable=None))
    if settings["same_alpha"]:
        resized = with_same_alpha(resized)
    metadata = resized_metadata(file.metadata, resized, choice, same_alpha=settings["same_alpha"])
    dtype = PRECISIONS[settings["save_precision"] or "float"]
    write_network(settings["save_to"], resized_tensors(resized) | file.rest, dtype, metadata)
    for layer in resized if settings["verbose"] else ():
        show(str(layer))
    show(f"Wrote {settings['save_to']}: {summary(resized)}")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(resize, argv)


if __name__ == "__main__":
    sys.exit(main())
