"""Sample pictures during the training: when they are due, and drawing them without a trace in the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from library.config.spec import declared, spec
from library.errors import Interrupted
from library.path_safety import path_inside
from library.sampling.before_after import write_before_after
from library.training.clock import Clock, Epochs, Interval, Steps
from library.training.work import Work

Draw = Callable[[int | None, int], list[Path]]


@spec
class PreviewSpec:
    """The options on sample pictures; field names are the options'."""

    sample_every_n_steps: int | None = declared
    sample_every_n_epochs: int | None = declared
    sample_at_first: bool = declared
    sample_sampler: str = declared

    @property
    def interval(self) -> Interval | None:
        """Epochs win over steps, as in kohya's trainer."""
        if self.sample_every_n_epochs:
            return Epochs(self.sample_every_n_epochs)
        return Steps(self.sample_every_n_steps) if self.sample_every_n_steps else None


class Previews:
    """`draw(epoch or None, step)` makes the pictures and returns their files; None where no prompts were given.

    `sheet` is written where there are pictures of the untrained network: these beside the last ones.
    """

    def __init__(self, spec: PreviewSpec, draw: Draw | None, sheet: Path) -> None:
        self._spec = spec
        self._draw = draw
        self._sheet = sheet
        self._newest: list[Path] = []

    def due(self, clock: Clock) -> bool:
        return self._draw is not None and clock.is_due(self._spec.interval)

    def draw_first(self, work: Work) -> None:
        """Pictures of the untrained network, if asked for and the run is new."""
        if self._draw is not None and self._spec.sample_at_first and work.journal.resumed_from is None:
            self._pictures(work)

    def draw_if_due(self, work: Work) -> None:
        if self.due(work.clock):
            self._pictures(work)

    def _pictures(self, work: Work) -> None:
        assert self._draw is not None
        if work.processes.is_main:
            by_epoch = isinstance(self._spec.interval, Epochs)
            try:
                with work.looked_at("samples"):
                    self._newest = self._draw(work.clock.epochs_done if by_epoch else None, work.clock.global_step)
                work.journal.event("samples", work.clock, files=[file.name for file in self._newest])
            except Interrupted:
                raise
            except Exception as error:  # out of memory, no room, a sampler that fails: pictures are not the training
                work.journal.say(f"the samples could not be drawn, the training goes on: {error}")
        work.processes.wait()

    def compare(self, work: Work) -> None:
        """Set the first pictures beside the last ones, if the run was begun with pictures."""
        if self._draw is not None and self._spec.sample_at_first and not self.due(work.clock):
            self._pictures(work)
        folder = self._sheet.parent / "sample"
        named = [path_inside(folder, name) for name in work.journal.first_samples]
        before = [path for path in named if path is not None and path.is_file()]
        if work.processes.is_main and before != self._newest and len(before) == len(self._newest) > 0:
            write_before_after(before, self._newest, self._sheet)
            work.journal.saved.append(self._sheet)
