"""Formatting for people: durations, sizes, numbers, tables, texts from outside made printable, and which of many are
shown where only so many may be."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

# What HTML and UTF-8 cannot hold, what a terminal obeys, or what deceives an eye: control characters, halves of
# surrogate pairs (a file's name that is not UTF-8 has them), and the marks that turn the direction of what follows.
_INVISIBLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def duration(seconds: float) -> str:
    """2 h 5 min, 3 min 20 s, 4.2 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def file_size(count: int) -> str:
    """197 kB, 1.4 MB, 6.9 GB (powers of 1000, as disks are sold)."""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if size >= 10 or unit == "bytes" else f"{size:.1f} {unit}"


def number(value: float | int | None, digits: int = 4) -> str:
    """A figure for people: `digits` significant ones, whole numbers with thousands, "–" where there is none."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.{digits}g}"


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells as columns, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def every_nth(count: int, most: int) -> list[int]:
    """At most `most` of the numbers below `count`: each n-th from the first on, all of them where they are few."""
    return list(range(0, count, -(-count // most))) if count else []


def from_end_to_end(count: int, most: int) -> list[int]:
    """At most `most` of the numbers below `count`, the first and the last among them."""
    most = min(count, most)
    if most < 2:
        return [0][:most]
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def visible(text: str) -> str:
    """`text` with what cannot be seen or written spelled out: a NUL becomes \\x00, a right-to-left override \\u202e."""
    return _INVISIBLE.sub(lambda found: _spelled(ord(found[0])), text.replace("\r\n", "\n"))


def json_text(data: Any, indent: int | None = None) -> str:
    """JSON in UTF-8's own letters, with what cannot be seen or written as JSON's escapes: read, it is what it was."""
    text = json.dumps(data, ensure_ascii=False, indent=indent)
    return _INVISIBLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _spelled(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
