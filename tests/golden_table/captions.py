"""Captions: what is read from files and what is said in an epoch."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from library.adapters.metadata import tag_frequency
from library.config.dataset_keys import KEYS
from library.config.dataset_specs import SubsetSpec
from library.data.augmentation.caption_augmentation import Moment, worded
from library.data.images.captions import BadCaption, read_caption
from library.data.keys import key
from tests.golden_table.comparison import Comparison

DEFAULTS = {k.name: k.option.default for k in KEYS}
DRAWS = 400

NO_DIVIDER = "a divider (keep_tokens_separator) never stays in the text, also where nothing is shuffled"
EVERY_DIVIDER = "a third divider divides too, instead of staying in the last tag's text"
EVERY_LINE = "prefix and suffix go around every line of a caption, not before its first and after its last line"
EMPTY_FILE = "an empty caption file is an empty caption, with a warning, and no error"
BYTE_ORDER_MARK = "a byte order mark at the beginning of a caption file is not part of the caption"
BLANK_FIRST_LINE = "a caption file that begins with a blank line falls back to the class tokens, with a warning"


def subset_of(options: dict[str, Any]) -> SubsetSpec:
    """A subset with the options' defaults, and these."""
    values = {f.name: DEFAULTS.get(f.name) for f in dataclasses.fields(SubsetSpec)}
    return SubsetSpec(**{**values, "image_dir": Path(), "custom_attributes": {}, **options})


def wordings(data: dict[str, Any]) -> Iterator[Comparison]:
    certain = Comparison("captions without a random draw")
    for row in data["deterministic"]:
        if "repl" in row:
            continue
        moment = Moment(row.get("epoch", 1), row.get("step", 0), row.get("maxsteps"))
        ours = worded(row["caption"], subset_of(row["subset"]), moment, partial(key, 0, 1, "a"))
        divider = row["subset"].get("keep_tokens_separator")
        kept = bool(divider) and divider in row["out"]
        certain.add(row["caption"], ours, row["out"], NO_DIVIDER if kept else None)
    yield certain

    drawn = Comparison(f"what stays fixed and what varies in {DRAWS} draws")
    for row in data["random"]:
        if "repl" in row:
            continue
        subset, moment = subset_of(row["subset"]), Moment(1, row.get("step", 0))
        results = {worded(row["caption"], subset, moment, partial(key, n, 1, "a")) for n in range(DRAWS)}
        theirs, because = _facts(row, row.get("set_of_outputs")), None
        if row["subset"].get("caption_prefix") and "\n" in row["caption"]:
            because = EVERY_LINE
        elif "keep_tokens_separator" in row["subset"] and row["caption"].count("|||") > 2:
            because = EVERY_DIVIDER
        drawn.add(row["caption"], _facts(row, results), theirs, because)
    yield drawn


def caption_files(data: dict[str, Any]) -> Iterator[Comparison]:
    read = Comparison("caption files: caption and tag frequency")
    for row in data["caption_files"]:
        subset = subset_of(row["subset"])
        ours = _read(row["image"], row["files"], subset)
        theirs = "raises" if "raises" in row else [row["caption"][0], row["tag_frequency"]]
        because = None
        if row.get("raises") == "AssertionError":
            because = EMPTY_FILE
        elif any(text.startswith("\ufeff") for text in row["files"].values()):
            because = BYTE_ORDER_MARK
        elif subset.class_tokens and theirs[0] == "":
            because = BLANK_FIRST_LINE
        read.add(str(row["files"]), ours, theirs, because)
    yield read


def _facts(row: dict[str, Any], results: Any) -> dict[str, Any]:
    """What can be said of many draws: all results where they are few, else fixed tags, tags in any order, counts."""
    if "set_of_outputs" in row:
        return {"results": sorted(results)}
    facts = {name: row[name] for name in ("fixed_prefix", "fixed_suffix", "multisets", "token_counts")}
    if results is None:
        return facts
    split = [result.split(", ") if result else [] for result in results]
    first, last = len(row["fixed_prefix"]), len(row["fixed_suffix"])
    ours = {
        "fixed_prefix": _only({tuple(tags[:first]) for tags in split}),
        "fixed_suffix": _only({tuple(tags[len(tags) - last :]) for tags in split}),
        "multisets": sorted(map(list, {tuple(sorted(tags)) for tags in split})) if row["multisets"] else None,
        "token_counts": sorted(set(row["token_counts"]) & {len(tags) for tags in split}),
    }
    many = row["distinct_outputs_in_200_draws"]
    assert len(results) >= min(many, 24), row  # a permutation that is always the same would pass what is above
    return ours


def _only(found: set[tuple[str, ...]]) -> list[str] | None:
    return list(found.pop()) if len(found) == 1 else None


def _read(image: str, files: dict[str, str], subset: SubsetSpec) -> Any:
    extension = subset.caption_extension if subset.caption_extension.startswith(".") else f".{subset.caption_extension}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in files.items():
            bytes_meant = text.startswith("\\x")  # written as its bytes' names
            content = (
                text.encode("latin-1").decode("unicode_escape").encode("latin-1") if bytes_meant else text.encode()
            )
            (folder / file).write_bytes(content)
        try:
            found = read_caption(folder / image, extension, every_line=subset.enable_wildcard)
        except BadCaption:
            return "raises"
    caption = found or subset.class_tokens or ""
    return [caption, tag_frequency([caption])]
