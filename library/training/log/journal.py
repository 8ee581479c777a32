"""What a run says while it goes on: progress bar, a line of JSON per step, trackers."""

from __future__ import annotations

import json
import logging
import math
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import torch
from tqdm import tqdm

from library.console import Console
from library.files import write_text
from library.findings import Findings, as_plain
from library.formatting import json_text
from library.training.clock import Clock
from library.training.log.header import Opening
from library.training.log.timing import Stopwatch, peak_memory
from library.training.log.trackers import Tracker
from library.training.nan_guard import BadStep
from library.training.progress import Progress, ProgressWindow
from library.training.step_figures import Measured
from library.training.trainables import Trainable

SILENCE = 60.0  # seconds: after so long a log without a terminal gets a line


MOST_POINTS = 400


class LossCourse:
    """The average loss over the steps, thinned out as it grows: what the page of a running training draws."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float]] = []
        self._every = 1

    def add(self, step: int, loss: float) -> None:
        if step % self._every == 0 and math.isfinite(loss):
            self.points.append((step, loss))
            if len(self.points) > MOST_POINTS:
                self.points = self.points[::2]
                self._every *= 2


class Journal:
    """Writes `path`, one JSON object a line, flushed as it goes. Only the main process has a path; others are silent.

    `trainables` are the names of those that are given the progress, `opening` the events that a log begins with. Its
    state holds the window of the running average and, for each trainable, the figures since it was last given them.
    """

    def __init__(
        self,
        path: Path | None,
        clock: Clock,
        trackers: Iterable[Tracker] = (),
        trainables: Iterable[str] = (),
        console: Console | None = None,
        opening: Opening = (),
        stopwatch: Stopwatch | None = None,
    ) -> None:
        self.path = path
        self._opening = opening
        self.stopwatch = stopwatch or Stopwatch()
        self._console = console or Console()
        self._trackers = list(trackers)
        self._window: deque[float] = deque(maxlen=clock.steps_per_epoch)  # one epoch, as kohya's avr_loss
        self._since_progress = {name: ProgressWindow() for name in trainables}
        self._stream: TextIO | None = None
        self._bar: tqdm | None = None
        self._started = time.monotonic()
        self._last_time = self._last_line_at = self._started
        self._outside = 0.0
        self._total_steps = 0
        self.last_bad_step: BadStep | None = None
        self.saved: list[Path] = []
        self.resumed_from: Path | None = None
        self.first_samples: list[str] = []
        self.course = LossCourse()
        self.last_warning = ""
        self.first_step = 0

    def begin(self, clock: Clock) -> None:
        """Open the log: a new one (an older run's is kept beside it), or the resumed run's, cut back to its state."""
        self._started = self._last_time = time.monotonic()
        self.first_step = clock.global_step
        self.stopwatch.begin_loop()
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.resumed_from is not None:
            write_text(self.path, _lines_until(self.path, clock.global_step))
        elif self.path.exists():
            _set_aside(self.path)
        self._stream = self.path.open("a", encoding="utf-8")
        self._total_steps, self._last_line_at = clock.total_steps, self._started
        self._bar = tqdm(
            total=clock.total_steps, initial=clock.global_step, desc="steps", smoothing=0.1, disable=None, leave=True
        )
        self.event("begin", clock, total_steps=clock.total_steps, total_epochs=clock.total_epochs)
        for event in self._opening:
            self._write({**event, "step": clock.global_step})

    def event(self, name: str, clock: Clock, **figures: Any) -> None:
        """One line that is not a step's."""
        if name == "samples" and clock.global_step == self.first_step and self.resumed_from is None:
            self.first_samples = list(figures["files"])
        self._write({"event": name, "step": clock.global_step, **figures})

    def measured(self, name: str, clock: Clock, **figures: Any) -> None:
        """Figures that are measured now and then: a line of the log, the plain ones also for the trackers."""
        self._write({"event": name, "step": clock.global_step, "epoch": clock.epochs_done, **figures})
        scalars = {f"{name}/{key}": value for key, value in figures.items() if isinstance(value, int | float)}
        for tracker in self._trackers:
            tracker.log({"step": clock.global_step, **scalars})

    def happened(self, event: Mapping[str, Any], clock: Clock) -> None:
        """What a trainable did between two steps: a line of the log, its plain figures also for the trackers.

        A state of this step was written before it, so a resumed run does it again: `before` keeps it from being logged
        twice.
        """
        name = str(event.get("event", "event"))
        place = {"step": clock.global_step, "before": clock.global_step + 1, "epoch": clock.epochs_done}
        self._write({**event, **place})
        scalars = {f"{name}/{key}": value for key, value in event.items() if isinstance(value, int | float)}
        for tracker in self._trackers:
            tracker.log({"step": clock.global_step, **scalars})

    def say(self, line: str, level: int = logging.INFO) -> None:
        """A line for people, above the progress bar."""
        if level >= logging.WARNING:
            self.last_warning = line
        if self.path is not None:
            self._console.write(line, level)

    def result(self, line: str) -> None:
        """A line of the last paragraph."""
        if self.path is not None:
            self._console.result(line)

    @property
    def seconds(self) -> float:
        """Since the log was begun."""
        return time.monotonic() - self._started

    def record(self, measured: Iterable[Measured]) -> None:
        """Log the steps whose figures have arrived."""
        for step in measured:
            figures = step.figures
            now = time.monotonic()
            line: dict[str, Any] = {"step": figures.step, "epoch": figures.epoch}
            if step.bad is not None:
                self.last_bad_step = step.bad
                self.say(str(step.bad), logging.WARNING)
                line |= {"skipped": True, "files": step.bad.files, "timesteps": step.bad.timesteps}
            else:
                self.last_bad_step = None
                loss = step.loss_sum / figures.count
                self._window.append(loss)
                for window in self._since_progress.values():
                    window.add(step.loss_sum, step.relative_mse_sum, figures.count)
                self.course.add(figures.step, self.average_loss)
                line |= {"loss": loss, "avr_loss": self.average_loss, "gradient_norm": step.gradient_norm}
            line |= {"lr": figures.learning_rates, "seconds": self._seconds_of_a_step(now), **figures.extra}
            self._write(line)
            self._show(line)

    def _seconds_of_a_step(self, now: float) -> float:
        """Since the step before, without what samples, validation and saving took in between."""
        outside = self.stopwatch.outside_steps
        seconds = now - self._last_time - (outside - self._outside)
        self._last_time, self._outside = now, outside
        return round(max(0.0, seconds), 4)

    @property
    def average_loss(self) -> float:
        """Mean loss of the steps of the last epoch's length."""
        return sum(self._window) / len(self._window) if self._window else float("nan")

    def progress(self, trainable: Trainable, clock: Clock, optimizer: torch.optim.Optimizer) -> Progress:
        """How far the run is, with the figures since `trainable` was last given them."""
        since = self._since_progress[trainable.name].take()
        return Progress(
            epochs_done=clock.epochs_done,
            total_epochs=clock.total_epochs,
            global_step=clock.global_step,
            total_steps=clock.total_steps,
            loss_sum=since.loss_sum,
            relative_mse_sum=since.relative_mse_sum,
            count=since.count,
            optimizer=optimizer,
        )

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._stream is not None:
            finite = {name: None if _is_not_finite(value) else value for name, value in line.items()}
            self._stream.write(json_text(finite) + "\n")
            self._stream.flush()

    def _show(self, line: Mapping[str, Any]) -> None:
        self.say(str(dict(line)), logging.DEBUG)
        for tracker in self._trackers:
            tracker.log(line)
        if self._bar is not None:
            self._bar.update(1)
            self._bar.set_postfix_str(f"avr_loss={self.average_loss:.4f}", refresh=False)
            # Without a terminal nobody sees the bar.
            if self._bar.disable and time.monotonic() - self._last_line_at > SILENCE:
                self._last_line_at = time.monotonic()
                self.say(f"step {line['step']} of {self._total_steps}, average loss {self.average_loss:.4f}")

    def state_dict(self) -> dict[str, Any]:
        return {
            "window": list(self._window),
            "since_told": {name: asdict(window) for name, window in self._since_progress.items()},
            "first_samples": self.first_samples,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._window.extend(state["window"])
        self._since_progress = {name: ProgressWindow(**figures) for name, figures in state["since_told"].items()}
        self.first_samples = list(state["first_samples"])

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._stream is not None:
            self._stream.close()
        for tracker in self._trackers:
            tracker.close()

    def take_stock(self, trainables: Sequence[Trainable], clock: Clock, device: torch.device) -> dict[str, Findings]:
        """Log what each trainable has found so far, where the time went, and how much memory was needed."""
        findings = {trainable.name: trainable.findings() for trainable in trainables}
        if self.path is not None:
            for name, found in findings.items():
                self.event("findings", clock, trainable=name, **as_plain(found))
            self.event("time", clock, spent=self.stopwatch.spent(), **peak_memory(device))
        return findings


def _is_not_finite(value: Any) -> bool:
    """JSON has no word for NaN and infinity."""
    return isinstance(value, float) and not math.isfinite(value)


def _lines_until(path: Path, step: int) -> str:
    """The lines of a log up to `step`, so that a resumed run logs no step twice; a line cut off by a kill goes too."""
    if not path.exists():
        return ""
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            place = json.loads(line)
            if place.get("before", place["step"]) <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return "".join(kept)


def _set_aside(path: Path) -> None:
    stamp = time.strftime("%Y%m%d%H%M%S", time.localtime(path.stat().st_mtime))
    path.rename(path.with_name(f"{path.stem}-{stamp}{path.suffix}"))
