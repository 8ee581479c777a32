"""A report as a page: one HTML file that needs nothing else, with the pictures that something was found of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from library.data.bucket_assignment import written
from library.data.preflight.findings import KINDS, NOTES, Finding, Report
from library.data.preflight.written import counted
from library.report.page import render, write_page
from library.report.pictures import data_uri

TEMPLATE = Path(__file__).parent / "templates" / "preflight.html"
SHOWN, SIDE = 60, 96
"""Findings of one kind on the page, and the pixels of their pictures' longer side."""


@dataclass(frozen=True)
class FindingLine:
    """A finding with what it looks like: the picture, and the one that it is compared with."""

    file: str
    sentence: str
    pictures: list[str]


@dataclass(frozen=True)
class Kind:
    """The findings of one kind, of which `lines` are shown."""

    kind: str
    meaning: str
    is_problem: bool
    count: int
    lines: list[FindingLine]


def write_report(path: Path, report: Report) -> None:
    """Write the page. Raises UserError where it cannot be written."""
    write_page(path, page_of(report))


def page_of(report: Report) -> str:
    return render(
        TEMPLATE,
        title="Dataset preflight",
        facts=[
            ("pictures", report.images, ""),
            ("held out", report.held_out, ""),
            ("visits in an epoch", report.visits, "each picture as often as its repeats"),
            ("buckets", len(report.buckets), ""),
        ],
        summary=f"{counted(report.problems, 'problem')}, {counted(report.notes, 'note')}.",
        problems=bool(report.problems),
        unchecked=list(report.unchecked),
        groups=[group for kind in KINDS | NOTES if (group := _group(kind, report)).count],
        buckets=[(written(b.size), b.images, b.visits, b.batch_size) for b in report.buckets],
    )


def _group(kind: str, report: Report) -> Kind:
    mine = [finding for finding in report.findings if finding.kind == kind]
    lines = [FindingLine(finding.file, finding.sentence, _pictures(finding)) for finding in mine[:SHOWN]]
    return Kind(kind, (KINDS | NOTES)[kind], kind in KINDS, len(mine), lines)


def _pictures(finding: Finding) -> list[str]:
    shown = (data_uri(Path(name), SIDE) for name in (finding.file, finding.other) if name)
    return [uri for uri in shown if uri is not None]
