"""Texts of people, read so far and no further: a file of 100 MB, nesting without end and numbers of thousands of digits
are one sentence, in the time that it takes to notice them.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

LONGEST = 2**20
"""Bytes of a config or a prompt file, read as TOML in a second or two; people have some hundred thousand."""
DEEPEST = 100
_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\\\n]*"|'[^'\n]*')\s*\.\s*"""
_TOO_MANY_PARTS = re.compile(rf"(?:^|[{{,\[])[ \t]*(?:{_PART}){{{DEEPEST}}}", re.MULTILINE)
_TOO_MANY_DIGITS = re.compile(r"\b0[xob][0-9A-Fa-f_]{300}")
"""Python limits the digits of decimal numbers only."""


class Unreadable(ValueError):
    """Why a text cannot be read, to be read after its name."""


def read_bytes(path: Path, longest: int = LONGEST) -> bytes:
    """The bytes of a file. Raises Unreadable where there are more than `longest`, OSError."""
    with path.open("rb") as file:
        content = file.read(longest + 1)
    if len(content) > longest:
        raise Unreadable(
            f"is longer than {longest / 2**20:g} MB, which no such text is; check that it is the right file"
        )
    return content


def parse_toml(text: str) -> dict[str, Any]:
    """Raises Unreadable beside TOMLDecodeError."""
    if _TOO_MANY_PARTS.search(text):  # they take the square of their number to read
        raise Unreadable(DEEP)
    if _TOO_MANY_DIGITS.search(text):
        raise Unreadable("has a number that cannot be read (more than 300 digits)")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except (RecursionError, ValueError) as error:
        raise Unreadable(_why(error)) from None


def parse_json(text: str | bytes) -> Any:
    """Raises Unreadable beside JSONDecodeError."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except (RecursionError, ValueError) as error:
        raise Unreadable(_why(error)) from None


DEEP = "has brackets or tables inside each other without end; check that it is the right file"


def shortened(text: str, longest: int = 200) -> str:
    """For a message: the beginning of what is too long to show."""
    return text if len(text) <= longest else f"{text[:longest]}..."


def _why(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return DEEP
    if isinstance(error, UnicodeDecodeError):
        return "is not UTF-8; save it as UTF-8"
    return f"has a number that cannot be read ({str(error).partition(';')[0]})"
