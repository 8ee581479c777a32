"""Show the weights of a network file, a line for each: name, shape, mean and least absolute value."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started by its path: the repository is where `library` is found
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from library.command import run_command
from library.console import show


def check(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="networks/check_lora_weights.py", description=__doc__)
    parser.add_argument("file", type=Path, help="network file")
    parser.add_argument("-s", "--show_all_keys", action="store_true", help="also tensors that are no weights (alpha)")
    arguments = parser.parse_args(argv)

    # The engine is imported here and nowhere above: a mistake in the options must not wait for torch.
    from library.adapters.inspect_file import tensor_lines

    for line in tensor_lines(arguments.file, every=arguments.show_all_keys):
        show(line)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(check, argv)


if __name__ == "__main__":
    sys.exit(main())
