"""The base model that stays loaded between jobs, and what keeps one job from another.

A run gets the model's modules as copies that share the weights: hooks, replaced `forward`s, attention, checkpointing
and new tokens go with the copy. What shares cannot be copied away, the weights themselves, is compared by a checksum.
"""

from __future__ import annotations

import copy
import dataclasses
import gc
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from library.config.option import Settings
from library.models.family import StableDiffusion
from library.training.setup.base_model import BaseModelSpec, load_base_model, report_contradictions


class ResidentModel:
    """Loads the base model once for jobs that ask for the same; `loads` counts how often."""

    def __init__(self) -> None:
        self.loads = 0
        self._key: Any = None
        self._model: StableDiffusion | None = None
        self._sums: list[int] = []

    def load(self, settings: Settings, device: torch.device) -> StableDiffusion:
        """As `load_base_model`, from memory where it is there."""
        asked = settings.take(BaseModelSpec)
        key: list[Any] = [asked, [settings.explicit(field.name) for field in dataclasses.fields(BaseModelSpec)]]
        key += [_mark(asked.pretrained_model_name_or_path), _mark(asked.vae), str(device)]
        if self._model is None or key != self._key:
            self.drop()
            self._model = load_base_model(settings, device)
            self._sums, self._key = checksums(self._model), key
            self.loads += 1
            gc.collect()
            gc.freeze()  # what is here stays: looking for garbage after each job need not go through it
        else:
            report_contradictions(settings, self._model)
        return shared_copy(self._model)

    def check(self) -> str | None:
        """Let go of the model if its weights are not those that were loaded; a sentence if they are not."""
        if self._model is None:
            return None
        for module in self._model.modules.values():
            module.requires_grad_(False).eval()
            for parameter in module.parameters():
                parameter.grad = None
        if checksums(self._model) == self._sums:
            return None
        self.drop()
        return "the job has changed the base model's weights: the model is loaded anew for the next one"

    def drop(self) -> None:
        self._model = self._key = None
        gc.unfreeze()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def shared_copy(model: StableDiffusion) -> StableDiffusion:
    """The model with modules and tokenizers of its own, whose parameters and buffers are the model's own tensors."""
    memo = {id(tensor): tensor for module in model.modules.values() for tensor in _tensors(module)}
    fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
    own = {name: copy.deepcopy(value, memo) for name, value in fields.items() if name not in ("family", "source")}
    return dataclasses.replace(model, **own)


def checksums(model: StableDiffusion) -> list[int]:
    """A number for each tensor: the sum of its bytes in words of eight, which any changed weight changes."""
    sums = [_sum(tensor) for module in model.modules.values() for tensor in module.parameters()]
    return torch.stack([part.cpu() for part in sums]).tolist() if sums else []


def _sum(tensor: Tensor) -> Tensor:
    flat = tensor.detach().reshape(-1).view(torch.uint8)
    whole = flat.numel() // 8 * 8
    words = flat[:whole]
    if words.storage_offset() % 8:
        words = words.clone()
    return words.view(torch.int64).sum() + flat[whole:].sum(dtype=torch.int64)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _mark(path: str | None) -> Any:
    """What changes when a file or a folder of weights is replaced."""
    if path is None or not Path(path).exists():
        return None
    files = [Path(path)] if Path(path).is_file() else sorted(Path(path).rglob("*"))
    return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
