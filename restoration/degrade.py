"""Damage a folder of pictures, the same way each time: restoration/degrade.py --input gt --output lq --seed 0"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started by its path: the repository is where `library` and `restoration` are found
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from library.command import run_command
from library.config.parse import parse
from library.console import show
from library.errors import Problem, UserError, raise_all
from restoration.checks import writing_problems
from restoration.options import DEGRADATION, FILES, RUN, degradation_of, groups_for

logger = logging.getLogger(__name__)


def damage(argv: Sequence[str]) -> None:
    settings = parse(
        argv,
        *groups_for(FILES, DEGRADATION, RUN),
        prog="restoration/degrade.py",
        description=str(__doc__),
        checks=(writing_problems,),
    )
    for line in settings.warnings:
        logger.info(line)
    if settings["output"] is None:
        raise UserError("`output` is not set: the folder for the degraded pictures")

    import numpy as np

    from library.files import check_writable
    from library.image_files import BadImage, load
    from restoration.damage.degradation import degrade, generator
    from restoration.image_folders import find_pictures, output_names, read_alpha, write_png

    raise_all(check_writable(settings["output"]))
    sources = find_pictures(settings["input"], "input")
    names = output_names(sources, settings["output"])
    degradation = degradation_of(settings)
    problems: list[Problem] = []
    psnr: list[float] = []
    for source in sources:
        if settings["skip_existing"] and names[source].is_file():
            continue
        try:
            picture = load(source).astype(np.float32) / np.float32(255)
        except BadImage as error:
            problems.append(Problem(str(error), f"image '{source}'"))
            continue
        side = min(picture.shape[:2])
        damaged = degrade(picture, degradation.for_size(side), generator(settings["seed"], 0, source.name))
        psnr.append(float(-10 * np.log10(max(1e-10, np.mean((damaged.astype(np.float64) - picture) ** 2)))))
        write_png(names[source], np.round(damaged * 255).astype(np.uint8), alpha=read_alpha(source))
    if psnr:
        show(
            f"degraded {len(psnr)} pictures into {settings['output']}: PSNR {np.mean(psnr):.2f} dB "
            f"({min(psnr):.2f} to {max(psnr):.2f})"
        )
    raise_all(problems)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(damage, argv)


if __name__ == "__main__":
    sys.exit(main())
