"""Writing a whole model: as a diffusers folder, or as one file in the original layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from library.files import write_json, write_tensors, write_text
from library.models.family import PREDICTION_NAMES, Family, StableDiffusion
from library.models.folder import quiet_transformers
from library.models.single_file import to_original
from library.models.tokenizers import packed_vocabulary

_PIPELINES = {
    Family.SD1: "StableDiffusionPipeline",
    Family.SD2: "StableDiffusionPipeline",
    Family.SDXL: "StableDiffusionXLPipeline",
}


def save_folder(model: StableDiffusion, folder: Path) -> None:
    """Write diffusers' layout, loadable by `load_model` and by diffusers' own pipelines."""
    index: dict[str, Any] = {"_class_name": _PIPELINES[model.family]}
    for name, module in model.modules.items():
        with quiet_transformers():
            module.save_pretrained(folder / name)  # type: ignore[operator]
        index[name] = ["diffusers" if name in ("unet", "vae") else "transformers", type(module).__name__]
    for name, tokenizer in zip(model.family.text_encoder_names, model.tokenizers, strict=True):
        part = name.replace("text_encoder", "tokenizer")
        tokenizer.save_pretrained(folder / part)
        for file, text in packed_vocabulary(tokenizer).items():  # what readers older than tokenizer.json look for
            write_text(folder / part / file, text)
        index[part] = ["transformers", "CLIPTokenizer"]
    write_json(folder / "scheduler" / "scheduler_config.json", model.scheduler_config)
    index["scheduler"] = ["diffusers", model.scheduler_config.get("_class_name", "DDIMScheduler")]
    if model.family is not Family.SDXL:
        index |= {"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}
    write_json(folder / "model_index.json", dict(sorted(index.items())))


def save_single_file(model: StableDiffusion, path: Path, *, metadata: Mapping[str, str] | None = None) -> None:
    """Write one file in the original layout; its metadata carries what the tensors do not say."""
    header = {
        "diffusers_config": json.dumps(packed_configs(model), ensure_ascii=False),
        "modelspec.prediction_type": PREDICTION_NAMES[model.prediction_type],
    }
    write_tensors(path, original_tensors(model), header | dict(metadata or {}))


def original_tensors(model: StableDiffusion) -> dict[str, Tensor]:
    """The model's weights as a single file holds them."""
    parts = {name: _on_cpu(module) for name, module in model.modules.items()}
    return to_original(parts, model.family, part_configs(model))


def part_configs(model: StableDiffusion) -> dict[str, dict[str, Any]]:
    """Each part's config as a plain dict, as JSON holds it."""
    return {
        name: json.loads(module.to_json_string() if name in ("unet", "vae") else module.config.to_json_string())  # type: ignore[operator,union-attr]
        for name, module in model.modules.items()
    }


def packed_configs(model: StableDiffusion) -> dict[str, dict[str, Any]]:
    """What goes under `diffusers_config`: the parts' configs, the scheduler's and the tokenizer's two files."""
    return part_configs(model) | {
        "scheduler": model.scheduler_config,
        "tokenizer": packed_vocabulary(model.tokenizers[0]),
    }


def _on_cpu(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in module.state_dict().items()}
