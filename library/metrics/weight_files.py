"""By what exactly a figure was measured: the files of a network's weights and their hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from library.errors import UserError
from library.files import file_hash
from library.path_safety import path_inside


def weight_files(source: Path) -> list[Path]:
    """The file itself, or those of a model's folder: safetensors before pickles, one file before its parts.

    Raises UserError where a folder has none.
    """
    if source.is_file():
        return [source]
    for whole in ("model.safetensors", "pytorch_model.bin"):
        if (source / whole).is_file():
            return [source / whole]
        index = source / f"{whole}.index.json"
        if index.is_file():
            return [_part(source, name, index) for name in sorted(_names_in(index))]
    raise UserError(f"'{source}' has no weights (model.safetensors or pytorch_model.bin); download the whole folder")


def _names_in(index: Path) -> set[str]:
    try:
        return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"'{index}' is no list of weight files; download the whole folder again") from error


def _part(folder: Path, name: str, index: Path) -> Path:
    path = path_inside(folder, name)
    if path is None:
        raise UserError(f"'{index}' names '{name}', which is no file of its folder; download the whole folder again")
    return path


def hash_of(files: Sequence[Path]) -> str:
    """sha256 of a file; of several, that of their hashes."""
    hashes = [file_hash(path) for path in files]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def model_name(source: Path) -> str:
    """What people call it: its file or folder, or its repository where the Hugging Face cache holds it."""
    for folder in source.parents:
        if folder.name == "snapshots" and folder.parent.name.startswith("models--"):
            return folder.parent.name.removeprefix("models--").replace("--", "/")
    return source.name


def weight_facts(source: Path) -> dict[str, str]:
    """Name, path and sha256, as the JSON holds them."""
    return {"name": model_name(source), "path": str(source), "sha256": hash_of(weight_files(source))}
