"""A run as its files tell it: the log line by line, a cut-off last line forgiven; nothing else of the run is asked."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from library.errors import UserError

NAN = float("nan")
LOG = "-log.jsonl"


@dataclass
class StepColumns:
    """The figures of every step, a column each; what a step has not is NaN."""

    step: array[float] = field(default_factory=lambda: array("d"))
    epoch: array[float] = field(default_factory=lambda: array("d"))
    loss: array[float] = field(default_factory=lambda: array("d"))
    average: array[float] = field(default_factory=lambda: array("d"))
    seconds: array[float] = field(default_factory=lambda: array("d"))
    rates: dict[str, array[float]] = field(default_factory=dict)
    skipped: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.step)

    def add(self, line: Mapping[str, Any]) -> None:
        self.step.append(line["step"])
        for column, name in ((self.epoch, "epoch"), (self.loss, "loss"), (self.average, "avr_loss")):
            column.append(_number(line.get(name)))
        self.seconds.append(_number(line.get("seconds")))
        rates = line.get("lr")
        for name, rate in rates.items() if isinstance(rates, Mapping) else ():
            if name not in self.rates:
                self.rates[name] = array("d", [NAN]) * (len(self) - 1)
            self.rates[name].append(_number(rate))
        for known in self.rates.values():
            if len(known) < len(self):
                known.append(NAN)
        if line.get("skipped"):
            self.skipped.append(line["step"])


@dataclass
class RunFiles:
    """What a log says; `events` are the lines that are not a step's, in their order."""

    log: Path
    steps: StepColumns = field(default_factory=StepColumns)
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.log.name.removesuffix(LOG)

    @property
    def folder(self) -> Path:
        return self.log.parent

    def all(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == name]

    def last(self, name: str) -> dict[str, Any] | None:
        return next((event for event in reversed(self.events) if event["event"] == name), None)

    @property
    def last_step(self) -> int:
        """The furthest step that the log knows of."""
        steps = int(self.steps.step[-1]) if len(self.steps) else 0
        return max([steps, *(event["step"] for event in self.events)])


def read_run(log: Path) -> RunFiles:
    """The run that wrote `log`. Raises `UserError` where the file cannot be read, or is no log of a run."""
    run = RunFiles(log)
    try:
        for line in _lines(log):
            if "event" in line:
                run.events.append(line)
            else:
                run.steps.add(line)
    except OSError as error:
        raise UserError(f"`{log}` cannot be read: {error.strerror}") from None
    if not run.events and not len(run.steps):
        raise UserError(f"`{log}` holds no line of a training; give the folder that a run wrote its files into")
    return run


def find_logs(folder: Path, name: str | None = None) -> list[Path]:
    """The logs in the folder of a run, or that of `name`; a log itself is taken too. Raises `UserError`."""
    if folder.is_file() and folder.name.endswith(LOG):
        return [folder]
    if not folder.is_dir():
        raise UserError(f"`{folder}` is not a folder; give the output_dir of a run")
    logs = sorted(folder.glob(f"*{LOG}"))
    if name is not None:
        logs = [log for log in logs if log.name == f"{name}{LOG}"]
    if not logs:
        wanted = f"{name}{LOG}" if name is not None else f"a file ending in {LOG}"
        raise UserError(f"`{folder}` has no {wanted}, which every run writes; give the output_dir of a run")
    return logs


def _lines(log: Path) -> Iterator[dict[str, Any]]:
    """The lines that are whole; one cut off by a kill is not."""
    with log.open(encoding="utf-8", errors="replace") as stream:
        for text in stream:
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                yield line


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else NAN
