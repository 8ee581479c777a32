"""Look at a dataset before it is trained on: python -m library.data.preflight DATASET [--json FILE] [--html FILE]"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from library.command import run_command
from library.console import show
from library.data.preflight.findings import Report
from library.data.preflight.options import PreflightTarget, read_target
from library.errors import ConfigError, UserError


def preflight(argv: Sequence[str]) -> None:
    """Say what was found; ends with SystemExit(1) where there are problems."""
    try:
        report = looked_at(read_target(argv))
    except UserError as error:
        raise ConfigError(str(error)) from error  # so that 1 always means that problems were found
    if report.problems:
        raise SystemExit(1)


def looked_at(target: PreflightTarget) -> Report:
    """Look at a dataset, and print and write what was found."""
    # What decodes images is imported here and nowhere above: a mistake in the options must not wait for it.
    from library.data.preflight.inspect import inspect
    from library.data.preflight.lengths import count_of, tokenizer_at_hand
    from library.data.preflight.written import lines_of
    from library.files import write_json

    settings = target.settings
    model = settings["pretrained_model_name_or_path"]
    tokenizer = tokenizer_at_hand(Path(model) if model else None, settings["tokenizer_cache_dir"])
    report = inspect(
        target.plan,
        max_token_length=settings["max_token_length"],
        count=count_of(tokenizer) if tokenizer else None,
        workers=settings["processes"],
        already=target.already,
    )
    report.unchecked += target.assumed
    for line in lines_of(report):
        show(line)
    if settings["json"]:
        write_json(settings["json"], report.to_json())
    if settings["html"]:
        from library.data.preflight.page import write_report

        write_report(settings["html"], report)
    return report


if __name__ == "__main__":
    sys.exit(run_command(preflight))
