"""What a run learns from: its pictures, their buckets, and what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.formatting import every_nth
from library.report.bars import Bar, bars_of
from library.report.pictures import data_uri
from library.report.run_files import RunFiles

SHOWN, SIDE = 48, 160
"""Training pictures on a page, and the pixels of their longer side."""


_WORDS = {"visits": "visits in an epoch", "more_problems": "further problems"}


@dataclass(frozen=True)
class ShownPicture:
    name: str
    caption: str
    uri: str


@dataclass(frozen=True)
class DataDescription:
    """`count` training pictures, some of them `shown`; buckets and problems where a run has looked for them."""

    count: int | None
    facts: list[tuple[str, Any]]
    shown: list[ShownPicture]
    buckets: list[Bar]
    problems: list[tuple[str, str, str]]
    unchecked: list[str]


def describe_data(run: RunFiles, *, with_pictures: bool = True) -> DataDescription | None:
    """What the log says of the data; None where it says nothing."""
    images, data = run.last("images"), run.last("data")
    if images is None and data is None:
        return None
    images, data = images or {}, data or {}
    buckets = [bucket for bucket in data.get("buckets", ()) if bucket.get("images")]
    return DataDescription(
        count=data.get("images", images.get("count")),
        facts=[(_WORDS.get(name, name.replace("_", " ")), v) for name, v in data.items() if _is_figure(name, v)],
        shown=_pictures(images) if with_pictures else [],
        buckets=bars_of((" × ".join(map(str, bucket["size"])), bucket["images"]) for bucket in buckets),
        problems=[
            (str(p.get("kind", "")), Path(str(p.get("file", ""))).name, str(p.get("sentence", "")))
            for p in data.get("problems", ())
        ],
        unchecked=[_sentence(str(line)) for line in data.get("unchecked", ())],
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _is_figure(name: str, value: Any) -> bool:
    return name not in ("step", "before", "images") and isinstance(value, int | float) and value != 0


def _pictures(images: dict[str, Any]) -> list[ShownPicture]:
    files, captions = images.get("pictures", ()), images.get("captions", ())
    shown = []
    for index in every_nth(len(files), SHOWN):
        uri = data_uri(Path(files[index]), SIDE)
        if uri is not None:
            shown.append(ShownPicture(Path(files[index]).name, captions[index] if index < len(captions) else "", uri))
    return shown
