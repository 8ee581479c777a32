"""Print the metadata of a .safetensors file as JSON, in the order of names: networks/show_metadata.py --model FILE"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started by its path: the repository is where `library` is found
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from library.command import run_command
from library.console import show
from library.errors import UserError


def show_metadata(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="networks/show_metadata.py", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="file to look into")
    parser.add_argument("--unpack", action="store_true", help="show entries that are JSON themselves as what they hold")
    arguments = parser.parse_args(argv)

    # The engine is imported here and nowhere above: a mistake in the options must not wait for torch.
    from library.adapters.inspect_file import unpacked
    from library.files import read_metadata

    metadata = read_metadata(arguments.model)
    if not metadata:
        raise UserError(f"`{arguments.model}` holds no metadata; only .safetensors files can have some")
    show(json.dumps(unpacked(metadata) if arguments.unpack else metadata, indent=4, sort_keys=True, ensure_ascii=False))


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(show_metadata, argv)


if __name__ == "__main__":
    sys.exit(main())
