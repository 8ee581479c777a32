"""One run at a time under one name: two that write the same files would spoil both."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import IO

from library.errors import UserError


class OutputLock:
    """Held while a run writes `{name}` files into a folder; the system lets go of it when the process ends, however.

    Raises `UserError` on entering if another run holds it. `folder` None (any process but the main one) locks nothing.
    """

    def __init__(self, folder: Path | None, name: str) -> None:
        self._path = folder / f".{name}.lock" if folder else None
        self._file: IO[str] | None = None

    def __enter__(self) -> OutputLock:
        if self._path is None:
            return self
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a", encoding="utf-8")
        try:
            _lock(self._file)
        except OSError:
            self._file.close()
            self._file = None
            raise UserError(
                f"another run is writing to {self._path.parent} under this name; "
                "wait for its end, or give this one another output_name or output_dir"
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None and self._path is not None:
            if os.name != "nt":
                with contextlib.suppress(OSError):  # a folder that became read-only has a story of its own to tell
                    self._path.unlink(missing_ok=True)
            self._file.close()


def _lock(file: IO[str]) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
