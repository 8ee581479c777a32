"""Reading TOML and JSON so that every value knows its line, and writing TOML."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.bounded_text import Unreadable, parse_json, parse_toml, read_bytes, shortened
from library.config.option import Origin
from library.config.suggest import missing
from library.config.toml_lines import Keys, json_key_lines, key_lines
from library.config.values import BACKSLASH_ADVICE
from library.errors import ConfigError

# How tomllib's messages begin where a Windows path stands in double quotes.
BACKSLASH_MISTAKES = ("Unescaped", "Invalid hex", "Escaped character", "Unterminated", "Illegal character")


@dataclass(frozen=True)
class ConfigFile:
    """The tables of a file, and the line of each key."""

    path: Path
    tables: dict[str, Any]
    lines: Mapping[Keys, int]

    def origin(self, *keys: str | int) -> Origin:
        """Where the key is; inside an inline table, where that table is."""
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return Origin("file", self.path, self.lines.get(keys))


def read_toml(path: Path) -> ConfigFile:
    """Read a TOML file. Raises ConfigError if it is not there, not UTF-8, or not TOML."""
    content = read_text(path)
    try:
        tables = parse_toml(content)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_explain(path, content, str(error))) from None
    except Unreadable as error:
        raise ConfigError(f"{path.name} {error}.") from None
    return ConfigFile(path, tables, key_lines(content))


def read_json(path: Path) -> ConfigFile:
    """Read a JSON file whose top level is an object. Raises ConfigError as `read_toml` does."""
    content = read_text(path)
    try:
        tables = parse_json(content)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path.name} line {error.lineno} is not valid JSON: {error.msg}.") from None
    except Unreadable as error:
        raise ConfigError(f"{path.name} {error}.") from None
    if not isinstance(tables, dict):
        raise ConfigError(f"{path.name} holds {type(tables).__name__} at its top level; an object is needed.")
    return ConfigFile(path, tables, json_key_lines(content))


def write_toml(path: Path, values: Mapping[str, Any], title: str) -> None:
    """Write values with a first line of comment; never over a file that exists. Raises FileExistsError."""
    content = f"# {title}\n{toml_text(values)}"
    with path.open("x", encoding="utf-8", newline="\n") as file:
        file.write(content)


def toml_text(values: Mapping[str, Any]) -> str:
    """Values as TOML."""
    import toml  # only those who write a config wait for it

    encoder = toml.TomlEncoder()
    encoder.dump_funcs[str] = _quoted  # the encoder's own breaks on C:\\xfiles and on control characters
    return toml.dumps(dict(values), encoder)


def _quoted(text: str) -> str:
    """A text in double quotes: JSON's escapes are TOML's, but for one character that TOML does not allow unescaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def read_text(path: Path) -> str:
    """The text of a file, in lines as Unix ends them. Raises ConfigError."""
    try:
        content = read_bytes(path)
    except Unreadable as error:
        raise ConfigError(f"{path.name} {error}.") from None
    except FileNotFoundError:
        raise ConfigError(missing(path)) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path.name} line {line} is not UTF-8; save the file as UTF-8 in your editor.") from None


def _explain(path: Path, content: str, message: str) -> str:
    """What is wrong, with its line: tomllib says "... (at line 3, column 21)" or "... (at end of document)"."""
    found = re.search(r"\s*\(at line (\d+), column \d+\)", message)
    if found is None:
        return f"{path.name} ends before a text or a list in it is closed: {message}."
    number, what = int(found[1]), message[: found.start()]
    line = shortened(content.split("\n")[number - 1].strip())
    if what.startswith(BACKSLASH_MISTAKES) and re.search(r'"[^"]*\\', line):
        return f"{path.name} line {number}: a backslash in double quotes has a meaning of its own; {BACKSLASH_ADVICE}."
    return f"{path.name} line {number} is not valid TOML ({what}): {line}"
