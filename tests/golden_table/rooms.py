"""Which function compares which golden file, in the order of the table.

Each takes the content of its file and yields `Comparison`s; a file may have several.
"""

from collections.abc import Callable, Iterable
from typing import Any

from tests.golden_table import captions
from tests.golden_table.comparison import Comparison

COMPARED: tuple[tuple[str, Callable[[Any], Iterable[Comparison]]], ...] = (
    ("captions.json.gz", captions.wordings),
    ("captions.json.gz", captions.caption_files),
)
