"""Commands for embeddings: python -m embeddings init | convert, each with --help.

init writes the vectors that a training would start from, for use in any program that loads an embedding or trains one;
convert goes from any layout of embedding files to any other.
"""

import os
import sys

# Started by its path, Python looks into this folder first, where random.py would hide the standard library's.
if sys.path and os.path.abspath(sys.path[0] or ".") == os.path.dirname(os.path.abspath(__file__)):
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from collections.abc import Callable, Sequence

from library.command import run_command
from library.console import show
from library.errors import ConfigError

COMMANDS = ("init", "convert")


def embeddings(argv: Sequence[str]) -> None:
    if argv and argv[0] in ("--help", "-h"):
        show(f"{__doc__}\nusage: python -m embeddings {' | '.join(COMMANDS)}  [--help]")
        return
    if not argv or argv[0] not in COMMANDS:
        raise ConfigError(f"say what to do: python -m embeddings {' | '.join(COMMANDS)}")
    command: Callable[[Sequence[str]], None]
    if argv[0] == "init":
        from embeddings.commands.init import init as command
    else:
        from embeddings.commands.convert import convert as command
    command(argv[1:])


if __name__ == "__main__":
    sys.exit(run_command(embeddings))
