"""Personalise a face restorer with about ten pictures of one person: restoration/train.py --config_file ana.toml"""

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
from library.launch import start_the_missing_processes
from restoration.checks import training_problems
from restoration.options import (
    BOTH,
    DEGRADATION,
    IDENTITY,
    MODEL_PIVOT,
    NETWORK_ON_G,
    OPTIMIZER_HERE,
    PIVOTS,
    RESTORER,
    RUN,
    SAVING_HERE,
    TEXT,
    groups_for,
)

logger = logging.getLogger(__name__)


def read_settings(argv: Sequence[str]) -> Settings:
    return parse(
        argv,
        *groups_for(RESTORER, IDENTITY, PIVOTS, NETWORK_ON_G, DEGRADATION, RUN, OPTIMIZER_HERE, SAVING_HERE),
        prog="restoration/train.py",
        description=str(__doc__),
        checks=(training_problems,),
    )


def train(argv: Sequence[str]) -> None:
    settings = read_settings(argv)
    for line in settings.notes():
        logger.info(line)
    train_pivots(settings)


def train_pivots(settings: Settings) -> None:
    """Step 1, step 2, or one after the other, each a run of its own."""
    # The engine is imported here and nowhere above: a mistake in the options must not wait for torch.
    from library.training.loop import fit
    from restoration.pivots.build import build_pivot
    from restoration.pivots.pivot import is_finished

    for pivot in (TEXT, MODEL_PIVOT) if settings["pivot"] == BOTH else (settings["pivot"],):
        if is_finished(settings, pivot):
            logger.info(f"the {pivot} pivot is finished already and is taken as it is")
            continue
        run = build_pivot(settings, pivot)
        with run.lock, run.signals:
            fit(run)
        if pivot == TEXT and settings["resume"] == "latest":  # states of step 2 are around an older G
            settings = settings.changed(resume=None)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(train, argv)


def launched(argv: Sequence[str]) -> None:
    start_the_missing_processes()
    train(argv)


if __name__ == "__main__":
    sys.exit(run_command(launched))
