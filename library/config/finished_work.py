"""Whether a run would replace what an earlier run of the same name has finished: a network, an embedding, a restorer.

The earlier run's settings are in its log, beside its file; nothing is loaded to compare them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from library.config.option import NOTHING, Settings
from library.config.values import written_form
from library.errors import Problem

EXTENSIONS = {"safetensors": ".safetensors", "ckpt": ".ckpt", "pt": ".pt"}
MOST_LINES = 5
NO_LOG = "and no log beside it tells its settings"


def finished_work_problems(settings: Settings, stem: str | None = None) -> list[Problem]:
    """For `parse(checks=...)`. `stem` is the name of the file without its ending, where it is not `output_name`.

    A file of the same settings is made again, with a line that tells so. A run that only looks is not refused.
    """
    file = finished_file(settings, stem or settings["output_name"] or "last")
    if file is None or settings["overwrite"] or _goes_on(settings, file):
        return []
    old = settings_of_finished(file)
    changes = None if old is None else list(differences(old, settings))
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(file.stat().st_mtime))
    if changes == []:
        settings.warnings.append(f"{file} of {made} was trained with the same settings; it is made again and replaced")
        return []
    what = NO_LOG if changes is None else "of other settings: " + "; ".join(_shortened(changes))
    joined = " " if changes is not None else ", "
    text = (
        f"{settings.place('output_dir')} has a finished {file.name} of {made}{joined}{what}. "
        f"Give another `output_name`, add `--resume latest` to go on from its state, or `--overwrite` to replace it."
    )
    if settings.values.get("plan") or settings.values.get("debug_dataset"):
        settings.warnings.append(text)
        return []
    return [Problem(text, understood=True)]


def finished_file(settings: Settings, stem: str) -> Path | None:
    """The file that a run of these settings writes at its end, if it is there already."""
    if settings["output_dir"] is None:
        return None
    kind = settings.values.get("save_model_as", "safetensors")
    file = Path(settings["output_dir"]) / f"{stem}{EXTENSIONS.get(kind, '.safetensors')}"
    return file if file.is_file() else None


def _goes_on(settings: Settings, file: Path) -> bool:
    """Whether the run goes on from a state: a given one, or with `latest` one of this name."""
    if settings["resume"] != "latest":
        return bool(settings["resume"])
    folders = (path.name for path in file.parent.iterdir() if path.name.endswith("-state"))
    return any(name.startswith(f"{file.stem}-") for name in folders)


def settings_of_finished(file: Path) -> dict[str, Any] | None:
    """The options that a finished file was trained with, by name, out of its log; None where no log tells of it."""
    settings, finished = None, None
    with suppress(OSError), (file.parent / f"{file.stem}-log.jsonl").open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if '"event": "settings"' not in line[:100] and '"event": "saved"' not in line[:100]:
                continue
            with suppress(ValueError, AttributeError, KeyError, TypeError):
                event = json.loads(line)
                if event["event"] == "settings":
                    settings = {name: entry["value"] for name, entry in event["settings"].items()}
                elif event.get("file") == file.name:
                    finished = settings
    return finished


def differences(old: dict[str, Any], settings: Settings) -> Iterator[str]:
    """A line for each option whose other value makes another file; what an earlier version did not have is left out."""
    for name, option in settings.options.items():
        if option.decides is NOTHING or option.inert or option.secret or name not in old:
            continue
        new = json.loads(json.dumps(written_form(settings[name]), default=str))
        if old[name] != new:
            yield f"{name} was {_shown(old[name])} and is {_shown(new)}"


def _shown(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)


def _shortened(lines: list[str]) -> list[str]:
    more = len(lines) - MOST_LINES
    return lines if more <= 0 else [*lines[:MOST_LINES], f"and {more} more"]
