"""Networks into a diffusers folder that is written as one file in the original layout.

Other than in `merge_model`, the whole model is in memory: the two layouts cut some tensors differently.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor

from library.adapters.layer_locations import places_in_folder
from library.adapters.merge_model import PARTS, Precision, changed, open_folder, plan
from library.adapters.merge_networks import Weighted
from library.adapters.metadata import Metadata, ModelFacts
from library.adapters.modelspec import ARCHITECTURES
from library.models.family import StableDiffusion
from library.models.load import load_model
from library.models.save import save_single_file


def write_folder_as_file(
    folder: Path,
    networks: Sequence[Weighted],
    target: Path,
    precision: Precision,
    metadata: Metadata,
    device: torch.device,
) -> None:
    """The folder's model with the networks in its weights. Every part keeps its type, or has that of `precision`.

    Raises `UserError` where a value is not finite any more.
    """
    own = types_in(folder)
    model = load_model(folder, dtype=widest(own[part] for part in PARTS if part in own), vae_dtype=own["vae"])
    tensors = {folder / part / "weights": module.state_dict() for part, module in model.modules.items()}
    merge = plan(
        places_in_folder(folder, {file: tensors[file] for file in tensors if file.parent.name != "vae"}), networks
    )
    for part, module in model.modules.items():
        file = folder / part / "weights"
        dtype = own[part] if precision.save is None or part == "vae" else precision.save
        for key, changes in merge.changes.get(file, {}).items():
            weight = tensors[file][key]
            weight.copy_(changed(key, weight, changes, dtype, precision.work, device))
        module.to(dtype=dtype)
    save_single_file(model, target, metadata=described(model) | metadata)


def types_in(folder: Path) -> dict[str, torch.dtype]:
    """The widest type of each part's weights."""
    found: dict[str, list[Tensor]] = {}
    for path, file in open_folder(folder, (*PARTS, "vae")).items():
        found.setdefault(path.parent.name, []).extend(t for t in file.outline.values() if t.is_floating_point())
    return {part: widest(tensor.dtype for tensor in tensors) for part, tensors in found.items()}


def widest(types: Iterable[torch.dtype]) -> torch.dtype:
    """The type that holds the numbers of all of them."""
    return reduce(torch.promote_types, types)


def described(model: StableDiffusion) -> Metadata:
    """By what programs sort models."""
    facts = ModelFacts(model.family.value, model.prediction_type == "v_prediction", str(model.source))
    return {"modelspec.sai_model_spec": "1.0.1", "modelspec.architecture": ARCHITECTURES[facts.version]}
