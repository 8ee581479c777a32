"""Files of textual-inversion embeddings, in the layouts that programs read and write.

| layout    | content                                                       | read by                           |
|-----------|---------------------------------------------------------------|-----------------------------------|
| kohya     | `emb_params` (n, width); SDXL: `clip_l` and `clip_g`          | sd-scripts, A1111, ComfyUI, Forge |
| diffusers | {token: (n, width)}, one file for each text encoder           | diffusers, and the others         |
| a1111     | {"string_to_param": {"*": (n, width)}, "name": ...}, a pickle | A1111 and everything after it     |
| split     | {token_v0: (width,), token_v1: (width,), ...}                 | research code                     |

A LoRA file may carry embeddings beside its own weights: `bundle_emb.<name>.clip_l`, `.clip_g` or
`.string_to_param.*`. All of these are read; what a layout cannot say is refused and never cut.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from library.errors import UserError
from library.files import is_finite, is_safetensors, read_nested, write_nested, write_tensors

ONLY = "emb_params"
"""The key of vectors for a model with one text encoder."""
PAIR = ("clip_l", "clip_g")
LAYOUTS = ("kohya", "diffusers", "a1111", "split")
BUNDLE = "bundle_emb."
_NUMBERED = re.compile(r"(?P<token>.+)_v(?P<index>\d+)")
_UNNAMED = (ONLY, "emp_params", "*")  # keys that are no token; one program misspells the first


@dataclass
class Embedding:
    """Vectors by encoder: {"emb_params": (n, width)}, or {"clip_l": ..., "clip_g": ...} for SDXL.

    `token` is the word that the file names for them, "" where it names none.
    """

    vectors: dict[str, Tensor]
    token: str = ""
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many vectors stand for the token in each text encoder."""
        return len(next(iter(self.vectors.values())))


def read_embedding(path: Path | str) -> Embedding:
    """The embedding of a file in any layout. Raises `UserError` where it holds none, or several."""
    path = Path(path)
    content, metadata = read_nested(path)
    bundled = _bundled(content)
    if len(bundled) > 1:
        raise UserError(f"`{path}` carries {len(bundled)} embeddings ({', '.join(bundled)}); unpack it and choose one")
    if bundled:
        token, vectors = next(iter(bundled.items()))
        return _checked(path, Embedding(vectors, token, metadata))
    return _checked(path, _single(path, content, metadata))


def read_bundle(path: Path | str) -> list[Embedding]:
    """The embeddings that a LoRA file carries."""
    content, metadata = read_nested(path)
    return [_checked(Path(path), Embedding(v, token, metadata)) for token, v in _bundled(content).items()]


def bundled_words(path: Path | str) -> list[str]:
    """The words whose vectors a network's file carries; of safetensors only the names are read."""
    path = Path(path)
    if not is_safetensors(path):
        return list(_bundled(read_nested(path)[0]))
    with safe_open(str(path), framework="pt") as file:
        return list(_bundled(dict.fromkeys(file.keys())))


def vectors_for(embedding: Embedding, widths: Mapping[str, int], path: Path | str) -> list[Tensor]:
    """The vectors for each text encoder, given as {name: width}; raises `UserError` if they are of another model."""
    found, names = embedding.vectors, list(widths)
    if len(names) == 1 and set(found) == {names[0]}:
        found = {ONLY: found[names[0]]}
    wanted = [ONLY] if len(names) == 1 else names
    shown = {name: tuple(tensor.shape) for name, tensor in embedding.vectors.items()}
    if set(found) != set(wanted):
        needs = " and ".join(f"{name} ({width} numbers)" for name, width in widths.items())
        raise UserError(f"`{path}` holds {shown}, but this model needs vectors for {needs}: it is of another model")
    for key, (name, width) in zip(wanted, widths.items(), strict=True):
        if found[key].shape[1] != width:
            raise UserError(
                f"`{path}` holds vectors of {found[key].shape[1]} numbers, but the text encoder {name} of this model "
                f"has {width}: it was made for another model"
            )
    return [found[key].float() for key in wanted]


def write_embedding(
    path: Path | str, embedding: Embedding, layout: str = "kohya", metadata: Mapping[str, str] | None = None
) -> list[Path]:
    """Write an embedding in one of `LAYOUTS`; returns the files (two for SDXL in diffusers' layout).

    Metadata is kept in `.safetensors` files only. Raises `UserError` where the layout has no word for it.
    """
    path, vectors = Path(path), embedding.vectors
    token = embedding.token or path.stem
    if layout == "kohya":
        write_tensors(path, vectors, metadata)
        return [path]
    if layout == "diffusers":
        names = [path] if len(vectors) == 1 else [path, path.with_name(f"{path.stem}_2{path.suffix}")]
        for name, tensor in zip(names, vectors.values(), strict=True):
            write_tensors(name, {token: tensor}, metadata)
        return names
    if len(vectors) > 1:
        raise UserError(f"the layout {layout} holds the vectors of one text encoder, not SDXL's two; use kohya")
    tensor = next(iter(vectors.values()))
    if layout == "a1111":
        if path.suffix == ".safetensors":
            raise UserError(f"`{path}`: the layout a1111 is written as .pt; .safetensors cannot nest")
        content = {"string_to_token": {"*": 265}, "string_to_param": {"*": tensor}, "name": token, "step": 0}
        write_nested(path, content | {"sd_checkpoint": None, "sd_checkpoint_name": None})
    elif layout == "split":
        write_tensors(path, {f"{token}_v{i}": row for i, row in enumerate(tensor)}, metadata)
    else:
        raise UserError(f"{layout!r} is not a layout of embeddings; they are {', '.join(LAYOUTS)}")
    return [path]


