"""What `--explain` shows: every value with where it came from, and what has no effect."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from library.config.option import Group, Option, Settings
from library.config.values import written_form
from library.errors import Problem


def explanation(settings: Settings, groups: Iterable[Iterable[Option]], problems: Sequence[Problem]) -> str:
    """`problems` are those that would stop a run: what does not go together, and files that are not there."""
    parts = [group_text(group, settings) for group in groups]
    for title, lines in (
        ("Has no effect", settings.effect_notes()),
        ("Worth knowing", settings.warnings),
        ("Would stop a run", [str(problem) for problem in problems]),
    ):
        if lines:
            parts.append("\n".join([title, *(f"  - {line}" for line in dict.fromkeys(lines))]))
    return "\n\n".join(parts)


def group_text(group: Iterable[Option], settings: Settings) -> str:
    title = group.title if isinstance(group, Group) else "Options"
    rows = [(option.name, shown(option, settings[option.name]), origin(option.name, settings)) for option in group]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    widths[1] = min(widths[1], 40)
    lines = [f"  {name:<{widths[0]}}  {value:<{widths[1]}}  {where}" for name, value, where in rows]
    return "\n".join([title, *lines])


def shown(option: Option, value: Any) -> str:
    """A value as it is in TOML; "-" where nothing is set."""
    if value is None:
        return "-"
    return "(secret)" if option.secret else json.dumps(written_form(value), ensure_ascii=False)


def origin(name: str, settings: Settings) -> str:
    where = settings.origins[name]
    if where.kind == "implied":
        by = [other for other, option in settings.options.items() if (name, settings[name]) in option.implies]
        return "derived from " + " and ".join(other for other in by if settings[other])
    return "default" if where.kind == "default" else where.phrase.removeprefix("in ")
