"""Lists of names, and the columns of tokens that they make.

The default lists hold common given names and common surnames of mixed origins, each one token of CLIP's vocabulary. The
mean over them sees only the rows of these tokens, so no list of persons is needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

MOST_TOKENS = 75
DATA = Path(__file__).with_name("data")
DEFAULT_LISTS = (DATA / "given_names.txt", DATA / "surnames.txt")

Columns = list[list[int]]
Tokenize = Callable[[str], list[int]]


def read_names(path: Path | str) -> list[str]:
    """The lines of a UTF-8 file, without blank ones. Raises ValueError where it cannot be read or holds nothing."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ValueError(f"the file of names {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the names {path} cannot be read as UTF-8 text: {error}") from error
    names = [line.strip() for line in text.replace("\r", "\n").split("\n") if line.strip()]
    if not names:
        raise ValueError(f"the names {path} hold no line")
    return names


def columns_of_names(names: Sequence[str], tokenize: Tokenize, count: int, exact: bool = False) -> Columns:
    """Column i holds the i-th token of every name that has one, up to `count` columns; duplicates stay.

    `exact`: only names of exactly `count` tokens. A column may be empty.
    """
    tokens = [tokenize(name)[:MOST_TOKENS] for name in names]
    if exact:
        tokens = [ids for ids in tokens if len(ids) == count]
    return [[ids[i] for ids in tokens if len(ids) > i] for i in range(count)]


def columns_of_lists(lists: Sequence[Sequence[str]], tokenize: Tokenize) -> Columns:
    """One column for each list: its words of exactly one token."""
    return [[ids[0] for ids in map(tokenize, words) if len(ids) == 1] for words in lists]


def filled(columns: Columns, count: int, cycle: bool) -> Columns:
    """`count` columns. Those that are missing or empty begin again from the first, or raise ValueError."""
    full = next((i for i, column in enumerate(columns) if not column), len(columns))
    if full == 0:
        raise ValueError("no name is left: none of them has tokens for the first vector")
    if full >= count:
        return columns[:count]
    if not cycle:
        raise ValueError(
            f"no name has a token for vector {full + 1} of {count}: use fewer num_vectors_per_token, "
            "or initializer_args fill=cycle to begin again from the first"
        )
    return [columns[i % full] for i in range(count)]


def sha256_of(lists: Sequence[Sequence[str]]) -> str:
    """A digest of the lists: it tells two lists apart without telling what is in them."""
    return hashlib.sha256("\n\n".join("\n".join(names) for names in lists).encode()).hexdigest()
