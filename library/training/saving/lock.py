"""One run at a time under one name: two that write the same files would spoil both."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from filelock import FileLock, Timeout

from library.errors import UserError


class OutputLock:
    """Held while a run writes `{name}` files into a folder; the system lets go of it when the process ends, however.

    Raises `UserError` on entering if another run holds it. `folder` None (any process but the main one) locks nothing.
    """

    def __init__(self, folder: Path | None, name: str) -> None:
        self._path = folder / f".{name}.lock" if folder else None
        self._lock = FileLock(self._path) if self._path else None

    def __enter__(self) -> OutputLock:
        if self._lock is None or self._path is None:
            return self
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise UserError(
                f"another run is writing to {self._path.parent} under this name; "
                "wait for its end, or give this one another output_name or output_dir"
            ) from None
        except NotImplementedError:
            raise UserError(
                f"{self._path.parent} is on a file system that cannot lock files, so that two runs could write the "
                "same ones; give an output_dir on another"
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None and self._path is not None and self._lock.is_locked:
            if os.name != "nt":
                with contextlib.suppress(OSError):  # a folder that became read-only has a story of its own to tell
                    self._path.unlink(missing_ok=True)
            self._lock.release()
