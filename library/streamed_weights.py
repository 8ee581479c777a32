"""A large file of weights, piece by piece: it is converted without ever lying in memory as a whole beside its copy.

Pages of a mapped file count as memory of the process for as long as the mapping lives, so each piece has its own.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_bytes
from torch import Tensor

from library.atomic import atomic
from library.files import Tensors, damaged, is_safetensors, read_pickle

PIECE = 2**28  # bytes
TYPE_NAMES = {
    **{torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"},
    **{torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.bool: "BOOL", torch.uint8: "U8"},
    **{torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8"},
}


@dataclass
class WeightsFile:
    """A weights file of which only names, shapes and metadata have been read.

    `outline` holds the tensors on the meta device: shapes and types without values. A name that is taken out of it is
    never read.
    """

    path: Path
    outline: Tensors
    metadata: dict[str, str]
    _whole: Tensors | None = field(default=None, repr=False)  # of an old format, which can be read in no other way

    def pieces(self, *, mapped: bool = True, size: int = PIECE) -> Iterator[Tensors]:
        """All tensors once, about `size` bytes at a time, in the order in which they lie in the file.

        Mapped tensors are valid until the next piece is asked for: copy them. `mapped` False reads the bytes instead.
        An old format is given away while it is read, so this works once for it.
        """
        for names in _groups(self.outline, size):
            if self._whole is not None:
                yield {name: self._whole.pop(name) for name in names}
            elif mapped:
                with safe_open(str(self.path), framework="pt", device="cpu") as file:
                    piece = {name: file.get_tensor(name) for name in names}
                yield piece
                piece.clear()
            else:
                yield _read(self.path, names)

    def reader(self) -> Callable[[str], Tensor]:
        """A function that reads one tensor, in any order, copied into memory."""
        if self._whole is not None:
            return self._whole.__getitem__
        file, held = None, 0

        def read(name: str) -> Tensor:
            nonlocal file, held
            if file is None or held >= PIECE:
                file, held = safe_open(str(self.path), framework="pt", device="cpu"), 0
            tensor = file.get_tensor(name).clone()
            held += tensor.nbytes
            return tensor

        return read


def open_weights(path: Path) -> WeightsFile:
    """Look into a weights file. Raises `UserError` where it is missing, damaged, or a pickle of more than tensors."""
    if not is_safetensors(path):
        whole = read_pickle(path)
        outline = {name: tensor.to("meta") for name, tensor in whole.items()}
        return WeightsFile(path, outline, {}, whole)
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            outline = {name: file.get_tensor(name).to("meta") for name in file.offset_keys()}
            return WeightsFile(path, outline, dict(file.metadata() or {}))
    except SafetensorError as error:
        raise damaged(path) from error


@contextlib.contextmanager
def written_in_order(
    path: Path, outline: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> Iterator[Callable[[str, Tensor], None]]:
    """A safetensors file that is given its tensors one by one, in the order of `outline`; it is there when all are in.

    `outline` has their shapes and types (on the meta device); order it with `aligned`, so that every reader can map it.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, tensor in outline.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": TYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    waiting = list(outline)[::-1]
    with atomic(path) as temporary:
        with open(temporary, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)

            def write(name: str, tensor: Tensor) -> None:
                wanted = outline[name]
                if name != waiting.pop() or (tensor.shape, tensor.dtype) != (wanted.shape, wanted.dtype):
                    raise ValueError(f"{name} {tuple(tensor.shape)} {tensor.dtype} is not what the header says")
                file.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)

            yield write
        if waiting:
            raise ValueError(f"{len(waiting)} tensors were not written, the next is {waiting[-1]}")


def aligned(outline: Mapping[str, Tensor]) -> Tensors:
    """The same, wide types first: then each tensor begins at a multiple of its type's size, as readers need it."""
    return dict(sorted(outline.items(), key=lambda item: -item[1].element_size()))


def _groups(outline: Tensors, size: int) -> Iterator[list[str]]:
    """Names in their order, cut where a group reaches `size` bytes."""
    group: list[str] = []
    held = 0
    for name, tensor in outline.items():
        group.append(name)
        held += tensor.nbytes
        if held >= size:
            yield group
            group, held = [], 0
    if group:
        yield group


def _read(path: Path, names: list[str]) -> Tensors:
    """Some neighbouring tensors of a safetensors file, by plain reading: a small file of the same format in memory."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(length))
        entries = {name: header[name] for name in names}
        first = min(entry["data_offsets"][0] for entry in entries.values())
        last = max(entry["data_offsets"][1] for entry in entries.values())
        for entry in entries.values():
            entry["data_offsets"] = [offset - first for offset in entry["data_offsets"]]
        file.seek(8 + length + first)
        content = file.read(last - first)
    small = json.dumps(entries).encode()
    small += b" " * (-len(small) % 8)
    return load_bytes(len(small).to_bytes(8, "little") + small + content)
