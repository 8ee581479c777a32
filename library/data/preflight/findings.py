"""What a look at a dataset finds: one line for each picture, caption, mask, folder or bucket that is worth a look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

KINDS = {
    "damaged": "cannot be read",
    "mislabelled": "the extension names another format",
    "animation": "only the first frame is used",
    "colours": "colours that are not RGB",
    "duplicate": "the same file twice",
    "near duplicate": "almost the same picture twice",
    "leak": "trained on and held out",
    "no caption": "no caption file",
    "blank caption": "an empty caption",
    "caption extension": "captions under another extension",
    "bad caption": "a caption that cannot be read",
    "long caption": "a caption of which the end is cut off",
    "enlarged": "smaller than it is trained at",
    "too small": "smaller than one bucket step",
    "cropped": "much of it is cut away",
    "lonely bucket": "fewer pictures than a batch",
    "no repeats": "folders and pictures that are not used",
    "unused file": "a file that is not taken for a picture",
    "mask without picture": "a mask that nothing uses",
    "no mask": "a picture without its mask",
    "folder": "a folder or file that cannot be used",
}
"""Every kind of problem, with what it means."""
NOTES = {
    "rotated": "turned by its EXIF orientation",
    "deep colours": "16 bits, reduced to 8",
    "transparent": "transparency that is dropped",
    "plain folder": "a folder without repeats",
}
"""What is handled well and only worth knowing: no problem."""


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that was found. `sentence` is to be read after the name of `file`; `other` is a file that it names."""

    kind: str
    file: str
    sentence: str
    other: str = ""

    @property
    def is_problem(self) -> bool:
        return self.kind not in NOTES

    def __str__(self) -> str:
        return f"{self.file}: {self.sentence}"


@dataclass(frozen=True)
class Bucket:
    """Pictures of one size within a dataset, and how often an epoch visits them."""

    size: tuple[int, int]
    images: int
    visits: int
    batch_size: int


@dataclass
class Report:
    """All that was found of a dataset. `unchecked` are sentences on what was not looked at."""

    images: int
    held_out: int
    visits: int
    buckets: list[Bucket]
    findings: list[Finding] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.is_problem]

    @property
    def notes(self) -> list[Finding]:
        return [finding for finding in self.findings if not finding.is_problem]

    def to_json(self) -> dict[str, Any]:
        return {
            "version": 1,
            "images": self.images,
            "held_out": self.held_out,
            "visits": self.visits,
            "buckets": [asdict(bucket) for bucket in self.buckets],
            "counts": dict(Counter(finding.kind for finding in self.findings)),
            "problems": [asdict(finding) for finding in self.problems],
            "notes": [asdict(finding) for finding in self.notes],
            "unchecked": self.unchecked,
        }


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Without doubles: by kind as listed above, then by file."""
    kinds = [*KINDS, *NOTES]
    return sorted(set(findings), key=lambda finding: (kinds.index(finding.kind), finding.file, finding.sentence))
