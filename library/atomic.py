"""Files and folders that come to be all at once, or not at all.

What is written goes to a temporary name in the same folder, is flushed to the disk, and only then gets its name. A
program that is killed leaves a temporary name behind, never half a file; `sweep_temporaries` tidies up after it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from library.errors import DiskFull, UserError

IS_WINDOWS = os.name == "nt"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, *((112,) if IS_WINDOWS else ()))  # disk, quota, size limit
FOREIGN_AGE = 24 * 3600.0  # seconds after which a temporary name of another machine is taken for a leftover
_TEMPORARY = re.compile(r"^\.(?P<stem>.+)\.tmp-(?P<machine>[0-9a-f]{6})-(?P<pid>\d+)(?P<old>-old)?(?P<suffix>\.\w+)?$")

RENAME_PATIENCE = 10.0  # seconds; on Windows a virus scanner or an indexer may hold a file for a moment
_active: set[Path] = set()  # temporary names that this process is writing to now


def temporary_name(path: Path) -> Path:
    """The name under which this process writes `path` until it is whole: hidden, same folder, same extension."""
    return path.with_name(f".{path.stem}.tmp-{_machine()}-{os.getpid()}{path.suffix}")


@contextlib.contextmanager
def atomic(path: Path | str, *, durable: bool = True) -> Iterator[Path]:
    """A temporary path to write to; it becomes `path` when the block ends well, and is removed when it does not.

    Without `durable` it is not flushed to the disk, which is quicker: for caches, whose files are looked at before they
    are believed. Raises `UserError` with the reason where the disk is full or the folder cannot be written; the old
    file is intact.
    """
    path = Path(path)
    temporary = temporary_name(path)
    _active.add(temporary)
    try:
        with _explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch()
            mode = temporary.stat().st_mode
            yield temporary
            temporary.chmod(mode)  # safetensors writes files that only their owner can read
            if durable:
                _flush(temporary)
            _replace(temporary, path)
            if durable:
                _flush_folder(path.parent)
    finally:
        _active.discard(temporary)
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(folder: Path | str) -> Iterator[Path]:
    """The same for a folder: a temporary one to fill, which takes the place of `folder` when the block ends well.

    Where `folder` exists, it steps aside first; `sweep_temporaries` brings the new one in if this is cut off between.
    """
    folder = Path(folder)
    # A folder has no extension: what follows a dot in "v1.5-state" is part of its name.
    temporary = folder.with_name(f".{folder.name}.tmp-{_machine()}-{os.getpid()}")
    old = folder.with_name(f"{temporary.name}-old")
    _active.update((temporary, old))
    try:
        with _explained(folder):
            for leftover in (temporary, old):
                shutil.rmtree(leftover, ignore_errors=True)
            temporary.mkdir(parents=True)
            yield temporary
            for path in sorted(temporary.rglob("*")):
                if path.is_file():
                    _flush(path)
                else:
                    _flush_folder(path)
            _flush_folder(temporary)
            if folder.exists():
                _replace(folder, old)
            _replace(temporary, folder)
            _flush_folder(folder.parent)
    finally:
        _active.difference_update((temporary, old))
        shutil.rmtree(temporary, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)


def sweep_temporaries(folder: Path | str) -> list[Path]:
    """Remove what killed programs left in `folder`; returns the names that were removed.

    Only names of this module's pattern whose process is gone. A whole state folder that was about to be renamed when
    its process died (`manifest.json` is its last file) gets its name instead.
    """
    removed = []
    for path in sorted(Path(folder).glob(".*.tmp-*")):  # "x" before "x-old": the newer of two comes in
        match = _TEMPORARY.match(path.name)
        if not match or path in _active or _is_alive(path, match["machine"], int(match["pid"])):
            continue
        final = path.with_name(match["stem"] + (match["suffix"] or ""))
        with contextlib.suppress(OSError):
            if path.is_dir() and (path / "manifest.json").is_file() and not final.exists():
                os.replace(path, final)
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            removed.append(path)
    return removed


def _is_alive(path: Path, machine: str, pid: int) -> bool:
    """Whether the process that writes a temporary name may still run."""
    if machine != _machine():
        with contextlib.suppress(OSError):
            return time.time() - path.stat().st_mtime < FOREIGN_AGE
        return False
    if pid == os.getpid():
        return False  # not in _active: it is from an earlier process that had our number
    if IS_WINDOWS:
        import ctypes

        kernel = ctypes.windll.kernel32  # type: ignore[attr-defined]
        handle = kernel.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION; os.kill would end it
        if handle:
            kernel.CloseHandle(handle)
        return bool(handle)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _flush(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    if not IS_WINDOWS:  # Windows has no such call, and keeps names safe itself
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _replace(temporary: Path, path: Path) -> None:
    deadline = time.monotonic() + RENAME_PATIENCE
    wait = 0.01
    while True:
        try:
            os.replace(temporary, path)
            return
        except PermissionError:
            if not IS_WINDOWS or time.monotonic() > deadline:
                raise
            time.sleep(wait)
            wait = min(wait * 2, 1.0)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say what an operating system's error means for the file that was to be written."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        # torch.save meets the system's error first and then fails once more, closing its archive
        cause = error.__context__ if isinstance(error.__context__, OSError) else error
        if isinstance(cause, RuntimeError):
            raise
        number = getattr(cause, "errno", None)
        if number is None and (found := re.search(r"\(os error (\d+)\)", str(cause))):
            number = int(found[1])  # as safetensors says it
        if number in NO_ROOM:
            raise DiskFull(
                f"`{path}` could not be written: there is no room left on the disk; free some and start again, with "
                "--resume latest if there is a state"
            ) from error
        if isinstance(cause, PermissionError):
            what = "it may not be written; close the program that has it open, or change its permissions"
        else:
            what = getattr(cause, "strerror", None) or str(cause)
        raise UserError(f"`{path}` could not be written: {what}") from error


def _machine() -> str:
    return hashlib.blake2b(socket.gethostname().encode(), digest_size=3).hexdigest()
