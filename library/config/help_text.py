"""What `--help` shows: the options by group, one line of meaning each."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable
from pathlib import Path

from library.config.option import Group, Option
from library.config.values import (
    bucket_step,
    count_or_none,
    file_name,
    key_value,
    one_or_more,
    path_or_name,
    period,
    prompts_or_file,
    resolution,
    steps_or_ratio,
    token_count,
    two_numbers,
)

NAME_WIDTH = 30
PLACEHOLDERS = {
    **{int: "N", float: "X", str: "TEXT", Path: "PATH"},
    **{path_or_name: "PATH", file_name: "NAME", key_value: "NAME=VALUE", resolution: "SIZE", two_numbers: "X,X"},
    **{period: "N", steps_or_ratio: "N", token_count: "N", bucket_step: "N", prompts_or_file: "FILE"},
    **{count_or_none: "N", one_or_more: "N"},
}


def help_text(groups: Iterable[Iterable[Option]], prog: str, description: str) -> str:
    width = min(110, max(60, shutil.get_terminal_size((100, 24)).columns))
    parts = [
        f"usage: {prog} --config_file FILE.toml [--option VALUE ...]",
        textwrap.fill(description, width),
        "Every option may be in the TOML file (without the dashes) or on the command line, which wins.\n"
        "A flag is switched off by --no-NAME or --NAME=false.",
    ]
    for group in groups:
        title = group.title if isinstance(group, Group) else "Options"
        parts.append("\n".join([title, *(option_text(option, width) for option in group)]))
    return "\n\n".join(parts)


def option_text(option: Option, width: int) -> str:
    head = f"  --{option.name}{value_text(option)}"
    meaning = textwrap.wrap(option.help + remarks(option), width - NAME_WIDTH - 2)
    indent = " " * (NAME_WIDTH + 2)
    if len(head) <= NAME_WIDTH:
        return "\n".join([head.ljust(NAME_WIDTH + 2) + meaning[0], *(indent + line for line in meaning[1:])])
    return "\n".join([head, *(indent + line for line in meaning)])


def value_text(option: Option) -> str:
    if option.is_flag:
        return ""
    word = PLACEHOLDERS.get(option.type, "VALUE")  # pyright: ignore[reportArgumentType]
    return f" {word} ..." if option.nargs == "*" else f" {word}"


def remarks(option: Option) -> str:
    """What is allowed, the default, and whether it does anything."""
    notes = []
    if option.choices:
        notes.append(f"one of {', '.join(map(str, option.choices))}")
    if option.default not in (None, "", False):
        notes.append(f"default {option.default}")
    if option.inert:
        notes.append(f"no effect: {option.inert}")
    return f" ({'; '.join(notes)})" if notes else ""
