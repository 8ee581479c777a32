"""What a run tells of its data: everything that costs nothing, as headers, captions and hashes are known by then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from library.data.dataset import Dataset
from library.data.preflight.findings import Finding, in_order
from library.data.preflight.header_checks import buckets_of, found_at_hand
from library.data.preflight.pixel_checks import SplitFiles, about_both_parts, about_group

MOST = 500  # problems that are written down
UNCHECKED = (
    "pictures were not decoded to look for damage and near doubles: `python -m library.data.preflight` does that"
)


def data_event(dataset: Dataset, long_captions: Sequence[Finding] = ()) -> dict[str, Any]:
    """The pictures of a run, their buckets, and what was found of them without opening a file for it.

    {"event": "data", "images", "held_out", "visits": in an epoch, "buckets": [{"size", "images", "visits",
    "batch_size"}], "problems": [{"kind", "file", "sentence"}], "more_problems": beyond `MOST`, "unchecked": [...]}
    """
    found = in_order([*found_at_hand(dataset), *about_contents(dataset), *long_captions])
    problems = [finding for finding in found if finding.is_problem]
    return {
        "event": "data",
        "images": len({picture.path for picture in dataset.pictures}),
        "held_out": len(dataset.validation.pictures) if dataset.validation else 0,
        "visits": len(dataset.samples),
        "buckets": [asdict(bucket) for bucket in buckets_of(dataset)],
        "problems": [{"kind": p.kind, "file": p.file, "sentence": p.sentence} for p in problems[:MOST]],
        "more_problems": max(0, len(problems) - MOST),
        "unchecked": [UNCHECKED],
    }


def leaks_of(event: Mapping[str, Any]) -> list[str]:
    """A line for people, if pictures are trained on and held out: what is measured on them then means nothing."""
    leaks = [problem for problem in event["problems"] if problem["kind"] == "leak"]
    if not leaks:
        return []
    count = f"{len(leaks)} held-out pictures are" if len(leaks) > 1 else "one held-out picture is"
    return [f"{count} trained on, too, such as '{leaks[0]['file']}': the held-out loss will look too good"]


def about_contents(dataset: Dataset) -> Iterator[Finding]:
    """Files of the same bytes, as far as their hashes are known from caching them."""
    parts = SplitFiles.of(dataset)
    yield from about_both_parts(parts)
    same: dict[str, list[Path]] = {}
    for path in dict.fromkeys(picture.path for picture in dataset.all_pictures):
        if path in dataset.digests:
            same.setdefault(dataset.digests[path], []).append(path)
    for group in same.values():
        if len(group) > 1:
            yield from about_group(group, parts, "duplicate", "is the same file as")
