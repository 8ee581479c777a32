"""Measure restored pictures against the originals: restoration/evaluate.py --restored out --reference gt

Prints a table and writes it beside the restored folder, with all numbers as JSON and the pictures side by side. What
cannot be measured is reported, with the line that would change it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

if not __package__:  # started by its path: the repository is where `library` and `restoration` are found
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from library.command import run_command
from library.config.option import Settings
from library.config.parse import parse
from library.config.values import split_key_values
from library.console import show
from library.errors import UserError
from restoration.options import EVALUATION, FILES, IDENTITY, groups_for

logger = logging.getLogger(__name__)


def read_settings(argv: Sequence[str]) -> Settings:
    return parse(
        argv,
        *groups_for(EVALUATION, FILES, IDENTITY),
        prog="restoration/evaluate.py",
        description=str(__doc__).splitlines()[0],
    )


def evaluate(argv: Sequence[str]) -> None:
    settings = read_settings(argv)
    for line in settings.warnings:
        logger.info(line)
    restored = settings["restored"] or settings["output"]
    for name, folder in (("restored", restored), ("reference", settings["reference"])):
        if folder is None or not folder.is_dir():
            raise UserError(f"`{name}` is not a folder ({folder}); {settings.options[name].help}")
    columns = {title: Path(folder) for title, folder in split_key_values(settings["columns"]).items()}
    if settings["input"] is not None and settings["input"].is_dir():
        columns = {"degraded": settings["input"], **columns}
    report({**columns, "restored": restored}, settings["reference"], restored, settings)


def report(folders: Mapping[str, Path], originals: Path, where: Path, settings: Settings) -> None:
    """Measure each folder, print and write the table, the numbers and the sheet."""
    from library.files import write_json, write_text
    from library.image_files import discover, load
    from restoration.measuring.measures import Tools, measure, paired
    from restoration.measuring.sheet import write_sheet

    references_in = settings["identity_refs"] or settings["reference_dir"]
    references = [load(path) for path in discover(references_in)] if references_in else []
    tools = settings.take(Tools)
    measured = {title: measure(paired(folder, originals), references, tools) for title, folder in folders.items()}
    names = list(dict.fromkeys(name for result in measured.values() for name in result.means))
    lines = [f"| | n | {' | '.join(names)} |", "|---|---|" + "---|" * len(names)]
    for title, result in measured.items():
        values = [f"{result.means[name]:.4g}" if name in result.means else "-" for name in names]
        lines.append(f"| {title} | {len(result.each)} | {' | '.join(values)} |")
    missing = next(iter(measured.values())).missing
    notes = [f"{name} is not measured: {line}" for name, line in missing.items()]
    text = "\n".join([*lines, "", *notes]) + "\n"
    show(text)
    beside = {kind: where.with_name(f"{where.name}_{kind}") for kind in ("table.md", "metrics.json", "sheet.png")}
    write_text(beside["table.md"], text)
    facts = {title: {"means": m.means, "pictures": m.each, "not measured": m.missing} for title, m in measured.items()}
    write_json(beside["metrics.json"], facts)
    write_sheet(beside["sheet.png"], {**folders, "original": originals})
    show(f"written: {', '.join(str(path) for path in beside.values())}")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(evaluate, argv)


if __name__ == "__main__":
    sys.exit(main())
