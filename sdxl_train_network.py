"""`train_network.py` under the name by which scripts written for sd-scripts start the training of an SDXL network."""

import sys
from collections.abc import Sequence

from library.command import run_command
from train_network import launched


def launched_for_sdxl(argv: Sequence[str]) -> None:
    """As `--sdxl`: a model of another family is reported, and trained as what it is."""
    launched([*argv, "--sdxl"])


if __name__ == "__main__":
    sys.exit(run_command(launched_for_sdxl))