def bundle_keys(embedding: Embedding, name: str) -> dict[str, Tensor]:
    """The embedding as tensors beside a network's own, by the name that people will write in prompts."""
    name = usable_stem(name).replace(".", "_")
    if set(embedding.vectors) == {ONLY}:
        return {f"{BUNDLE}{name}.string_to_param.*": embedding.vectors[ONLY]}
    return {f"{BUNDLE}{name}.{encoder}": tensor for encoder, tensor in embedding.vectors.items()}


def usable_stem(name: str) -> str:
    """A file name that user interfaces can take for a word of a prompt: letters, digits, `_`, `-`, `.`."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("_") or "embedding"


def _bundled(content: Any) -> dict[str, dict[str, Tensor]]:
    """Name -> vectors of the embeddings in a LoRA file."""
    found: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in content.items() if isinstance(content, dict) else ():
        if isinstance(key, str) and key.startswith(BUNDLE):
            name, _, encoder = key.removeprefix(BUNDLE).partition(".")
            if encoder in PAIR:
                found[name][encoder] = tensor
            elif encoder in ("string_to_param.*", ONLY):
                found[name][ONLY] = tensor
    return dict(found)


def _single(path: Path, content: Any, metadata: dict[str, str]) -> Embedding:
    if isinstance(content, dict) and isinstance(content.get("string_to_param"), Mapping):
        tensors = list(content["string_to_param"].values())
        if len(tensors) != 1:
            raise UserError(f"`{path}` holds {len(tensors)} embeddings under string_to_param, not one")
        name = content.get("name")
        return Embedding({ONLY: tensors[0]}, name if isinstance(name, str) else "", metadata)
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if any(name in tensors for name in PAIR):
        return Embedding({name: tensors[name] for name in PAIR if name in tensors}, "", metadata)
    if len(tensors) == 1:
        name, tensor = next(iter(tensors.items()))
        split = _NUMBERED.fullmatch(name) if tensor.ndim == 1 else None
        token = split["token"] if split else "" if name in _UNNAMED else name
        return Embedding({ONLY: tensor}, token, metadata)
    if tensors and all(tensor.ndim == 1 for tensor in tensors.values()):
        return Embedding(*_grouped(path, tensors), metadata)
    names = ", ".join(list(tensors)[:3])
    raise UserError(
        f"`{path}` is not an embedding file" + (f": it holds {len(tensors)} tensors such as {names}" if tensors else "")
    )


def _grouped(path: Path, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Rows with numbered names, one below the other, and the name that they share."""
    matches = [_NUMBERED.fullmatch(name) for name in tensors]
    numbered = {int(m["index"]): tensors[m.string] for m in matches if m}
    tokens = {m["token"] for m in matches if m}
    if len(numbered) != len(tensors) or len(tokens) != 1 or sorted(numbered) != list(range(len(numbered))):
        raise UserError(
            f"`{path}` holds single vectors named {', '.join(tensors)}, which are not numbered NAME_v0, NAME_v1, ..."
        )
    rows = [_wide(numbered[i]) for i in range(len(numbered))]
    if len({len(row) for row in rows}) > 1:
        raise UserError(f"`{path}` mixes vectors of {' and '.join(str(len(row)) for row in rows)} numbers")
    return {ONLY: torch.stack(rows)}, tokens.pop()


def _checked(path: Path, embedding: Embedding) -> Embedding:
    """The embedding with vectors (n, width); a single one may be stored without its first dimension."""
    vectors = {name: _wide(tensor.detach()) for name, tensor in embedding.vectors.items()}
    vectors = {name: tensor.reshape(1, -1) if tensor.ndim == 1 else tensor for name, tensor in vectors.items()}
    for name, tensor in vectors.items():
        if tensor.ndim != 2 or not tensor.is_floating_point() or not len(tensor):
            raise UserError(f"`{path}`: {name} is of shape {tuple(tensor.shape)}, which is not a list of vectors")
        if not is_finite(tensor):
            raise UserError(f"`{path}`: {name} holds values that are not finite; it cannot be used")
    if len({len(tensor) for tensor in vectors.values()}) > 1:
        counts = ", ".join(f"{len(tensor)} for {name}" for name, tensor in vectors.items())
        raise UserError(f"`{path}` has different numbers of vectors: {counts}")
    return Embedding(vectors, embedding.token, embedding.metadata)


def _wide(tensor: Tensor) -> Tensor:
    """Numbers of eight bits as float16, which holds them exactly: no program can compute with vectors in eight bits."""
    return tensor.half() if tensor.is_floating_point() and tensor.element_size() == 1 else tensor


def embedding_of(names: Sequence[str], rows: Sequence[Tensor], token: str) -> Embedding:
    """An embedding for a model's text encoders: their names, and a tensor (n, width) for each."""
    if len(names) == 1:
        return Embedding({ONLY: rows[0]}, token)
    return Embedding(dict(zip(names, rows, strict=True)), token)
