"""Restore a folder of pictures as one person: restoration/restore.py --config_file ana.toml --input lq --output out"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # started by its path: the repository is where `library` and `restoration` are found
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from library.command import run_command
from library.config.option import Settings
from library.config.parse import parse
from library.console import show
from library.errors import Problem, UserError, raise_all
from restoration.checks import restoring_problems
from restoration.options import (
    DETECTOR,
    EVALUATION,
    FILES,
    IDENTITY,
    RESTORER,
    RESTORING,
    RUN,
    SAMPLING,
    SAVING_HERE,
    groups_for,
)

if TYPE_CHECKING:
    from restoration.restoring.restore_folder import FaceFinder

logger = logging.getLogger(__name__)


def restore(argv: Sequence[str]) -> None:
    settings = parse(
        argv,
        *groups_for(FILES, RESTORING, SAMPLING, RESTORER, IDENTITY, DETECTOR, EVALUATION, RUN, SAVING_HERE),
        prog="restoration/restore.py",
        description=str(__doc__),
        checks=(restoring_problems,),
    )
    for line in settings.warnings:
        logger.info(line)
    restore_folder(settings)


def restore_folder(settings: Settings) -> None:
    """Restore all that can be; raises `UserError` at the end that lists what could not."""
    if settings["output"] is None:
        raise UserError("`output` is not set: the folder for the restored pictures")

    # The engine is imported here and nowhere above: a mistake in the options must not wait for torch.
    from library.atomic import sweep_temporaries
    from library.files import check_writable
    from restoration.image_folders import find_pictures, output_names, read_alpha, write_png
    from restoration.restoring.restore_folder import (
        check_makers,
        open_studio,
        restore_aligned,
        restore_photos,
        restorer_of,
    )

    raise_all(check_writable(settings["output"]))
    sweep_temporaries(settings["output"])
    sources = find_pictures(settings["input"], "input")
    names = output_names(sources, settings["output"])
    maker = restorer_of(settings)
    if settings["skip_existing"]:
        check_makers(names.values(), maker)
        sources = [source for source in sources if not names[source].is_file()]
    if not sources:
        logger.info("every picture is restored already")
        return
    if settings["restore_mode"] != "faces" and settings.explicit("which_face"):
        logger.info(f"{settings.place('which_face')} has no effect without `restore_mode = faces`")
    finder = find_faces_by(settings) if settings["restore_mode"] == "faces" else None
    studio = open_studio(settings)
    if finder:
        if settings["other_faces"] == "blind" and not settings["blind"]:
            finder = replace(finder, others=open_studio(settings.changed(blind=True, mode="restore")))
        done = restore_photos(studio, sources, finder)
    else:
        done = restore_aligned(studio, sources, settings["batch_size"])
    problems: list[Problem] = []
    restored = unchanged = 0
    for picture in done:
        if picture.pixels is not None:
            write_png(names[picture.source], picture.pixels, maker, read_alpha(picture.source))
            restored, unchanged = restored + (picture.problem is None), unchanged + (picture.problem is not None)
        for line in picture.notes:
            logger.info(f"{picture.source.name}: {line}")
        if picture.problem:
            problems.append(Problem(picture.problem, f"image '{picture.source}'"))
            logger.info(str(problems[-1]))
    rest = f"; {unchanged} written as {'it was' if unchanged == 1 else 'they were'}" if unchanged else ""
    show(f"restored {restored} of {len(sources)} pictures into {settings['output']}{rest}")
    raise_all(problems)


def find_faces_by(settings: Settings) -> FaceFinder:
    """How faces are found and chosen. Nobody's face is to be found where no person is restored or somebody swapped."""
    from library.metrics.networks.face_detector import FaceDetector
    from restoration.restoring.restore_folder import FaceFinder
    from restoration.restoring.which_face import know_person

    which = settings["which_face"]
    if which == "auto" and (settings["blind"] or settings["mode"] == "swap"):
        which = "all" if settings["blind"] else "largest"
    known_by = settings["identity_refs"] or settings["reference_dir"]
    by = (settings["identity_model"], known_by, settings["least_likeness"])
    person = know_person(*by) if which in ("auto", "identity") else None
    return FaceFinder(FaceDetector(settings["face_detector"]), settings["min_face"], which, person)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(restore, argv)


if __name__ == "__main__":
    sys.exit(main())
