"""Where the layers of a network lie in a model's files, in either layout, by the names that network files use.

A place is a tensor of a file, or some rows of it: open_clip keeps query, key and value in one matrix.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from library.adapters.peft_names import kohya_name
from library.errors import UserError
from library.models.family import Family
from library.models.load import packed_configs
from library.models.original_names import Names, inverted, open_clip_names, rename, unet_names
from library.models.recognise import family_of_folder, recognise_file
from library.models.single_file import SD1_TEXT, SD1_TEXT_SHORT, SD2_TEXT, SDXL_TEXT_1, SDXL_TEXT_2, UNET
from library.models.standard import standard_configs

Config = Mapping[str, Any]
MOST_LAYERS = 64  # of an open_clip encoder that anything here could be


@dataclass(frozen=True)
class Place:
    """A weight: the tensor `key` of `file`, or `rows` of it; `shape` is (out, in[, height, width])."""

    file: Path
    key: str
    shape: tuple[int, ...]
    rows: tuple[int, int] | None = None

    def of(self, tensor: Tensor) -> Tensor:
        """This place's part of the tensor: a view."""
        return tensor if self.rows is None else tensor[self.rows[0] : self.rows[1]]


@dataclass(frozen=True)
class Checkpoint:
    """A model's files that networks change, with what of each weight is where. Names are those of network files."""

    family: Family
    places: dict[str, Place]

    def place(self, layer: str) -> Place | None:
        """The place of a layer, also where a file has diffusers' names with dots or PEFT's prefix."""
        return self.places.get(layer) or self.places.get(kohya_name(layer, is_sdxl=self.family is Family.SDXL))


@dataclass(frozen=True)
class _Names:
    """What network files call the modules of a model."""

    family: Family
    unet: Names  # original: diffusers
    original: Names  # diffusers: original
    open_clip: Names  # open_clip: CLIP of transformers

    @classmethod
    def of(cls, family: Family, config: Config) -> _Names:
        names = unet_names(config)
        return cls(family, names, inverted(names), open_clip_names(MOST_LAYERS))

    def layers(self, part: str, module: str) -> Iterator[str]:
        """The names of a module of diffusers' layout; one of SDXL's U-Net has two, the original one first."""
        if part != "unet":
            yield self.text_layer(part, module.removeprefix("text_model."))
            return
        if self.family is Family.SDXL:
            yield _underscored("lora_unet_", rename(module, self.original))
        yield _underscored("lora_unet_", module)

    def text_layer(self, part: str, module: str) -> str:
        number = "" if self.family is not Family.SDXL else "2" if part == "text_encoder_2" else "1"
        return _underscored(f"lora_te{number}_text_model_", module)


def places_in_file(path: Path, outline: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Checkpoint:
    """A single file in the original layout. Raises `UserError` where it is no model."""
    family = recognise_file(outline, metadata, path, only_plain=False).family
    configs = packed_configs(metadata, path) or standard_configs(family)
    names = _Names.of(family, configs["unet"])
    places: dict[str, Place] = {}
    for key, tensor in outline.items():
        for layer, rows in _layers_of_key(key, tensor, names):
            shape = tuple(tensor.shape) if rows is None else (rows[1] - rows[0], *tensor.shape[1:])
            places[layer] = Place(path, key, shape, rows)
    return Checkpoint(family, places)


def places_in_folder(path: Path, outlines: Mapping[Path, Mapping[str, Tensor]]) -> Checkpoint:
    """A diffusers folder: `outlines` are those of the weights files of its U-Net and text encoders."""
    configs = {part: _config(path / part) for part in ("unet", "text_encoder")}
    family = family_of_folder(configs["unet"], configs["text_encoder"], (path / "text_encoder_2").is_dir())
    names = _Names.of(family, configs["unet"])
    places: dict[str, Place] = {}
    for file, outline in outlines.items():
        for key, tensor in outline.items():
            module, _, kind = key.rpartition(".")
            if kind == "weight" and tensor.ndim in (2, 4):
                for layer in names.layers(file.parent.name, module):
                    places[layer] = Place(file, key, tuple(tensor.shape))
    return Checkpoint(family, places)


def _layers_of_key(key: str, tensor: Tensor, names: _Names) -> Iterator[tuple[str, tuple[int, int] | None]]:
    """The layers in one tensor of a single file, each with its rows (None: all)."""
    module, _, kind = key.rpartition(".")
    if tensor.ndim not in (2, 4) or kind not in ("weight", "in_proj_weight"):
        return
    if module.startswith(UNET):
        for layer in names.layers("unet", rename(module.removeprefix(UNET), names.unet)):
            yield layer, None
    for prefix, part in _text_prefixes(names.family):
        if not module.startswith(prefix):
            continue
        inner = module.removeprefix(prefix)
        if kind == "weight":
            known = names.open_clip if prefix in (SD2_TEXT, SDXL_TEXT_2) else {}
            yield names.text_layer(part, rename(inner, known)), None
        else:
            third = tensor.shape[0] // 3
            layer = inner.replace("transformer.resblocks.", "encoder.layers.").removesuffix(".attn")
            for i, projected in enumerate("qkv"):
                name = names.text_layer(part, f"{layer}.self_attn.{projected}_proj")
                yield name, (i * third, (i + 1) * third)
        return


def _text_prefixes(family: Family) -> tuple[tuple[str, str], ...]:
    """What a single file's text encoders begin with, the longer of two ways first, and the part that each is."""
    return {
        Family.SD1: ((SD1_TEXT, "text_encoder"), (SD1_TEXT_SHORT, "text_encoder")),
        Family.SD2: ((SD2_TEXT, "text_encoder"),),
        Family.SDXL: ((SDXL_TEXT_1, "text_encoder"), (SDXL_TEXT_2, "text_encoder_2")),
    }[family]


def _underscored(prefix: str, module: str) -> str:
    return prefix + module.replace(".", "_")


def _config(folder: Path) -> Config:
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"`{folder}` has no readable config.json ({error}); give a whole diffusers folder") from error
