"""Tables of measured figures, and their places in the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from library.errors import UserError
from library.files import write_text


def markdown(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)


def cell(arms: Sequence[Mapping[str, Any]], column: str, digits: int) -> str:
    """Mean ± standard deviation (n - 1) of a figure over arms; without the latter for one, empty for none."""
    values = [arm[column] for arm in arms if column in arm]
    if not values:
        return ""
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def write_between_marks(file: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- name -->` and `<!-- end of name -->` in a document.

    Raises `UserError` where the document has no such marks.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    document = file.read_text(encoding="utf-8")
    if begin not in document or end not in document:
        raise UserError(f"{file} has no place for this table: put {begin.strip()} and {end} where it is to be")
    before, rest = document.split(begin, 1)
    write_text(file, f"{before}{begin}\n{text.strip()}\n\n{end}{rest.split(end, 1)[1]}")
