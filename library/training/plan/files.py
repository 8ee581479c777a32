"""The files that a run would leave, with their sizes, by the rules that it writes them by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from library.data.images.image_folder import CACHE_FOLDER
from library.training.callbacks.samples import PreviewSpec
from library.training.clock import Clock
from library.training.saving.file_names import SavingSpec, due_stems, outdated

PICTURE_NAME = "*.png"


@dataclass(frozen=True)
class PlannedFile:
    """`size` in bytes, None where it cannot be known; `number` files of about that size each."""

    path: Path
    size: int | None
    number: int = 1
    remark: str = ""


@dataclass(frozen=True)
class Sizes:
    """Bytes of a network's file, of a new word's file (None where there is none), and of a state of both."""

    network: int | None
    word: int | None
    state: int


@dataclass(frozen=True)
class Kept:
    """What a run keeps beside its numbered files: the best step, an average beside each of the others, a state where it
    may end early, the page; `pictures` of each time that samples are drawn, and (folder, numbers) of each latent on
    disk."""

    best: bool = False
    average: bool = False
    ended_early: bool = False
    page: bool = False
    pictures: int = 0
    latents: Sequence[tuple[Path, int]] = ()


def planned_files(
    saving: SavingSpec, previews: PreviewSpec, clock: Clock, sizes: Sizes, kept: Kept
) -> Iterator[PlannedFile]:
    """Files that the run itself removes again (`save_last_n_*`) are not among them."""
    labels = {"": sizes.network, "_emb" if sizes.network is not None else "": sizes.word}
    weights = {label: size for label, size in labels.items() if size is not None}
    stems, states, drawn = simulated(saving, previews, clock)
    remarks = {saving.best_stem: "the step with the lowest held-out loss"} if kept.best else {}
    saved = [*stems, saving.last_stem]
    if kept.average:
        averages = {saving.average_stem(stem): "the averaged weights" for stem in saved}
        saved, remarks = [*saved, *averages], averages | remarks
    for stem in dict.fromkeys([*saved, *remarks]):
        for label, size in weights.items():
            path = saving.file(stem + label)
            remarks_of_file = [remarks.get(stem, ""), "is there already and will be replaced" if path.exists() else ""]
            yield PlannedFile(path, size, remark=", ".join(filter(None, remarks_of_file)))
    state = sizes.state + (sum(weights.values()) if kept.best else 0)  # which has a copy of the best step
    for folder in states:
        yield PlannedFile(folder, state, remark="a folder: what resuming needs")
    if kept.ended_early and saving.state(saving.last_stem) not in states:
        yield PlannedFile(saving.state(saving.last_stem), state, remark="a folder, if `early_stop` ends the run")
    yield PlannedFile(saving.log, None, remark="every step, and what was found out")
    if kept.page:
        yield PlannedFile(saving.page, None, remark="the page of the run")
    if kept.pictures and drawn:
        yield PlannedFile(saving.output_dir / "sample" / PICTURE_NAME, None, kept.pictures * drawn)
    for folder in sorted({folder for folder, _ in kept.latents}):
        mine = [8 * numbers for place, numbers in kept.latents if place == folder]
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
