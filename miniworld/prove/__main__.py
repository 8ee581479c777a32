"""`python -m miniworld.prove WHAT`: a proof is a module beside this one or in `variants`, with a function `prove`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from library.command import run_command
from library.errors import ConfigError

VARIANTS = ("averages", "t_lora", "flow")
"""Those of the folder `variants`."""
PROOFS = ("lora", "ac_lora", "rank_bed", "rank_halves", "dual_pivot", "cross_init", "overfit", *VARIANTS)


def prove(argv: Sequence[str]) -> None:
    if argv and argv[0] in ("-h", "--help"):
        print(f"usage: python -m miniworld.prove {' | '.join(PROOFS)} [--help]")
        sys.exit(0)
    if not argv or argv[0] not in PROOFS:
        raise ConfigError(f"say what is to be proved: python -m miniworld.prove {' | '.join(PROOFS)}")
    folder = "variants." if argv[0] in VARIANTS else ""
    importlib.import_module(f"miniworld.prove.{folder}{argv[0]}").prove(argv[1:])


if __name__ == "__main__":
    sys.exit(run_command(prove))
