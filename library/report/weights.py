"""The files that a run has left: their sizes and hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from library.report.run_files import RunFiles


@dataclass(frozen=True)
class SavedFile:
    """`size` in bytes; `sha256` None for a folder, whose files have their hashes in its manifest."""

    name: str
    step: int
    size: int
    sha256: str | None


def saved_files(run: RunFiles) -> list[SavedFile]:
    """Weights and states that the run says it wrote and that are still there; of a name, the newest step counts."""
    steps: dict[str, int] = {}
    for event in run.events:
        name = event.get("file") if event["event"] == "saved" else event.get("folder")
        if event["event"] in ("saved", "saved state") and isinstance(name, str):
            steps[Path(name).name] = event["step"]
    return list(_there(run.folder, steps))


def _there(folder: Path, steps: dict[str, int]) -> Iterator[SavedFile]:
    for name, step in sorted(steps.items(), key=lambda item: (item[1], item[0])):
        path = folder / name
        try:
            if path.is_dir():
                size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
                yield SavedFile(f"{name}/", step, size, None)
            elif path.is_file():
                stamp = path.stat()
                yield SavedFile(name, step, stamp.st_size, _sha256(path, stamp.st_mtime_ns, stamp.st_size))
        except OSError:
            continue  # removed while we looked


@lru_cache(maxsize=256)
def _sha256(path: Path, mtime: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
