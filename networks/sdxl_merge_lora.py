"""networks/merge_lora.py for SDXL, which also takes weights by block: --lbws "[1,0.5,...]" for each network."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started by its path: the repository is where `library` is found
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from library.command import run_command
from library.config.options.config import CONFIG
from library.config.options.network_tools import SDXL_MERGE
from library.config.parse import parse
from networks.merge_lora import CHECKS, merge_by


def merge(argv: Sequence[str]) -> None:
    name = "networks/sdxl_merge_lora.py"
    merge_by(parse(argv, SDXL_MERGE, CONFIG, prog=name, description=str(__doc__), checks=CHECKS), sdxl=True)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(merge, argv)


if __name__ == "__main__":
    sys.exit(main())
