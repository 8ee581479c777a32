"""How other programs take an embedding out of a file: what their loaders do with its keys, and diffusers itself.

The rules are those of A1111 (and Forge), ComfyUI and sd-scripts as their published loaders follow them; each function
returns the vectors for every text encoder of the family, (n, width), or raises where that program would refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from library.models.family import Family, StableDiffusion
from library.models.placeholders import ENCODER_NAMES
from miniworld.tiny import build
from tests.library.adapters.test_diffusers_loading import pipeline_of


def content_of(path: Path) -> dict[str, Any]:
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)


def two_dimensional(tensor: Tensor) -> Tensor:
    return tensor.unsqueeze(0) if tensor.ndim == 1 else tensor


def by_a1111(content: Mapping[str, Any], family: Family) -> list[Tensor]:
    """Nested; SDXL's pair; or the only tensor that there is."""
    if "string_to_param" in content:
        assert len(content["string_to_param"]) == 1, "embedding file has multiple terms in it"
        return [next(iter(content["string_to_param"].values()))]
    if "clip_g" in content and "clip_l" in content:
        return [content[name] for name in ENCODER_NAMES[family]]
    assert len(content) == 1, "embedding file has multiple terms in it"
    return [two_dimensional(next(iter(content.values())))]


def by_comfyui(content: Mapping[str, Any], family: Family) -> list[Tensor]:
    """For each encoder: nested; the encoder's key; what is bundled, one below the other; or the first value."""
    return [two_dimensional(_by_comfyui(content, name)) for name in ENCODER_NAMES[family]]


def _by_comfyui(content: Mapping[str, Any], name: str) -> Tensor:
    if "string_to_param" in content:
        return next(iter(content["string_to_param"].values()))
    if name in content:
        return content[name]
    for ending in (".string_to_param.*", f".{name}"):
        bundled = [v for k, v in content.items() if k.startswith("bundle_emb.") and k.endswith(ending)]
        if bundled:
            return torch.cat(bundled)
    return next(iter(content.values()))


def by_sd_scripts(content: Mapping[str, Any], family: Family) -> list[Tensor]:
    """For SDXL the two names, for the others the first tensor, also of a nested file."""
    if family is Family.SDXL:
        return [content[name] for name in ENCODER_NAMES[family]]
    first = next(iter(content.get("string_to_param", content).values()))
    if not isinstance(first, Tensor):
        raise ValueError("weight file does not contains Tensor")
    return [two_dimensional(first)]


RULES: dict[str, Callable[[Mapping[str, Any], Family], list[Tensor]]] = {
    "A1111": by_a1111,
    "ComfyUI": by_comfyui,
    "sd-scripts": by_sd_scripts,
}


def by_diffusers(files: list[Path], family: Family, token: str | None) -> list[Tensor]:
    """diffusers' own loader on a tiny model: the rows that its text encoders then have for `zwx zwx_1 ...`."""
    model = build(family)
    pipeline = pipeline_of(model)
    named = {} if token is None else {"token": token}
    for file, encoder, tokenizer in zip(files, model.text_encoders, model.tokenizers, strict=True):
        pipeline.load_textual_inversion(str(file), text_encoder=encoder, tokenizer=tokenizer, **named)
    return [_rows(model, index, pipeline.maybe_convert_prompt("zwx", t)) for index, t in enumerate(model.tokenizers)]


def _rows(model: StableDiffusion, index: int, prompt: str) -> Tensor:
    ids = model.tokenizers[index](prompt, add_special_tokens=False).input_ids
    table: Any = model.text_encoders[index].get_input_embeddings()
    return table.weight[ids].detach()


def bundled_by_a1111(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What A1111's LoRA loader hands on to its loader of embeddings: name -> an embedding file's content."""
    found: dict[str, dict[str, Any]] = {}
    for key, tensor in content.items():
        first, _, rest = key.partition(".")
        if first == "bundle_emb":
            name, vectors = rest.split(".", 1)
            nested, _, star = vectors.partition(".")
            entry = {"string_to_param": {star: tensor}} if nested == "string_to_param" else {vectors: tensor}
            found.setdefault(name, {}).update(entry)
    return found
