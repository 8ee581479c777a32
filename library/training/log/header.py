"""What the log says before the first step, so that reports need nothing but the run's own files: every setting with its
origin, the command, versions, and which pictures are learnt from."""

from __future__ import annotations

import platform
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from library.config.explain import origin
from library.config.option import Option, Settings
from library.config.values import written_form
from library.formatting import every_nth

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "numpy", "bitsandbytes", "xformers")
MOST_PICTURES = 500
"""Training pictures that are written down; of a larger set they are taken evenly."""
SECRET = "(secret)"


def settings_event(settings: Settings, argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Every option: its value as in TOML, where it came from, what it is; no secret is part of it.

    {"event": "settings", "settings": {name: {"value", "origin", "path"?}}, "no_effect": [...], "notes": [...],
    "command", "versions", "started"}
    """
    event = {
        "event": "settings",
        "settings": {name: _setting(option, settings) for name, option in settings.options.items()},
        "no_effect": settings.effect_notes(),
        "notes": list(settings.warnings),
        "command": shlex.join(sys.argv if argv is None else argv),
        "versions": versions(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    secrets = [str(settings[name]) for name, option in settings.options.items() if option.secret and settings[name]]
    return without(secrets, event)


def _setting(option: Option, settings: Settings) -> dict[str, Any]:
    value = settings[option.name]
    shown = SECRET if option.secret and value else written_form(value)
    entry: dict[str, Any] = {"value": shown, "origin": origin(option.name, settings)}
    return entry | ({"path": True} if _is_path(value) else {})


def _is_path(value: Any) -> bool:
    return isinstance(value, Path) or (isinstance(value, list | tuple) and any(isinstance(v, Path) for v in value))


def without(secrets: Sequence[str], value: Any) -> Any:
    """The same with secrets blanked wherever in its texts they are, however deep these are nested."""
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, SECRET)
        return value
    if isinstance(value, Mapping):
        return {name: without(secrets, inner) for name, inner in value.items()}
    return [without(secrets, inner) for inner in value] if isinstance(value, list | tuple) else value


def versions() -> dict[str, str]:
    """Python, the system, and the packages that decide a result."""
    found = {"python": platform.python_version(), "system": platform.platform(terse=True)}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def images_event(pictures: Sequence[tuple[Path, str]]) -> dict[str, Any]:
    """The files that are trained on with their captions, at most `MOST_PICTURES` of them, evenly taken.

    {"event": "images", "count": of all, "pictures": [...], "captions": [...]}
    """
    known = list(dict(pictures).items())
    some = [known[i] for i in every_nth(len(known), MOST_PICTURES)]
    return {
        "event": "images",
        "count": len(known),
        "pictures": [str(path.resolve()) for path, _ in some],
        "captions": [caption for _, caption in some],
    }


Opening = Sequence[Mapping[str, Any]]
