"""What a person did that cannot work, and what to do about it.

Everything that goes wrong because of an option, a file or a picture is a `UserError`; commands print its text without
a traceback and leave with its exit code. Any other exception is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass


class UserError(Exception):
    """One clear message: what is wrong, with name and value, and what to do."""

    exit_code = 1


class ConfigError(UserError):
    """The options themselves cannot be understood."""

    exit_code = 2


class DiskFull(UserError):
    """A disk is full: nothing that a person wrote is wrong."""


class BatchFailed(UserError):
    """Some jobs of a batch failed; the others are done."""

    exit_code = 3


class BatchUnfinished(UserError):
    """A batch was stopped before its last job."""

    exit_code = 4


class Interrupted(Exception):
    """A run was asked to stop by a signal. `exit_code` is the shell's: 130 for SIGINT, 143 for SIGTERM."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@dataclass(frozen=True)
class Problem:
    """One thing that cannot work. `where` names its place: "style.toml line 14", "image 'a.png'".

    `understood`: what is written is clear, and only cannot run: as it is written, or on this machine.
    """

    message: str
    where: str | None = None
    understood: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


def raise_all(problems: Sequence[Problem], error: type[UserError] = UserError) -> None:
    """Raise one error that lists every problem; do nothing if there is none."""
    if not problems:
        return
    if len(problems) == 1:
        raise error(str(problems[0]))
    lines = "\n".join(f"  - {problem}" for problem in problems)
    raise error(f"{len(problems)} problems:\n{lines}")
