"""A report as lines for people."""

from __future__ import annotations

from collections.abc import Iterator

from library.data.preflight.findings import KINDS, NOTES, Finding, Report

SHOWN = 12  # findings of one kind


def lines_of(report: Report) -> Iterator[str]:
    held_out = f", {report.held_out} of them held out" if report.held_out else ""
    yield f"{report.images} pictures{held_out}; {report.visits} visits in an epoch, {len(report.buckets)} buckets"
    for kind, meaning in (KINDS | NOTES).items():
        mine = [finding for finding in report.findings if finding.kind == kind]
        if mine:
            yield f"\n{kind} ({meaning}): {len(mine)}"
            yield from (f"  {finding}" for finding in mine[:SHOWN])
            if len(mine) > SHOWN:
                yield f"  and {len(mine) - SHOWN} more; --json FILE has them all"
    yield ""
    yield from (f"note: {sentence}" for sentence in report.unchecked)
    yield f"{counted(report.problems, 'problem')}, {counted(report.notes, 'note')}"


def counted(findings: list[Finding], what: str) -> str:
    return f"{len(findings) or 'no'} {what}{'' if len(findings) == 1 else 's'}"
