"""The settings of a run as a table: what was set for it first, with where it was written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from library.report.run_files import RunFiles


@dataclass(frozen=True)
class Told:
    """One option as it was: its value as in TOML, and where that came from."""

    name: str
    value: str
    origin: str


@dataclass(frozen=True)
class SettingsDescription:
    """`own` were set for this run, `rest` are defaults; `no_effect` and `notes` are sentences."""

    own: list[Told]
    rest: list[Told]
    no_effect: list[str]
    notes: list[str]
    command: str
    versions: dict[str, str]
    started: str


def describe_settings(run: RunFiles) -> SettingsDescription | None:
    """What the log says of the settings; of a resumed run, those of its last start."""
    event = run.last("settings")
    if event is None:
        return None
    lines = [
        Told(str(name), _written(setting.get("value")), str(setting.get("origin", "")))
        for name, setting in event.get("settings", {}).items()
    ]
    return SettingsDescription(
        own=[setting for setting in lines if setting.origin != "default"],
        rest=[setting for setting in lines if setting.origin == "default"],
        no_effect=[str(line) for line in event.get("no_effect", ())],
        notes=[str(line) for line in [*event.get("notes", ()), *_changes(run)]],
        command=str(event.get("command", "")),
        versions={str(name): str(version) for name, version in event.get("versions", {}).items()},
        started=str(event.get("started", "")),
    )


def _changes(run: RunFiles) -> list[str]:
    """What the run took on purpose when it was resumed from a state of other settings."""
    events = [event for event in run.events if event["event"] == "resumed with changes"]
    return [f"resumed with changes at step {e['step']:,}: {line}" for e in events for line in e.get("lines", ())]


def _written(value: Any) -> str:
    return "–" if value is None else json.dumps(value, ensure_ascii=False)
