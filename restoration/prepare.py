"""Make references of photos: find the face, align it, reject what is too small or blurred: restoration/prepare.py
--input photos --output refs --face_detector yunet.onnx"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started by its path: the repository is where `library` and `restoration` are found
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from library.command import run_command
from library.config.parse import parse
from library.console import show_line
from library.errors import UserError
from restoration.checks import writing_problems
from restoration.options import DETECTOR, FILES, IDENTITY, groups_for

SIDE = 512  # of the references, unless `resolution` is given
LEAST_SHARE = 0.5  # of that side: a face that would be enlarged more than twice teaches blur


def prepare(argv: Sequence[str]) -> None:
    settings = parse(
        argv,
        *groups_for(FILES, DETECTOR, IDENTITY),
        prog="restoration/prepare.py",
        description=str(__doc__),
        checks=(writing_problems,),
    )
    for line in settings.warnings:
        show_line(line)
    target = settings["output"] or settings["reference_dir"]
    if target is None:
        raise UserError("`output` is not set: the folder for the references")

    from library.image_files import BadImage, load
    from library.metrics.networks.face_detector import FaceDetector
    from restoration.image_folders import find_pictures, output_names, write_png
    from restoration.restoring.alignment import align, cut_out

    detector, side = FaceDetector(settings["face_detector"]), settings["resolution"] or SIDE
    sources = find_pictures(settings["input"], "input")
    names = output_names(sources, target)
    taken = 0
    for source in sources:
        try:
            photo = load(source)
            faces = detector.find(photo, settings["min_face"])
            if not faces:
                raise Rejected(f"no face of at least {settings['min_face']} pixels")
            if len(faces) > 1:
                raise Rejected(f"{len(faces)} faces: cut the person out, so that nobody else is learnt")
            alignment = align(faces[0].landmarks, side)
            if alignment.scale > 1 / LEAST_SHARE:
                raise Rejected(f"the face would have to be enlarged {alignment.scale:.1f} times")
            face = cut_out(photo, alignment)
            if (found := sharpness(face)) < settings["min_sharpness"]:
                raise Rejected(f"blurred: sharpness {found:.1f}, below min_sharpness = {settings['min_sharpness']:g}")
        except (Rejected, BadImage, ValueError) as reason:
            print(f"rejected {source.name}: {reason}")
            continue
        write_png(names[source], face)
        taken += 1
    print(f"{taken} of {len(sources)} pictures became references in {target}")
    if not taken:
        raise UserError("no picture can be used as a reference; the reasons are above")


class Rejected(Exception):
    """Why a photo is no reference."""


def sharpness(pixels) -> float:
    """Variance of the Laplacian of the grey picture."""
    import cv2

    return float(cv2.Laplacian(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(prepare, argv)


if __name__ == "__main__":
    sys.exit(main())
