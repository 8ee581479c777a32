"""Text embeddings, computed once for each caption.

An embedding is filed under everything it depends on: the caption, the text encoder's weights, clip_skip and
max_token_length. Captions that change from epoch to epoch are encoded as they come and kept while there is room.
"""

from __future__ import annotations

import json
import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from library.data.augmentation.caption_augmentation import framed, may_be_dropped, only_wording
from library.data.caches.cache_entry import BadEntry, read_entry, write_entry
from library.data.dataset import Dataset
from library.errors import UserError
from library.models.text import TextEmbeddings

EXTENSION = ".safetensors"
FORMAT = 2  # of the files; another one makes other names


class TextCache:
    """Embeddings in memory, and on disk if `folder` is given.

    `encode` turns captions into TextEmbeddings; `text_hash`, `clip_skip`, `max_token_length` and `weighted` say how.
    `shape`: (tokens, width) of an embedding, where it is known. `room`: how many bytes of embeddings are kept in
    memory; those longest unused are dropped first.
    """

    def __init__(
        self,
        encode: Callable[[Sequence[str]], TextEmbeddings] | None,
        *,
        text_hash: str = "",
        clip_skip: int | None = None,
        max_token_length: int | None = None,
        weighted: bool = False,
        folder: Path | None = None,
        room: int = 2 << 30,
        dtype: torch.dtype = torch.float32,
        shape: tuple[int, int] | None = None,
    ):
        self.shape = shape
        self.encode, self.folder, self.room, self.dtype = encode, folder, room, dtype
        self.setting = (text_hash, clip_skip, max_token_length, str(dtype), *(("weighted",) if weighted else ()))
        self.kept: OrderedDict[str, TextEmbeddings] = OrderedDict()  # each of one row
        self.bytes = 0
        self.on_disk: set[str] | None = None
        self.filling = False
        self.damaged = 0  # files that were not what had been written

    def embeddings(self, captions: Sequence[str]) -> TextEmbeddings:
        """The captions' embeddings as one float32 batch on the CPU. Encodes those that are not kept."""
        rows = {caption: self._find(caption) for caption in dict.fromkeys(captions)}
        missing = [caption for caption, row in rows.items() if row is None]
        if missing:
            rows |= self._encode(missing)
        joined = TextEmbeddings.join([row for row in (rows[caption] for caption in captions) if row is not None])
        return joined.to("cpu", torch.float32)

    def fill(self, captions: Iterable[str], *, batch_size: int = 8, progress: bool = True) -> int:
        """Encode what is not kept yet; how many that were.

        After this the text encoder may leave, if all captions that will come are among these: set `encode` to None.
        """
        room = self.room
        if self.folder is None:  # what is asked for now must not be dropped again
            self.room = sys.maxsize
        missing = [caption for caption in dict.fromkeys(captions) if self._find(caption) is None]
        steps = range(0, len(missing), batch_size)
        self.filling = True
        for start in tqdm(steps, desc="caching captions", unit="batch", disable=None if progress else True):
            self._encode(missing[start : start + batch_size])
        self.filling = False
        self.room = max(room, self.bytes)
        return len(missing)

    def _find(self, caption: str) -> TextEmbeddings | None:
        if caption in self.kept:
            self.kept.move_to_end(caption)
            return self.kept[caption]
        name = self._name(caption)
        if name not in self._names_on_disk() or self.folder is None:
            return None
        try:
            tensors = read_entry(self.folder / name)
            row = TextEmbeddings(tensors["hidden"], tensors.get("pooled"))
            if self.shape is not None and tuple(row.hidden.shape) != (1, *self.shape):
                raise BadEntry(f"it holds {tuple(row.hidden.shape)}")
        except (BadEntry, KeyError):
            self._names_on_disk().discard(name)  # it is encoded and written anew
            self.damaged += 1
            return None
        self._keep(caption, row)
        return row

    @torch.no_grad()
    def _encode(self, captions: list[str]) -> dict[str, TextEmbeddings]:
        if self.encode is None:
            raise RuntimeError(f"the caption {captions[0]!r} is not cached, and the text encoder is gone")
        batch = self.encode(captions).to("cpu", self.dtype)
        rows = {caption: _row(batch, i) for i, caption in enumerate(captions)}
        broken = [caption for caption, row in rows.items() if not _is_finite(row)]
        if broken:
            raise UserError(f"The text encoder makes NaN or infinite embeddings of the caption {broken[0]!r}.")
        for caption, row in rows.items():
            self._keep(caption, row)
            if self.filling:  # captions that are made anew in each epoch would fill the disk
                self._write(caption, row)
        return rows

    def _keep(self, caption: str, row: TextEmbeddings) -> None:
        self.kept[caption] = row
        self.bytes += _bytes(row)
        while self.bytes > self.room and len(self.kept) > 1:
            self.bytes -= _bytes(self.kept.popitem(last=False)[1])

    def _write(self, caption: str, row: TextEmbeddings) -> None:
        if self.folder is None:
            return
        tensors = {"hidden": row.hidden} | ({} if row.pooled is None else {"pooled": row.pooled})
        name = self._name(caption)
        try:
            write_entry(self.folder / name, tensors)
        except UserError as error:
            advice = "Use --cache_text_encoder_outputs without _to_disk to do without files."
            raise UserError(f"The cache of captions: {error}. {advice}") from error
        self._names_on_disk().add(name)

    def _name(self, caption: str) -> str:
        parts = json.dumps([FORMAT, caption, *self.setting]).encode()
        return f"text-{blake2b(parts, digest_size=16).hexdigest()}{EXTENSION}"

    def _names_on_disk(self) -> set[str]:
        if self.on_disk is None:
            self.on_disk = set()
            if self.folder is not None:
                try:
                    self.folder.mkdir(parents=True, exist_ok=True)
                    self.on_disk = set(os.listdir(self.folder))
                except OSError as error:
                    raise UserError(f"The cache of captions cannot use '{self.folder}': {error}.") from error
        return self.on_disk


def captions_to_come(dataset: Dataset) -> list[str] | None:
    """Every caption that a run will ask for, the empty one included where captions are dropped.

    None if some are made anew in each epoch: then they are encoded as they come.
    """
    captions = [only_wording(picture.caption, picture.subset) for picture in dataset.all_pictures]
    known = [caption for caption in captions if caption is not None]
    if len(known) < len(captions):
        return None
    dropped = [""] if any(may_be_dropped(subset) for spec in dataset.plan for subset in spec.subsets) else []
    return list(dict.fromkeys(known + dropped))


def captions_in_full(dataset: Dataset) -> list[str]:
    """Every caption with all its lines and tags, before anything is drawn: what may be too long for the model."""
    pictures = dataset.all_pictures
    texts = (framed(line, picture.subset) for picture in pictures for line in picture.caption.split("\n"))
    return list(dict.fromkeys(texts))


def _row(batch: TextEmbeddings, i: int) -> TextEmbeddings:
    one = batch[slice(i, i + 1)]
    return TextEmbeddings(_owned(one.hidden), None if one.pooled is None else _owned(one.pooled))


def _owned(row: Tensor) -> Tensor:
    """A copy, so that one row does not keep the whole batch alive."""
    return row.contiguous().clone()


def _is_finite(row: TextEmbeddings) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in (row.hidden, row.pooled) if tensor is not None)


def _bytes(row: TextEmbeddings) -> int:
    return sum(tensor.nbytes for tensor in (row.hidden, row.pooled) if tensor is not None)
