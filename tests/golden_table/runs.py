"""What a run leaves in its folder: the names of files, states, pictures and logs, and the place that each file says."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from library.config.option import Settings
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse
from library.errors import ConfigError
from library.sampling.previews import preview_name
from library.sampling.prompts import read_prompts
from library.training.callbacks.samples import PreviewSpec
from library.training.clock import Clock, Epochs, LengthSpec, new_clock
from library.training.log.trackers import TrackerSpec, tensorboard_folder
from library.training.saving.file_names import SavingSpec, due_stems, outdated
from tests.golden_table.comparison import Comparison

STAMP = "<YYYYmmddHHMMSS>"

PLAIN_NAME = "a name with a folder in it is refused with the options; sd-scripts fails when it first saves"
ONE_ENDING = "an ending in the name of the output is not written twice"
EPOCHS_DONE = "a step's file says how many epochs are done, where sd-scripts counts them from 0 while they run"
STEPS_GO_ON = "a run that begins at a later epoch goes on counting steps from there"
BY_STEP = "pictures before the training are named by their step like those after it, unless all are named by epoch"

Left = dict[str, tuple[int, int] | None]
"""Name -> epochs and steps that the file says; None for a folder."""


def run_names(data: dict[str, Any]) -> Iterator[Comparison]:
    names = Comparison("files and states that a run leaves")
    places = Comparison("epoch and step in the header of each file")
    pictures = Comparison("names of sample pictures")
    logs = Comparison("folders of TensorBoard's logs")
    for run in data["runs"]:
        try:
            settings = settings_of(run)
        except ConfigError:
            names.add(run["label"], "refused", "raises" if run.get("raises") else "accepted", PLAIN_NAME)
            continue
        files = left_behind(settings.take(SavingSpec), clock_of(run, settings))
        ours, theirs = sorted(files), sorted(set(run["output_dir_top_level"]) - {"sample/"})
        names.add(run["label"], ours, theirs, ONE_ENDING if _is_doubled(run) else None)
        for name, said in run["ss_epoch_and_steps"].items():
            mine = files.get(name)
            if mine is not None:
                recorded = (int(said["ss_epoch"]), int(said["ss_steps"]))
                places.add(f"{run['label']} {name}", mine, recorded, _why_elsewhere(run, name, mine, recorded))
        if "sample_files" in run:
            for mine, recorded in zip(sample_names(run, settings), sorted(run["sample_files"]), strict=True):
                pictures.add(
                    run["label"], mine, recorded, BY_STEP if mine != recorded and "_e000000" in recorded else None
                )
        for recorded in run.get("log_files", ()):
            folder = tensorboard_folder(settings.take(TrackerSpec), Path(), STAMP).as_posix()
            logs.add(run["label"], folder, recorded.rpartition("/")[0])
    yield from (names, places, pictures, logs)


def settings_of(run: dict[str, Any]) -> Settings:
    """The run's options as our parser reads them. Raises ConfigError."""
    length = [(f"--{n}", str(run[n])) for n in ("max_train_steps", "max_train_epochs") if run[n] is not None]
    name = [("--output_name", run["output_name"])] if run["output_name"] is not None else []
    words = [word for pair in (*length, *name) for word in pair]
    argv = ["--output_dir", "out", *words, *run["options"]]
    return parse(argv, *ALL_TRAIN_NETWORK, prog="train_network.py", description="")


def clock_of(run: dict[str, Any], settings: Settings) -> Clock:
    steps_per_epoch = math.ceil(run["steps_per_epoch"] / (settings["gradient_accumulation_steps"] or 1))
    return new_clock(settings.take(LengthSpec), steps_per_epoch, resumed=False)


def left_behind(spec: SavingSpec, clock: Clock) -> Left:
    """What a run of the clock's length leaves in its folder."""
    left: Left = {}
    while not clock.finished:
        clock.tick()
        for stem in due_stems(spec, clock):
            left[spec.file(stem).name] = (clock.epochs_done, clock.global_step)
            if spec.save_state:
                left[spec.state(stem).name + "/"] = None
        old_files, old_states = outdated(spec, clock)
        for name in [spec.file(stem).name for stem in old_files] + [f"{path.name}/" for path in old_states]:
            left.pop(name, None)
    left[spec.file(spec.last_stem).name] = (clock.epochs_done, clock.global_step)
    if spec.save_state or spec.save_state_on_train_end:
        left[spec.state(spec.last_stem).name + "/"] = None
    return left


def sample_names(run: dict[str, Any], settings: Settings) -> list[str]:
    """The pictures of a run, as the trainer names them."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, Path(settings["sample_prompts"]).name)
        file.write_text(run["prompts_file"], encoding="utf-8")
        prompts = read_prompts(file)
    spec, clock = settings.take(PreviewSpec), clock_of(run, settings)
    moments = [(clock.epochs_done, clock.global_step)] if spec.sample_at_first else []
    while not clock.finished:
        clock.tick()
        if clock.is_due(spec.interval):
            moments.append((clock.epochs_done, clock.global_step))
    by_epoch = isinstance(spec.interval, Epochs)
    return [
        preview_name(
            i, p.seed, STAMP, output_name=settings["output_name"], epoch=epoch if by_epoch else None, step=step
        )
        for epoch, step in sorted(moments, key=lambda moment: (moment[1] == 0, moment))
        for i, p in enumerate(prompts)
    ]


def _is_doubled(run: dict[str, Any]) -> bool:
    return any(name.endswith(".safetensors.safetensors") for name in run["output_dir_top_level"])


def _why_elsewhere(run: dict[str, Any], name: str, ours: tuple[int, int], theirs: tuple[int, int]) -> str | None:
    if ours == theirs:
        return None
    if "--initial_epoch" in run["options"]:
        return STEPS_GO_ON
    return EPOCHS_DONE if "-step" in name and ours == (theirs[0] + 1, theirs[1]) else None
