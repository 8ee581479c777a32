"""The known name that somebody may have meant."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path


def nearest(name: str, known: Iterable[str], known_as: Mapping[str, str] | None = None) -> str | None:
    """The known name closest to `name`, or None if nothing is close enough to be worth a guess.

    `known_as` maps names that other programs use to ours; it is asked before the spelling is compared.
    """
    if known_as and name in known_as:
        return known_as[name]
    import difflib  # only people who mistype wait for it

    by_shape = {_shape(candidate): candidate for candidate in known}
    begun = [shape for shape in by_shape if len(name) > 3 and shape.startswith(_shape(name))]
    if len(begun) == 1:
        return by_shape[begun[0]]
    matches = difflib.get_close_matches(_shape(name), by_shape, n=1, cutoff=0.75)
    return by_shape[matches[0]] if matches else None


def did_you_mean(
    name: str, known: Iterable[str], known_as: Mapping[str, str] | None = None, *, mark: str = "`", end: str = "."
) -> str:
    """The end of a sentence: `"; did you mean ...?"`, or `end` if nothing is near. `mark` comes before the name."""
    guess = nearest(name, known, known_as)
    return f"; did you mean {mark}{guess}`?" if guess else end


def missing(path: Path) -> str:
    """That a file or folder is not there, with the nearest name that is: as much of the path as exists is searched."""
    name, folder = path.name, path.absolute().parent
    while not os.path.isdir(folder) and folder != folder.parent:
        name, folder = folder.name, folder.parent
    try:
        guess = nearest(name, sorted(os.listdir(folder)))
    except OSError:
        guess = None
    return f"{path} does not exist" + (f"; did you mean `{folder / guess}`?" if guess else ".")


def _shape(name: str) -> str:
    """Spelling without what people mix up: capitals, dashes and underscores."""
    return name.casefold().replace("-", "_").strip("_")
