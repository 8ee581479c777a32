"""In which line each key of a TOML or JSON text is, which tomllib and json leave out.

The text has been parsed already, so this may be lenient: what it cannot place is placed at the table around it.
"""

from __future__ import annotations

import json
import re

Keys = tuple[str | int, ...]  # ("datasets", 0, "subsets", 2, "image_dir"): names of tables, places in lists

_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_NAME = rf"{_PART}(?:\s*\.\s*{_PART})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_NAME})\s*\]")
_ASSIGNMENT = re.compile(rf"\s*({_NAME})\s*=")
# What may open or close inside a value; a quote that stays open on its line is the start of a longer text.
_TOKEN = re.compile(
    r'''"""|\'\'\'|"(?:[^"\\]|\\.)*"|'[^']*'|\#.*|[\[\]{}]''',
)

_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],]')


def key_lines(text: str) -> dict[Keys, int]:
    """The line (from 1) of each table header and of each key, by its way from the top."""
    lines: dict[Keys, int] = {}
    lists: dict[Keys, int] = {}  # how many tables each [[list]] has so far
    table: Keys = ()
    state = _Inside()
    for number, line in enumerate(text.split("\n"), start=1):
        if state.is_statement():
            if header := _HEADER.match(line):
                table = _enter(_parts(header[2]), header[1] == "[[", lists)
                lines.setdefault(table, number)
                if header[1] == "[[":
                    lines.setdefault(table[:-1], number)  # the list itself begins with its first table
                continue
            if assignment := _ASSIGNMENT.match(line):
                lines.setdefault((*table, *_parts(assignment[1])), number)
        state.read(line)
    return lines


def json_key_lines(text: str) -> dict[Keys, int]:
    """The same for JSON: the line of each key, and of each object in a list."""
    lines: dict[Keys, int] = {}
    way: list[str | int | None] = []  # the way to here; None where an object's next key is still to come
    line, counted = 1, 0
    for token in _JSON_TOKEN.finditer(text):
        line, counted = line + text.count("\n", counted, token.start()), token.start()
        match token[0]:
            case "{" | "[":
                lines.setdefault(tuple(part for part in way if part is not None), line)
                way.append(None if token[0] == "{" else 0)
            case "}" | "]":
                way.pop()
            case ",":
                way[-1] = way[-1] + 1 if isinstance(way[-1], int) else None
            case key if way and way[-1] is None:
                way[-1] = json.loads(key)
                lines[tuple(part for part in way if part is not None)] = line
    return lines


class _Inside:
    """Whether a line begins inside a value that an earlier line has opened."""

    def __init__(self) -> None:
        self.quote: str | None = None  # the three quotes that close an open text
        self.depth = 0  # of brackets

    def is_statement(self) -> bool:
        return self.quote is None and self.depth == 0

    def read(self, line: str) -> None:
        place = 0
        while place < len(line):
            if self.quote:
                end = line.find(self.quote, place)
                if end < 0:
                    return
                place, self.quote = end + 3, None
                continue
            token = _TOKEN.search(line, place)
            if token is None:
                return
            place = token.end()
            match token[0]:
                case '"""' | "'''":
                    self.quote = token[0]
                case "[" | "{":
                    self.depth += 1
                case "]" | "}":
                    self.depth = max(0, self.depth - 1)


def _enter(parts: list[str], is_list: bool, lists: dict[Keys, int]) -> Keys:
    """The way to the table that a header opens; a list on the way means its last table so far."""
    table: Keys = ()
    for part in parts[:-1]:
        table = (*table, part)
        if table in lists:
            table = (*table, lists[table] - 1)
    table = (*table, parts[-1])
    if is_list:
        lists[table] = lists.get(table, 0) + 1
        return (*table, lists[table] - 1)
    return table


def _parts(name: str) -> list[str]:
    return [part.strip("\"'") for part in re.findall(_PART, name)]
