"""Writing what a network tool has made: in one precision, with a header that is true of it, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from library.adapters.metadata import Metadata, with_hashes
from library.errors import UserError
from library.files import is_finite, write_tensors

PRECISIONS = {"float": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def write_network(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype, metadata: Metadata) -> None:
    """Write a network file in `dtype`, with the hashes of its content.

    alpha stays in float32: rounded, it would change the scale of a whole layer. Raises `UserError` where a value is not
    finite in `dtype`; nothing is written then.
    """
    cast = {key: _in(dtype, key, tensor) for key, tensor in tensors.items()}
    bad = [key for key, tensor in cast.items() if not is_finite(tensor)]
    if bad:
        name = str(dtype).removeprefix("torch.")
        raise UserError(
            f"`{path}` was not written: {len(bad)} of {len(cast)} tensors are not finite in {name}, the first is "
            f"{bad[0]}; give a wider `--save_precision`, or look for values that are not finite in what was read"
        )
    write_tensors(path, cast, with_hashes(cast, metadata))


def _in(dtype: torch.dtype, key: str, tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    return tensor.to(torch.float32 if key.endswith(".alpha") else dtype).contiguous()


def with_ranks(metadata: Metadata, ranks: Iterable[int], alphas: Iterable[float]) -> Metadata:
    """The header with `ss_network_dim` and `ss_network_alpha` of these layers: "Dynamic" where they differ."""
    return metadata | {"ss_network_dim": common(ranks), "ss_network_alpha": common(alphas)}


def common(numbers: Iterable[float]) -> str:
    """The number that all are, as text, or "Dynamic" as kohya's tools write it."""
    different = {number(value) for value in numbers}
    return different.pop() if len(different) == 1 else "Dynamic"


def number(value: float) -> str:
    """As headers have it: "8", "0.5"."""
    return f"{value:.6g}"


def with_network_args(metadata: Metadata, arguments: Mapping[str, str]) -> Metadata:
    """The header with these entries of `ss_network_args` replaced, where it has them."""
    try:
        written = json.loads(metadata.get("ss_network_args", "{}"))
    except ValueError:
        return metadata
    if not isinstance(written, dict) or written.keys().isdisjoint(arguments):
        return metadata
    replaced = {name: arguments.get(name, value) for name, value in written.items()}
    return metadata | {"ss_network_args": json.dumps(replaced)}


def without_stale_hashes(metadata: Metadata) -> Metadata:
    """The header without what was only true of the file that it came from."""
    stale = ("sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256")
    return {name: text for name, text in metadata.items() if name not in stale}


def with_comment(metadata: Metadata, comment: str) -> Metadata:
    """The header with a sentence before its training comment."""
    before = metadata.get("ss_training_comment", "")
    return metadata | {"ss_training_comment": f"{comment}; {before}" if before not in ("", "None") else comment}
