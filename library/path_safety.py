"""Names that come out of files (headers, JSON, logs) as paths: only such as stay in the folder that they belong to.

A file that somebody got from a stranger must not decide where something is written, removed or read.
"""

from __future__ import annotations

import re
from collections.abc import Container
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

LONGEST = 100
"""Characters of a name that is made of a text; with folder and ending every file system takes it."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # Windows means a device by these


def path_inside(folder: Path, name: Any) -> Path | None:
    """The file of a relative name, as a file gives it, in `folder`; None for what leads elsewhere or is no name.

    Judged by the rules of POSIX and of Windows at once, so that the same file means the same on both.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        return None
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts or not windows.name:
        return None
    return folder / name


def stem_of_text(text: str, taken: Container[str] = ()) -> str:
    """A file name without ending for any text: letters, digits, `_`, `-` and `.`, unlike the names in `taken`.

    What is such a name already stays as it is. Compare `taken` in lower case: some file systems know no capitals.
    """
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", text).lstrip(".")[:LONGEST].rstrip(".") or "embedding"
    if _RESERVED.fullmatch(stem):
        stem = f"_{stem}"
    number, free = 2, stem
    while free.lower() in taken:
        free, number = f"{stem}_{number}", number + 1
    return free
