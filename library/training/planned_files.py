"""The files that a run would leave, with their sizes, by the rules that it writes them by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from library.data.folders import CACHE_FOLDER
from library.training.clock import Clock
from library.training.file_names import SavingSpec, due_stems, outdated
from library.training.previews import PreviewSpec

PICTURE_NAME = "*.png"


@dataclass(frozen=True)
class PlannedFile:
    """`size` in bytes, None where it cannot be known; `number` files of about that size each."""

    path: Path
    size: int | None
    number: int = 1
    remark: str = ""


def planned_files(
    saving: SavingSpec,
    previews: PreviewSpec,
    clock: Clock,
    *,
    network: int | None,
    state: int,
    word: int | None,
    prompts: int,
    latents: Sequence[tuple[Path, int]] | None,
) -> Iterator[PlannedFile]:
    """Sizes are bytes of a network's file, of a state, and of a new word's file; `latents` are those kept on disk.

    Files that the run itself removes again (`save_last_n_*`) are not among them.
    """
    labels = {"": network, "_emb" if network is not None else "": word}
    sizes = {label: size for label, size in labels.items() if size is not None}
    stems, states, drawn = simulated(saving, previews, clock)
    for stem in [*stems, saving.last_stem]:
        for label, size in sizes.items():
            path = saving.file(stem + label)
            yield PlannedFile(path, size, remark="is there already and will be replaced" if path.exists() else "")
    for folder in states:
        yield PlannedFile(folder, state, remark="a folder: what resuming needs")
    yield PlannedFile(saving.log, None, remark="every step, and what was found out")
    if prompts and drawn:
        yield PlannedFile(saving.output_dir / "sample" / PICTURE_NAME, None, prompts * drawn)
    for folder in sorted({folder for folder, _ in latents or ()}):
        mine = [8 * numbers for place, numbers in latents or () if place == folder]
        yield PlannedFile(folder / CACHE_FOLDER, sum(mine), remark=f"latents of pictures: {len(mine)}")


def simulated(saving: SavingSpec, previews: PreviewSpec, clock: Clock) -> tuple[list[str], list[Path], int]:
    """(stems of the files, states, how often samples are drawn) that a run leaves beside its last file."""
    clock = Clock(clock.steps_per_epoch, clock.total_steps, clock.global_step)
    stems: list[str] = []
    states: list[Path] = []
    drawn = int(previews.sample_at_first)
    while not clock.finished:
        clock.tick()
        drawn += clock.is_due(previews.interval)
        if due := due_stems(saving, clock):
            stems += due
            states += [saving.state(stem) for stem in due] if saving.save_state else []
            old_stems, old_states = outdated(saving, clock)
            stems = [stem for stem in stems if stem not in old_stems]
            states = [folder for folder in states if folder not in old_states]
    if saving.save_state or saving.save_state_on_train_end:
        states.append(saving.state(saving.last_stem))
    return stems, states, drawn
