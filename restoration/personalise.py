"""From references and degraded pictures to restored ones: restoration/personalise.py --config_file ana.toml

Trains both pivots, restores `input` into `output`, and `input` without the person beside it (`OUTPUT_blind`), and where
`reference` has the originals, measures both. It is train.py, restore.py and evaluate.py one after the other; started
again with `--resume latest --skip_existing` it goes on where it stopped.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started by its path: the repository is where `library` and `restoration` are found
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from library.command import run_command
from library.config.image_folders import count_images, what_else_is_there, why_not_a_file, why_not_a_folder
from library.config.option import Settings
from library.config.parse import parse
from library.errors import ConfigError, Problem
from library.launch import start_the_missing_processes
from restoration.checks import restoring_face_problems, training_problems, writing_problems
from restoration.evaluate import report
from restoration.options import DEGRADATION, EVALUATION, FILES, IDENTITY, PIVOTS, RESTORER, SAMPLING, groups_for
from restoration.restore import restore_folder
from restoration.train import train_pivots

logger = logging.getLogger(__name__)


def personalise(argv: Sequence[str]) -> None:
    settings = parse(
        argv,
        *groups_for(FILES, IDENTITY, RESTORER, PIVOTS, DEGRADATION, SAMPLING, EVALUATION),
        prog="restoration/personalise.py",
        description=str(__doc__).splitlines()[0],
        checks=(training_problems, file_problems, writing_problems, restoring_face_problems),
    )
    for line in settings.notes():
        logger.info(line)
    if settings["blind"]:
        raise ConfigError("`blind` restores without a person, so there is nothing to train; use restoration/restore.py")
    train_pivots(settings)
    output: Path = settings["output"]
    blind = output.with_name(f"{output.name}_blind")
    restore_folder(settings)
    restore_folder(settings.changed(blind=True, mode="restore", output=blind))
    if settings["reference"] is not None:
        report(
            {"degraded": settings["input"], "blind": blind, "restored": output}, settings["reference"], output, settings
        )


def file_problems(settings: Settings) -> list[Problem]:
    """The folders that this command needs beside those of the training."""
    problems = []
    for name in ("input", "output"):
        if settings[name] is None:
            problems.append(Problem(f"`{name}` is not set: {settings.options[name].help}."))
    for name in ("input", "reference", "identity_refs"):
        folder = settings[name]
        if folder is None:
            continue
        if why := why_not_a_folder(folder):
            problems.append(Problem(f"{settings.place(name)}: {why}", understood=True))
        elif not count_images(folder):
            problems.append(Problem(f"{settings.place(name)}: {what_else_is_there(folder)}", understood=True))
    detector = settings["face_detector"]
    if detector is not None and (why := why_not_a_file(detector)):
        problems.append(Problem(f"{settings.place('face_detector')}: {why}", understood=True))
    if settings["restore_mode"] == "faces" and settings["face_detector"] is None:
        problems.append(Problem(f"{settings.place('restore_mode')} = faces needs `face_detector`: OpenCV's YuNet."))
    return problems


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(personalise, argv)


def launched(argv: Sequence[str]) -> None:
    start_the_missing_processes()
    personalise(argv)


if __name__ == "__main__":
    sys.exit(run_command(launched))
