"""Restore a folder of pictures as one person: restoration/restore.py --config_file ana.toml --input lq --output out"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started by its path: the repository is where `library` and `restoration` are found
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from library.command import run_command
from library.config.option import Settings
from library.config.parse import parse
from library.console import show_line
from library.errors import Problem, UserError, raise_all
from restoration.checks import restoring_problems
from restoration.options import DETECTOR, FILES, IDENTITY, RESTORER, RESTORING, RUN, SAMPLING, SAVING_HERE, groups_for


def restore(argv: Sequence[str]) -> None:
    settings = parse(
        argv,
        *groups_for(FILES, RESTORING, SAMPLING, RESTORER, IDENTITY, DETECTOR, RUN, SAVING_HERE),
        prog="restoration/restore.py",
        description=str(__doc__),
        checks=(restoring_problems,),
    )
    for line in settings.warnings:
        show_line(line)
    restore_folder(settings)


def restore_folder(settings: Settings) -> None:
    """Restore all that can be; raises `UserError` at the end that lists what could not."""
    if settings["output"] is None:
        raise UserError("`output` is not set: the folder for the restored pictures")

    # The engine is imported here and nowhere above: a mistake in the options must not wait for torch.
    from library.atomic import sweep_temporaries
    from library.files import check_writable
    from library.metrics.networks.face_detector import FaceDetector
    from restoration.image_folders import find_pictures, output_names, write_png
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
        show_line("every picture is restored already")
        return
    detector = FaceDetector(settings["face_detector"]) if settings["restore_mode"] == "faces" else None
    studio = open_studio(settings, show_line)
    if detector:
        done = restore_photos(studio, sources, detector, settings["min_face"])
    else:
        done = restore_aligned(studio, sources, settings["batch_size"])
    problems: list[Problem] = []
    written = 0
    for picture in done:
        if picture.pixels is not None:
            write_png(names[picture.source], picture.pixels, maker)
            written += 1
        if picture.problem:
            problems.append(Problem(picture.problem, f"image '{picture.source}'"))
            show_line(str(problems[-1]))
    print(f"restored {written} of {len(sources)} pictures into {settings['output']}")
    raise_all(problems)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(restore, argv)


if __name__ == "__main__":
    sys.exit(main())
