"""The end of a run: the log's last lines, the pictures of what was found out, and the paragraph for people."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from library.errors import UserError
from library.findings import Findings
from library.formatting import duration
from library.training.callbacks.overfit_verdict import Verdict
from library.training.log.journal import Journal
from library.training.log.plots import draw_findings
from library.training.run import Run


@dataclass(frozen=True)
class Ending:
    """What came out of a run that reached its end; `seconds` of its loop."""

    findings: dict[str, Findings]
    verdict: Verdict | None
    seconds: float


def finish(run: Run) -> Ending:
    """The log's last lines, and the pictures of what each trainable did."""
    journal = run.journal
    findings = journal.take_stock(run.trainables, run.clock, run.processes.device)
    summary = {name: {"moved": f.moved, "tensors": f.tensors, "change": f.change} for name, f in findings.items()}
    verdict, seconds = _verdict(run), journal.seconds
    journal.event("end", run.clock, seconds=round(seconds, 2), skipped=run.guard.skipped, trainables=summary)
    journal.close()
    if journal.path is not None:
        for found in findings.values():
            _draw(found, journal, journal.path)
    return Ending(findings, verdict, seconds)


def _verdict(run: Run) -> Verdict | None:
    """What the held-out pictures say of the run; it is logged, too."""
    best = next((path.name for path in run.checkpoints.best_files(run)), None)
    verdict = run.validation.verdict(best)
    if verdict is not None:
        run.journal.event("verdict", run.clock, **asdict(verdict), best_file=best)
    return verdict


def _draw(found: Findings, journal: Journal, log: Path) -> None:
    try:
        journal.saved += draw_findings(found, log.parent, log.stem.removesuffix("-log"))
    except (ImportError, OSError, UserError) as error:  # no matplotlib, no room: the weights are there all the same
        journal.say(f"what was found out could not be drawn: {error}", logging.WARNING)


def conclude(run: Run, ending: Ending) -> None:
    """The last paragraph: what was saved and where, how long it took, what each trainable did.

    Raises `UserError` if a trainable moved nothing: a method must not be on and do nothing.
    """
    steps = run.clock.global_step - run.journal.first_step
    for line in [*_last_paragraph(run, steps, ending), *_findings_lines(ending.findings)]:
        run.journal.result(line)
    for name, found in ending.findings.items():
        refuse_idleness(name, found, run.guard.skipped)
    if steps and run.journal.average_loss == 0.0:
        raise UserError(
            "the loss was 0 in every step: nothing of the pictures counts (are all masks black, or all weights 0?)"
        )


def refuse_idleness(name: str, found: Findings, skipped: int) -> None:
    """Raise `UserError` where a trainable moved nothing, or calls its run a failure: nothing is on and does nothing."""
    if found.moved == 0 and skipped:
        raise UserError(
            f"the training changed nothing: {skipped} steps were left out because their loss or "
            "gradients were not finite, and no other moved a tensor"
        )
    if found.moved == 0:
        raise UserError(
            f"the training changed nothing: none of the {found.tensors} tensors of the {name} moved; "
            "the learning rate is 0 or too small for this precision"
        )
    if found.failure is not None:
        raise UserError(found.failure)


def _findings_lines(findings: Mapping[str, Findings]) -> list[str]:
    lines = []
    for name, found in findings.items():
        lines.append(f"  {name}: moved {found.moved} of {found.tensors} tensors, median change {found.change:.2g}")
        lines += [f"    {line}" for line in found.lines]
    return lines


def _last_paragraph(run: Run, steps: int, ending: Ending) -> list[str]:
    journal, verdict = run.journal, ending.verdict
    speed = f", {ending.seconds / steps:.3g} s per step" if steps else ""
    lines = [f"Trained {steps} steps in {duration(ending.seconds)}{speed}; average loss {journal.average_loss:.4f}."]
    if run.guard.skipped:
        lines.append(f"{run.guard.skipped} steps were left out because their loss or gradients were not finite.")
    if run.guard.doubt:
        lines.append(f"The weights are in doubt: {run.guard.doubt}. {run.checkpoints.way_back()}.")
    lines += run.validation.summary()
    lines += [verdict.sentence[0].upper() + verdict.sentence[1:] + "."] if verdict else []
    lines += [f"Saved {path}" for path in journal.saved if path.exists()]
    if journal.path is not None:
        lines.append(f"Log: {journal.path}")
    return lines
