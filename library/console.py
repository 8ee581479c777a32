"""Logging: what a command reports on the console, or into a file, at the level that was asked for."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from library.errors import UserError
from library.formatting import visible

PACKAGES = ("__main__", "library", "restoration", "embeddings", "miniworld", "train_network", "train_batch", "evaluate")


@dataclass(frozen=True)
class ConsoleSpec:
    """The options on what is reported; field names are the options'."""

    console_log_level: str | None = None
    console_log_file: Path | None = None


def show(text: str = "", file: TextIO | None = None) -> None:
    """Print what a command answers, with what cannot be seen in names and texts of other people spelled out."""
    print(visible(text), file=file)


class Console:
    """Writes lines of at least the level asked for (INFO by default), above a progress bar if there is one.

    DEBUG shows every step; WARNING and above leave out notes and the last paragraph. An error that ends a command is
    always on the console: it does not come through here. `prefix` begins the notes.
    """

    def __init__(self, spec: ConsoleSpec | None = None, prefix: str = "note") -> None:
        spec = spec or ConsoleSpec()
        self._prefix = prefix
        self._threshold = logging.getLevelNamesMapping()[spec.console_log_level or "INFO"]
        self._file = spec.console_log_file
        if self._file is not None:
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                self._file.open("a", encoding="utf-8").close()
            except OSError as error:
                raise UserError(f"`console_log_file = {self._file}` cannot be written: {error.strerror}") from None

    def note(self, line: str, level: int = logging.INFO) -> None:
        """A line worth knowing, once: only by the first of the processes that `accelerate launch` starts."""
        if os.environ.get("RANK", "0") == "0":
            self.write(f"{self._prefix}: {line}", level)

    def write(self, line: str, level: int = logging.INFO) -> None:
        """A line for people, to the side of what a command prints as its result."""
        line = visible(line)
        if self._shows(line, level):
            tqdm.write(line, file=sys.stderr)

    def result(self, line: str) -> None:
        """A line of what came out, on the standard output."""
        line = visible(line)
        if self._shows(line, logging.INFO):
            show(line)

    def _shows(self, line: str, level: int) -> bool:
        """Whether the console is to show the line; a line that belongs into the file is written there."""
        if level < self._threshold:
            return False
        if self._file is None:
            return True
        with self._file.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {logging.getLevelName(level)} {line}\n")
        return False


class ConsoleHandler(logging.Handler):
    """The one handler of a command: what its loggers report becomes a note on the console."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.note(record.getMessage(), record.levelno)


@contextmanager
def without_notes() -> Iterator[None]:
    """Nothing below a warning is reported inside: for what is counted many times and read by nobody."""
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def log_to(console: Console, *loggers: str) -> None:
    """From here on what `loggers` (by default all of them) report goes to `console`, and to no other.

    Of other people's modules only warnings are shown.
    """
    for name in PACKAGES:
        logging.getLogger(name).setLevel(logging.INFO)
    for logger in map(logging.getLogger, loggers) if loggers else [logging.getLogger()]:
        for handler in [handler for handler in logger.handlers if isinstance(handler, ConsoleHandler)]:
            logger.removeHandler(handler)
        logger.addHandler(ConsoleHandler(console))
        logger.propagate = not loggers
