"""Make references of photos: find the face, align it, reject what is too small or blurred: restoration/prepare.py
--input photos --output refs --face_detector yunet.onnx"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started by its path: the repository is where `library` and `restoration` are found
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from library.command import run_command
from library.config.option import Settings
from library.config.parse import parse
from library.console import show
from library.errors import Problem, UserError
from restoration.checks import restoring_face_problems, writing_problems
from restoration.options import DETECTOR, EVALUATION, FILES, IDENTITY, groups_for

logger = logging.getLogger(__name__)

SIDE = 512  # of the references, unless `resolution` is given


def prepare(argv: Sequence[str]) -> None:
    settings = parse(
        argv,
        *groups_for(FILES, DETECTOR, IDENTITY, EVALUATION),
        prog="restoration/prepare.py",
        description=str(__doc__),
        checks=(writing_problems, restoring_face_problems, choice_problems),
    )
    for line in settings.warnings:
        logger.info(line)
    target = settings["output"] or settings["reference_dir"]
    if target is None:
        raise UserError("`output` is not set: the folder for the references")

    from library.metrics.networks.face_detector import FaceDetector
    from library.metrics.networks.identity import face_network
    from restoration.image_folders import find_pictures, output_names, write_png
    from restoration.restoring.reference_photos import ReferenceRules, choose_references
    from restoration.restoring.which_face import know_person

    detector = FaceDetector(settings["face_detector"])
    rules = ReferenceRules(
        settings["resolution"] or SIDE,
        settings["min_face"],
        settings["min_sharpness"],
        settings["which_face"],
        face_network(settings["identity_model"]) if settings["identity_model"] else None,
        know_person(settings["identity_model"], settings["identity_refs"], settings["least_likeness"]),
        settings["least_likeness"],
    )
    sources = find_pictures(settings["input"], "input")
    names = output_names(sources, target)
    chosen = choose_references(sources, detector, rules)
    for source, reason in sorted(chosen.rejected.items()):
        show(f"rejected {source.name}: {reason}")
    for line in chosen.notes:
        show(line)
    for source, face in chosen.faces.items():
        write_png(names[source], face)
    show(f"{len(chosen.faces)} of {len(sources)} pictures became references in {target}")
    if not chosen.faces:
        raise UserError("no picture can be used as a reference; the reasons are above")


def choice_problems(settings: Settings) -> list[Problem]:
    """Nobody wants everybody's face as references of one person."""
    if settings["which_face"] != "all":
        return []
    return [
        Problem(f"{settings.place('which_face')} = all would make everybody a reference; give largest, or a number.")
    ]


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(prepare, argv)


if __name__ == "__main__":
    sys.exit(main())
