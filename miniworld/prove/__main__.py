"""`python -m miniworld.prove WHAT`: each proof is a module beside this one, with a function `prove`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from library.command import run_command
from library.errors import ConfigError

PROOFS = ("lora", "ac_lora", "rank_bed", "dual_pivot", "cross_init", "overfit")


def prove(argv: Sequence[str]) -> None:
    if argv and argv[0] in ("-h", "--help"):
        print(f"usage: python -m miniworld.prove {' | '.join(PROOFS)} [--help]")
        sys.exit(0)
    if not argv or argv[0] not in PROOFS:
        raise ConfigError(f"say what is to be proved: python -m miniworld.prove {' | '.join(PROOFS)}")
    importlib.import_module(f"miniworld.prove.{argv[0]}").prove(argv[1:])


if __name__ == "__main__":
    sys.exit(run_command(prove))
