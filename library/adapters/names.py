"""The one place between a network's names and its file's names.

In memory a network's modules are named by their path in the model ("lora_unet_down_blocks_1_attentions_0_proj_in").
Files carry the names that kohya's trainers gave them, because that is what every other program looks for:

- layers of a text encoder lie under `text_model`, which the modules of transformers 5 no longer do;
- the U-Net of SDXL has the names of its original layout (`input_blocks_4_1_...`), not diffusers'.

Only the part before the first dot is a name; what follows (`lora_down.weight`, `hada_w1_a`, `dora_scale`, `alpha`) is
the network module's and passes through untouched, as do names that the model does not have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from torch import nn

from library.errors import UserError
from library.models.original_names import inverted, unet_names

T = TypeVar("T")

_INSIDE = r"(?:embeddings|encoder|final_layer_norm)(?:_.*)?"  # what lies under `text_model`; a projection does not
_TEXT_ENCODER = re.compile(rf"^((?:[a-z0-9]+_)?te([12]?)_)(?:text_model_)?({_INSIDE})$")
_UNET = re.compile(r"^((?:[a-z0-9]+_)?unet_)(.*)$")


class NamedModel(Protocol):
    """What has to be known of a model to name its parts."""

    @property
    def unet(self) -> nn.Module: ...

    @property
    def text_encoders(self) -> Sequence[nn.Module]: ...


def to_file_names(tensors: Mapping[str, T], model: NamedModel) -> dict[str, T]:
    """The tensors of a network on `model`, under the names they have in a file; order is kept."""
    original = underscored(inverted(_original_unet_names(model)))

    def rename(module: str) -> str:
        if text := _TEXT_ENCODER.match(module):
            return f"{text[1]}text_model_{text[3]}"
        if unet := _UNET.match(module):
            return unet[1] + rename_start(unet[2], original)
        return module

    return _renamed(tensors, rename)


def from_file_names(tensors: Mapping[str, T], model: NamedModel) -> dict[str, T]:
    """The tensors of a file under the names that a network on `model` gives its modules.

    Names that are the model's own already stay, so a file that was written without `to_file_names` reads as well.
    """
    original = underscored(_original_unet_names(model))
    inner = ["text_model_" if _has_text_model(encoder) else "" for encoder in model.text_encoders]

    def rename(module: str) -> str:
        if text := _TEXT_ENCODER.match(module):
            number = int(text[2] or 1) - 1
            return f"{text[1]}{inner[number]}{text[3]}" if number < len(inner) else module
        if unet := _UNET.match(module):
            return unet[1] + rename_start(unet[2], original)
        return module

    return _renamed(tensors, rename)


def _original_unet_names(model: NamedModel) -> dict[str, str]:
    """{original: diffusers} for SDXL, whose files use the original names; nothing for SD1 and SD2."""
    if len(model.text_encoders) < 2 or not hasattr(model.unet, "down_blocks"):
        return {}
    return unet_names(model.unet.config)  # pyright: ignore[reportArgumentType]


def _has_text_model(encoder: nn.Module) -> bool:
    return any(name == "text_model" for name, _ in encoder.named_children())


def underscored(names: Mapping[str, str]) -> dict[str, str]:
    return {old.replace(".", "_"): new.replace(".", "_") for old, new in names.items()}


def rename_start(module: str, names: Mapping[str, str]) -> str:
    """Replace the longest leading part that the table knows; parts end at an underscore."""
    ends = [i for i, letter in enumerate(module) if letter == "_"]
    for end in [len(module), *reversed(ends)]:
        if module[:end] in names:
            return names[module[:end]] + module[end:]
    return module


def _renamed(tensors: Mapping[str, T], rename: Callable[[str], str]) -> dict[str, T]:
    modules = {module: rename(module) for module in _modules(tensors)}
    _refuse_collisions(modules)
    result = {}
    for key, tensor in tensors.items():
        module, dot, rest = key.partition(".")
        result[modules[module] + dot + rest] = tensor
    return result


def _modules(keys: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(key.partition(".")[0] for key in keys))


def _refuse_collisions(modules: Mapping[str, str]) -> None:
    seen: dict[str, str] = {}
    for old, new in modules.items():
        if new in seen:
            raise UserError(
                f"`{seen[new]}` and `{old}` are two names of one module (`{new}`): this file holds a network twice; "
                "keep one of them"
            )
        seen[new] = old
