"""Retention of checkpoints: which saved files and states are removed, and which are in doubt after a divergence.

A state is written before anything is known of the weights in it: the loss of the next step tells. Until then nothing
that it replaces is removed, and while losses are not usual nothing good is.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from library.training.saving.resume import write_doubt
from library.training.work import Work


@dataclass
class Saved:
    """What was written after a step; `doubted` where a later loss speaks against it."""

    step: int
    paths: list[Path]
    doubted: bool = False


class Retention:
    """Looks at each step's loss as it becomes known; only the main process touches files."""

    def __init__(self) -> None:
        self._unproven: list[Saved] = []
        self._doubted: set[Path] = set()
        self._outdated: list[tuple[int, list[Path]]] = []
        self._was_in_doubt = False

    def wrote(self, work: Work, paths: Sequence[Path]) -> None:
        """Take note of what was written after the step just done."""
        in_doubt = work.guard.doubt is not None
        self._unproven.append(Saved(work.clock.global_step, list(paths), in_doubt))
        if in_doubt:
            self._doubted.update(paths)

    def replace(self, work: Work, paths: Sequence[Path]) -> None:
        """Remove `paths` once what was written after the step just done has proven good."""
        self._outdated.append((work.clock.global_step, list(paths)))

    def review(self, work: Work) -> None:
        """Tell what the losses known by now say of what was saved, and remove what is outdated."""
        if self._was_in_doubt != (work.guard.doubt is not None):
            self._was_in_doubt = not self._was_in_doubt
            work.journal.say(_news(work), logging.WARNING)
            work.journal.event("doubt", work.clock, why=work.guard.doubt)
        for saved in list(self._unproven):
            if work.guard.judged_to > saved.step:
                self._judge(work, saved)
        last = self._outdated[-1:] and work.guard.trusted_to > self._outdated[-1][0]
        self._remove(work, everything=bool(last) and work.guard.doubt is None)

    def finish(self, work: Work) -> None:
        """Remove what is outdated at the end of a run, after which no loss tells anything."""
        self._remove(work, everything=work.guard.doubt is None)

    def _judge(self, work: Work, saved: Saved) -> None:
        guard = work.guard
        if guard.trusted_to > saved.step:
            self._unproven.remove(saved)
            if saved.doubted and guard.far_at <= saved.step:  # only steps that changed nothing lay between
                self._doubted.difference_update(saved.paths)
                self._mark(work, saved, None)
        elif not saved.doubted:
            saved.doubted = True
            self._doubted.update(saved.paths)
            self._mark(work, saved, guard.doubt)

    def _mark(self, work: Work, saved: Saved, doubt: str | None) -> None:
        for path in saved.paths if work.processes.is_main else ():
            if path.is_dir():
                write_doubt(path, doubt)

    def _remove(self, work: Work, *, everything: bool) -> None:
        gone = [p for _, paths in self._outdated for p in paths if everything or p in self._doubted]
        if not gone:
            return
        self._outdated = [(step, [p for p in paths if p not in gone]) for step, paths in self._outdated]
        self._outdated = [(step, paths) for step, paths in self._outdated if paths]
        for path in gone if work.processes.is_main else ():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        work.journal.saved = [path for path in work.journal.saved if path not in gone]


def _news(work: Work) -> str:
    if work.guard.doubt is None:
        return f"the loss is usual again at step {work.guard.trusted_to}: states from here on count again"
    return (
        f"{work.guard.doubt}: until the loss is usual again, `--resume latest` takes none of the states that are "
        "written, and none of the earlier ones is removed"
    )
