"""`python -m miniworld.prove lora`: see `miniworld.prove.lora`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from library.command import run_command
from library.errors import ConfigError

PROOFS = ("lora",)


def prove(argv: Sequence[str]) -> None:
    if not argv or argv[0] not in PROOFS:
        raise ConfigError(f"say what is to be proved: python -m miniworld.prove {' | '.join(PROOFS)}")
    command: Callable[[Sequence[str]], None]
    if argv[0] == "lora":
        from miniworld.prove.lora import prove as command
    command(argv[1:])


if __name__ == "__main__":
    sys.exit(run_command(prove))
