"""One file of a cache: its tensors, with a checksum over its name, their shapes and their bytes.

A file that another program or a failing disk has changed, that was cut off, overwritten with zeros, or copied from
another picture's name, is told from a sound one for about 40 microseconds per 128 kB.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from library.atomic import atomic

CHECKSUM = "crc32"


class BadEntry(ValueError):
    """This file is not what was written under its name; the text says why, without naming it."""


def write_entry(path: Path, tensors: Mapping[str, Tensor]) -> int:
    """Write the tensors, whole and flushed before they get their name; how many bytes. Raises UserError."""
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    content = save(whole, metadata={CHECKSUM: checksum(path.name, whole)})
    with atomic(path) as temporary:
        temporary.write_bytes(content)
    return len(content)


def read_entry(path: Path, shapes: Mapping[str, Sequence[int]] | None = None) -> dict[str, Tensor]:
    """The tensors of a file that is what was written under its name; with `shapes` these and no others.

    Raises BadEntry.
    """
    try:
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        recorded = json.loads(content[8 : 8 + length])["__metadata__"][CHECKSUM]
        tensors = load(content)
    except OSError as error:
        raise BadEntry(error.strerror or str(error)) from error
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadEntry("it is not a whole file of this cache") from error
    if recorded != checksum(path.name, tensors):
        raise BadEntry("its content is not what was written under its name")
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes is not None and found != {name: tuple(shape) for name, shape in shapes.items()}:
        raise BadEntry(f"it holds {found or 'nothing'}")
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise BadEntry("it holds NaN or infinite numbers")
    return tensors


def checksum(name: str, tensors: Mapping[str, Tensor]) -> str:
    """CRC-32 of a file's name and of each tensor's name, dtype, shape and bytes, as 8 hexadecimal digits."""
    value = zlib.crc32(name.encode())
    for key in sorted(tensors):
        tensor = tensors[key]
        value = zlib.crc32(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode(), value)
        value = zlib.crc32(tensor.detach().reshape(-1).view(torch.uint8).numpy().data, value)
    return f"{value:08x}"
