"""An image folder, and what is remembered about its images between two starts.

`.pivot_cache/index.json` inside the folder holds each image's size in pixels and the hash of its bytes, valid as long
as the file's size and modification time stay. With it a second start opens no image. A checksum tells an index that
was changed or cut off, which counts as none. Where the folder cannot be
written, the same is kept in `{output_dir}/.pivot_cache/<name of the folder and a hash of its path>/`.
"""

from __future__ import annotations

import json
import os
import tempfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from library.atomic import atomic
from library.config.image_folders import is_image_name, lookalikes
from library.image_files import Header

CACHE_FOLDER = ".pivot_cache"
INDEX_FILE = "index.json"
INDEX_VERSION = 2


class Stamp(NamedTuple):
    """A file's size in bytes and modification time: while both stay, its content is taken to be the same."""

    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Listing:
    """What lies in a folder: every file name, and the image files' stamps in the order of their names."""

    folder: Path
    names: frozenset[str]
    images: dict[str, Stamp]
    broken: tuple[str, ...] = ()  # links to images that are not there
    unreadable: bool = False
    special: tuple[str, ...] = ()  # named pipes, sockets and devices

    @cached_property
    def by_stem(self) -> dict[str, str]:
        """The images by their names without extension; of several the first."""
        return {os.path.splitext(name)[0]: name for name in reversed(self.images)}

    @cached_property
    def unused(self) -> list[str]:
        """Files that look like images but are not taken as such."""
        return lookalikes(self.names)


@dataclass(frozen=True)
class IndexedImage:
    """What an index says about an image that was read and decoded once."""

    stamp: Stamp
    sha256: str
    header: Header


@dataclass
class Index:
    """The memory of one image folder."""

    where: Path
    images: dict[str, IndexedImage]

    def find(self, name: str, stamp: Stamp) -> IndexedImage | None:
        """What is known about an image, if its file has not changed since."""
        known = self.images.get(name)
        return known if known and known.stamp == stamp else None

    def write(self) -> None:
        """Replace the index file. Raises UserError."""
        images = {
            name: {
                "size": known.stamp.size,
                "mtime_ns": known.stamp.mtime_ns,
                "sha256": known.sha256,
                "width": known.header.size[0],
                "height": known.header.size[1],
                "notes": known.header.notes,
            }
            for name, known in self.images.items()
        }
        content = {"version": INDEX_VERSION, "crc32": _checksum(images), "images": images}
        with atomic(self.where / INDEX_FILE) as temporary:
            temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")


def list_folder(folder: Path) -> Listing:
    """One look at a folder; sub-folders are not entered, and what is no file (a named pipe, whose reader would wait for
    ever) is listed, but never taken as an image or a caption. Raises OSError."""
    names, images, broken, special = [], {}, [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                continue
            if not entry.is_file() and (not entry.is_symlink() or os.path.exists(entry.path)):
                special.append(entry.name)
                continue
            names.append(entry.name)
            if is_image_name(entry.name):
                try:
                    images[entry.name] = stamp_of(entry)
                except FileNotFoundError:
                    broken.append(entry.name)
    return Listing(
        folder,
        frozenset(names),
        dict(sorted(images.items())),
        tuple(sorted(broken)),
        special=tuple(sorted(special)),
    )


def stamp_of(file: os.DirEntry | Path) -> Stamp:
    stat = file.stat()
    return Stamp(stat.st_size, stat.st_mtime_ns)


def cache_places(folder: Path, fallback: Path | None) -> list[Path]:
    """Where a folder's cache may lie, best first. `fallback` is the output folder, or None."""
    places = [folder / CACHE_FOLDER]
    if fallback is not None:
        absolute = str(folder.resolve())
        mark = blake2b(absolute.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
        places.append(fallback / CACHE_FOLDER / f"{folder.resolve().name}-{mark}")
    return places


def read_index(places: Iterable[Path]) -> Index | None:
    """The first index that can be read; a damaged one, or one of another version, counts as none."""
    for where in places:
        try:
            if not (where / INDEX_FILE).is_file():
                continue
            content = json.loads((where / INDEX_FILE).read_bytes())
            if content["version"] == INDEX_VERSION and content["crc32"] == _checksum(content["images"]):
                return Index(where, {name: _known(entry) for name, entry in content["images"].items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return None


def _checksum(images: Any) -> str:
    return f"{zlib.crc32(json.dumps(images, sort_keys=True).encode()):08x}"


def _known(entry: dict[str, Any]) -> IndexedImage:
    """One entry of an index file. Raises ValueError, KeyError or TypeError where it is not one."""
    size, mtime_ns, width, height = (_number(entry[name]) for name in ("size", "mtime_ns", "width", "height"))
    return IndexedImage(
        Stamp(size, mtime_ns), _text(entry["sha256"]), Header((width, height), tuple(map(_text, entry["notes"])))
    )


def _number(value: Any) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r} is not a whole number")
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError(f"{value!r} is not a text")
    return value


def open_index(folder: Path, fallback: Path | None) -> Index:
    """The folder's index for writing: the existing one, else an empty one in the first place that can be written.

    Raises OSError if there is no such place.
    """
    places = cache_places(folder, fallback)
    found = read_index(places)
    if found is not None and can_be_written(found.where):
        return found
    for where in places:
        if can_be_written(where):
            return Index(where, dict(found.images) if found else {})
    raise OSError(f"for '{folder}'; tried {', '.join(map(str, places))}")


def can_be_written(folder: Path) -> bool:
    """Whether a file can be made in the folder, which is created if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
