"""A run without what is nobody else's business: where its files lie, and what its training pictures are called."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from library.report.run_files import RunFiles

LEFT_OUT = "(left out)"
# Words with a folder in them, also in quotes with blanks; fractions such as 3/4 and dates stay.
_PATH = re.compile(r"""(["'`])[^"'`\n]*[/\\][^"'`\n]*\1|(?<![\w<])(?:[A-Za-z]:)?[\w.~+@-]*[/\\][^\s"'`,;]*""")
_FRACTION = re.compile(r"[\d.]+/[\d.]+")


def without_paths(run: RunFiles) -> RunFiles:
    """The same run without paths, command, training pictures, and captions."""
    return replace(run, events=[_public(event) for event in run.events])


def _public(event: dict[str, Any]) -> dict[str, Any]:
    if event["event"] == "images":
        return {"event": "images", "step": event["step"], "count": event.get("count")}
    if event["event"] == "settings":
        settings = {n: s | {"value": LEFT_OUT if s.get("path") else s["value"]} for n, s in event["settings"].items()}
        event = event | {"settings": settings, "command": ""}
    if event["event"] == "data":
        event = event | {"problems": [p | {"file": "", "sentence": ""} for p in event.get("problems", ())]}
    if event["event"] in ("samples", "saved", "saved state"):
        return event  # names of files of the run itself, without folders
    return scrubbed(event)


def scrubbed(value: Any) -> Any:
    """Texts without the paths in them, however deep they are nested."""
    if isinstance(value, str):
        return _PATH.sub(lambda found: found[0] if _FRACTION.fullmatch(found[0]) else LEFT_OUT, value)
    if isinstance(value, dict):
        return {name: scrubbed(inner) for name, inner in value.items()}
    return [scrubbed(inner) for inner in value] if isinstance(value, list) else value
