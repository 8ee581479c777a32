"""A metadata file: captions and tags of many images in one file, as kohya's fine-tuning scripts write it.

JSON: a table of images, each with `caption`, `tags` or both. JSONL: a line for each, with `image_path` besides. An
image is named by its path, or by its name in the image folder with or without extension. Sizes that the file tells are
not believed: the images themselves are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from library.bounded_text import parse_json
from library.data.images.image_folder import Listing


class BadMetadata(ValueError):
    """This metadata file cannot be used; the text says why and what to do, without naming the file."""


def read_metadata_file(path: Path) -> dict[str, Mapping[str, Any]]:
    """What the file says of each image that it names. Raises BadMetadata."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        entries = _lines(text) if path.suffix.lower() == ".jsonl" else parse_json(text)
    except OSError as error:
        raise BadMetadata(f"cannot be read ({error.strerror}); check its name and permissions") from error
    except ValueError as error:  # bad JSON, or bytes that are not UTF-8
        raise BadMetadata(f"is not JSON in UTF-8: {error}") from error
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise BadMetadata('must be a table of images: {"photo_1": {"caption": "..."}, ...}')
    if not entries:
        raise BadMetadata("names no images")
    return entries


def caption_of(entry: Mapping[str, Any], separator: str) -> str | None:
    """The caption with its tags behind it, on every line of several; None if there is neither. Raises BadMetadata."""
    caption, tags = (_text(entry.get(name), separator) for name in ("caption", "tags"))
    if not caption:
        return tags or None
    return "\n".join(f"{line}{separator}{tags}" for line in caption.split("\n")) if tags else caption


def image_of_key(key: str, folder: Path, listing: Callable[[Path], Listing]) -> Path | None:
    """The image that a metadata file names: as a path, or inside `folder`, with its extension or without."""
    for path in dict.fromkeys((folder / key, Path(key).absolute())):  # an absolute key leaves `folder` out by itself
        beside = listing(path.parent)
        if path.name in beside.images:
            return path
        if path.name in beside.by_stem:
            return path.parent / beside.by_stem[path.name]
    return None


def _lines(text: str) -> dict[str, Any]:
    entries = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        entry = parse_json(line)
        name = entry.get("image_path") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            raise BadMetadata(f"has no `image_path` in line {number}")
        entries[name] = entry
    return entries


def _text(value: Any, separator: str) -> str:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = f"{separator} ".join(value)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadMetadata(f"has {value!r} where a caption or tags should be a text")
    return value.strip()
