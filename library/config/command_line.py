"""The command line as a list of written values.

`--name value`, `--name=value`, `--name a b c` for lists; flags also as `--name false`, `--name=false` and `--no-name`.
The beginning of one name stands for it, as in sd-scripts, with a note; any other unknown name is an error that
names the nearest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from library.config.option import COMMAND_LINE, Option, Origin, Written, names_elsewhere
from library.config.suggest import did_you_mean
from library.config.values import FALSE, TRUE
from library.errors import Problem

LONG_DASH = re.compile(r"-?[\u2010-\u2015\u2212]-?(?=[A-Za-z])")
"""What editors make of two hyphens."""
NEGATIVE_NUMBER = re.compile(r"-\.?\d")


def wants_help(argv: Sequence[str]) -> bool:
    return any(word in ("--help", "-h") for word in argv)


@dataclass
class CommandLine:
    """What was written, in order, with what is wrong and what is worth knowing about it."""

    written: list[Written] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_command_line(argv: Sequence[str], options: Mapping[str, Option], origin: Origin = COMMAND_LINE) -> CommandLine:
    """`options` holds the accepted names, old spellings too; `origin` is where the words are."""
    read = CommandLine()
    written, problems = read.written, read.problems
    words = list(argv)
    while words:
        word = words.pop(0)
        if LONG_DASH.match(word):
            right = f"--{LONG_DASH.sub('', word)}"
            problems.append(Problem(f"`{word}` {origin.phrase} begins with a dash that is no hyphen; write `{right}`."))
            take_values(words)
            continue
        if not is_name(word):
            problems.append(
                Problem(f"`{word}` {origin.phrase} belongs to no option; a value with spaces needs quotes.")
            )
            continue
        name, has_value, value = word.lstrip("-").partition("=")
        values = [value] if has_value else []
        option = options.get(name) or begun(name, options)
        if option is not None and name not in options:
            read.warnings.append(f"`--{name}` {origin.phrase} is read as `--{option.name}`.")
        if option is None and (positive := switched_off(name, options)) is not None:
            option = positive
            if has_value:
                problems.append(Problem(f"`--{name}` {origin.phrase} takes no value."))
            values = ["false"]
        elif option is None:
            take_values(words)
            problems.append(Problem(unknown(name, options, origin)))
            continue
        elif not has_value:
            values = take_own_values(option, words)
        if option.nargs == "*":
            written.append(Written(option, values, origin))
        elif values or option.is_flag:
            written.append(Written(option, values[0] if values else True, origin))
        else:
            problems.append(Problem(f"`--{name}` {origin.phrase} needs a value."))
    return read


def begun(name: str, options: Mapping[str, Option]) -> Option | None:
    """The option of which `name` is the beginning, if it is that of one only."""
    meant = {option.name: option for known, option in options.items() if known.startswith(name)}
    return next(iter(meant.values())) if len(meant) == 1 else None


def is_name(word: str) -> bool:
    return word.startswith("-") and word != "-" and not NEGATIVE_NUMBER.match(word)


def take_values(words: list[str]) -> list[str]:
    """Remove and return the words up to the next option."""
    count = next((i for i, word in enumerate(words) if is_name(word)), len(words))
    taken, words[:] = words[:count], words[count:]
    return taken


def take_own_values(option: Option, words: list[str]) -> list[str]:
    """The words that belong to this option: all of them for a list, true or false for a flag, one for others."""
    if option.nargs == "*":
        return take_values(words)
    if not words or is_name(words[0]):
        return []
    if option.is_flag and words[0].casefold() not in (*TRUE, *FALSE):
        return []
    return [words.pop(0)]


def switched_off(name: str, options: Mapping[str, Option]) -> Option | None:
    """The flag that `--no-name` switches off."""
    if not name.startswith(("no-", "no_")):
        return None
    option = options.get(name[3:])
    return option if option is not None and option.is_flag else None


def unknown(name: str, options: Mapping[str, Option], origin: Origin) -> str:
    guess = did_you_mean(name, options, names_elsewhere(options), mark="`--", end="; --help lists them all.")
    return f"`--{name}` {origin.phrase} is not an option{guess}"
