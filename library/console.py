"""What a run says to people: on the console, or into a file; how much of it is asked for by its level."""

from __future__ import annotations

import logging
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from library.errors import UserError
from library.formatting import visible


@dataclass(frozen=True)
class ConsoleSpec:
    """The options on what is said; field names are the options'."""

    console_log_level: str | None = None
    console_log_file: Path | None = None


class Console:
    """Says lines of at least the level asked for (INFO by default), above a progress bar if there is one.

    DEBUG shows every step; WARNING and above leave out notes and the last paragraph. An error that ends a command is
    always on the console: it is not said here.
    """

    def __init__(self, spec: ConsoleSpec | None = None) -> None:
        spec = spec or ConsoleSpec()
        self._threshold = logging.getLevelNamesMapping()[spec.console_log_level or "INFO"]
        self._file = spec.console_log_file
        if self._file is not None:
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                self._file.open("a", encoding="utf-8").close()
            except OSError as error:
                raise UserError(f"`console_log_file = {self._file}` cannot be written: {error.strerror}") from None

    def note(self, line: str) -> None:
        """A line worth knowing, once: only by the first of the processes that `accelerate launch` starts."""
        if os.environ.get("RANK", "0") == "0":
            self.say(f"note: {line}")

    def say(self, line: str, level: int = logging.INFO) -> None:
        """A line for people, to the side of what a command prints as its result."""
        line = visible(line)
        if self._shows(line, level):
            tqdm.write(line, file=sys.stderr)

    def result(self, line: str) -> None:
        """A line of what came out, on the standard output."""
        line = visible(line)
        if self._shows(line, logging.INFO):
            print(line)

    def _shows(self, line: str, level: int) -> bool:
        """Whether the console is to show the line; a line that belongs into the file is written there."""
        if level < self._threshold:
            return False
        if self._file is None:
            return True
        with self._file.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {logging.getLevelName(level)} {line}\n")
        return False


def show_line(line: str) -> None:
    """A line worth knowing, once: only by the first of the processes that `accelerate launch` starts."""
    if os.environ.get("RANK", "0") == "0":
        print(f"note: {visible(line)}", file=sys.stderr)
