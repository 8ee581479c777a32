"""Train a LoRA-family network from kohya TOML and command-line options: train_network.py --config_file style.toml"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from library.command import run_command
from library.config.checks import problems
from library.config.datasets import dataset_problems, plan_datasets
from library.config.finished_work import finished_work_problems
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse
from library.config.plugin_checks import plugin_problems
from library.console import Console, ConsoleSpec, log_to, show
from library.launch import start_the_missing_processes
from library.sampling.prompts import prompt_problems

logger = logging.getLogger(__name__)


def train(argv: Sequence[str]) -> None:
    settings = parse(
        argv,
        *ALL_TRAIN_NETWORK,
        prog="train_network.py",
        description=str(__doc__),
        checks=(problems, plugin_problems, dataset_problems, prompt_problems, finished_work_problems),
    )
    plan = plan_datasets(settings)
    log_to(Console(settings.take(ConsoleSpec)))
    for line in settings.notes():
        logger.info(line)

    # The engine is imported here and nowhere above: a mistake in the options must not wait for torch.
    from library.data.debug_dataset import show_dataset
    from library.training.loop import fit
    from library.training.setup.build import build_run
    from library.training.setup.checks import check_before_loading

    if settings["plan"]:
        from library.training.plan.plan import make_plan
        from library.training.plan.text import plan_text

        show(plan_text(make_plan(settings, plan)))
        return
    checked = check_before_loading(settings, plan)
    if settings["debug_dataset"]:
        show_dataset(checked.dataset, settings["output_dir"], seed=settings["seed"] or 0)
        return
    run = build_run(checked)
    with run.lock, run.signals:
        fit(run)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(train, argv)


def launched(argv: Sequence[str]) -> None:
    start_the_missing_processes()
    train(argv)


if __name__ == "__main__":
    sys.exit(run_command(launched))
