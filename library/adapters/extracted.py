"""The file of an extracted LoRA: what it says of its model, and what is told about it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import torch

from library.adapters.extract import Extracted, Extraction, Model
from library.adapters.metadata import Metadata, ModelFacts
from library.adapters.save_network import write_network
from library.adapters.tool_metadata import specified
from library.errors import UserError
from library.models.family import Family


def said_of(original: Model, tuned: Model, is_sd2: bool, is_sdxl: bool, predicts_v: bool | None) -> ModelFacts:
    """What the LoRA is for: what a person says, checked against the weights, then what the models say.

    A Stable Diffusion 2 of which nobody says what it predicts counts as v, as in sd-scripts.
    """
    family = original.checkpoint.family
    for name, asked, meant in (("v2", is_sd2, Family.SD2), ("sdxl", is_sdxl, Family.SDXL)):
        if asked and family is not meant:
            raise UserError(f"`{name}` is set, but `{original.path}` is a {family.spoken} model; leave `--{name}` out")
    answers = (predicts_v or None, tuned.predicts_v, original.predicts_v, family is Family.SD2)
    is_v = next(answer for answer in answers if answer is not None)
    return ModelFacts(cast("str", family.value), is_v, str(original.path))  # pyright: ignore[reportArgumentType]


def write_extracted(
    path: Path, found: Extracted, extraction: Extraction, model: ModelFacts, dtype: torch.dtype, *, brief: bool = False
) -> None:
    """Write the LoRA with the header that kohya's trainers would give it, without a modelspec if `brief`."""
    tensors = {key: tensor for layer in found.layers for key, tensor in layer.tensors().items()}
    conv = extraction.conv_rank
    arguments = {} if conv is None else {"conv_dim": str(conv), "conv_alpha": str(float(conv))}
    header: Metadata = {
        "ss_v2": str(model.family == "sd2"),
        "ss_base_model_version": model.version,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(extraction.rank),
        "ss_network_alpha": str(float(extraction.rank)),
        "ss_network_args": json.dumps(arguments),
    }
    if not brief:
        header |= specified(model, "lora", path.stem, [])
    write_network(path, tensors, dtype, header)


def report(found: Extracted, extraction: Extraction, path: Path) -> Iterator[str]:
    """What came out, and what was left out with the reason."""
    yield f"Wrote {path}: {len(found.layers)} layers, which keep {found.kept:.2%} of the norm of the differences"
    if not found.with_text:
        yield (
            f"note: the text encoders differ by at most {found.text_difference:g}, which is not above min_diff "
            f"({extraction.least:g}): they are left out"
        )
    if found.same:
        yield f"note: {len(found.same)} layers are the same in both models and left out"
