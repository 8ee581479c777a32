"""Networks into a model's weights: W + ratio * update, in the model's own layout, a few tensors in memory at a time.

What no network touches is copied bit for bit, and every tensor keeps its name. The VAE also keeps its precision.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor

from library.adapters.layer_locations import Checkpoint, Place, places_in_folder
from library.adapters.layers import Layer, update_of
from library.adapters.merge_networks import Weighted
from library.adapters.metadata import Metadata, ModelFacts
from library.adapters.modelspec import ARCHITECTURES
from library.atomic import atomic_folder
from library.errors import UserError
from library.files import is_finite
from library.models.family import StableDiffusion
from library.models.load import load_model
from library.models.save import save_single_file
from library.models.single_file import VAE
from library.streamed_weights import WeightsFile, aligned, open_weights, written_in_order

PARTS = ("unet", "text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class Change:
    """What one network's layer adds to a place."""

    place: Place
    layer: Layer
    ratio: float

    def add_to(self, weight: Tensor) -> None:
        """In place, in the precision of `weight`, which is the whole tensor."""
        update = update_of(self.layer).to(weight.device, weight.dtype)
        view = self.place.of(weight)
        view += (self.ratio * update.scale) * (update.up @ update.down).reshape(view.shape)


@dataclass(frozen=True)
class Merge:
    """All changes of a model by file and tensor, and the layers that the model does not have."""

    changes: Mapping[Path, Mapping[str, Sequence[Change]]]
    strangers: Sequence[str]

    @property
    def count(self) -> int:
        return sum(len(changes) for of_file in self.changes.values() for changes in of_file.values())


@dataclass(frozen=True)
class MergePrecision:
    """`work` is what is calculated in; `save` what changed parts are written in, None for the types of the model."""

    work: torch.dtype = torch.float32
    save: torch.dtype | None = None

    def written(self, key: str, tensor: Tensor) -> torch.dtype:
        if self.save is None or not tensor.is_floating_point() or key.startswith(VAE):
            return tensor.dtype
        return self.save


def plan(checkpoint: Checkpoint, networks: Sequence[Weighted]) -> Merge:
    """Find the place of every layer. Raises `UserError` if a network is another model's, or a shape does not fit."""
    changes: dict[Path, dict[str, list[Change]]] = {}
    strangers: list[str] = []
    for network in networks:
        found = 0
        for name, layer in network.file.layers.items():
            place = checkpoint.place(name)
            if place is None:
                strangers.append(name)
                continue
            _check_shape(layer, place, network.file.path)
            found += 1
            change = Change(place, layer, network.ratio_of(name))
            changes.setdefault(place.file, {}).setdefault(place.key, []).append(change)
        if not found:
            examples = ", ".join(f"`{name}`" for name in list(network.file.layers)[:2])
            raise UserError(
                f"`{network.file.path}` fits no layer of this {checkpoint.family.spoken} model: it has for example "
                f"{examples}. It was made for a model of another kind"
            )
    return Merge(changes, strangers)


def write_merged_file(
    file: WeightsFile, merge: Merge, target: Path, precision: MergePrecision, metadata: Metadata, device: torch.device
) -> None:
    """The model's file with the changes of `merge`. Raises `UserError` where a value is not finite any more."""
    changes = merge.changes.get(file.path, {})
    outline = {
        key: torch.empty(tensor.shape, dtype=precision.written(key, tensor), device="meta")
        for key, tensor in file.outline.items()
    }
    outline = aligned(outline)
    file.outline = {key: file.outline[key] for key in outline}  # read in the order in which it is written
    with written_in_order(target, outline, metadata) as write:
        for piece in file.pieces():
            for key, tensor in piece.items():
                write(key, changed(key, tensor, changes.get(key, ()), outline[key].dtype, precision.work, device))


def changed(
    key: str, tensor: Tensor, changes: Sequence[Change], dtype: torch.dtype, work: torch.dtype, device: torch.device
) -> Tensor:
    """The tensor in `dtype` with its changes, calculated in `work`. Raises `UserError` where it is not finite then."""
    if not changes:
        return tensor.to(dtype)
    weight = tensor.to(device, work, copy=True)
    for change in changes:
        change.add_to(weight)
    weight = weight.to("cpu", dtype)
    if not is_finite(weight):
        name = str(dtype).removeprefix("torch.")
        raise UserError(f"`{key}` is not finite in {name} after merging; give smaller `ratios` or a wider precision")
    return weight


def open_folder(folder: Path, parts: Sequence[str] = PARTS) -> dict[Path, WeightsFile]:
    """The weights files of a diffusers folder's parts: those that networks change. Raises `UserError` where there are
    none."""
    files = [file for part in parts for file in sorted((folder / part).glob("*.safetensors"))]
    if not (folder / "model_index.json").is_file() or not files:
        raise UserError(f"`{folder}` is no diffusers folder with .safetensors weights; give its folder, or a file")
    return {file: open_weights(file) for file in files}


def write_merged_folder(
    folder: Path,
    files: Mapping[Path, WeightsFile],
    merge: Merge,
    target: Path,
    precision: MergePrecision,
    device: torch.device,
) -> None:
    """The diffusers folder with the changes of `merge`; every other file is copied."""
    with atomic_folder(target) as temporary:
        for path in sorted(folder.rglob("*")):
            copy = temporary / path.relative_to(folder)
            if path.is_dir():
                copy.mkdir(parents=True, exist_ok=True)
            elif path in files:
                write_merged_file(files[path], merge, copy, precision, files[path].metadata, device)
            else:
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)


def _check_shape(layer: Layer, place: Place, path: Path) -> None:
    rows, columns = place.shape[0], torch.Size(place.shape[1:]).numel()
    update = update_of(layer)
    found = (update.up.shape[0], update.down.shape[1])
    if found != (rows, columns):
        raise UserError(
            f"`{path}`: the layer `{layer.name}` is for a weight of {found[0]} x {found[1]}, but `{place.key}` of the "
            f"model has {rows} x {columns}; it was made for another model"
        )


def write_folder_as_file(
    folder: Path,
    networks: Sequence[Weighted],
    target: Path,
    precision: MergePrecision,
    metadata: Metadata,
    device: torch.device,
) -> None:
    """The folder's model with the networks in its weights. Every part keeps its type, or has that of `precision`.

    Raises `UserError` where a value is not finite any more.
    """
    own = types_in(folder)
    types = [widest(own[part] for part in PARTS if part in own), own["vae"]]
    types = [torch.float16 if dtype.itemsize == 1 else dtype for dtype in types]  # modules are not made in eight bits
    model = load_model(folder, dtype=types[0], vae_dtype=types[1])
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
    """The type that holds the numbers of all of them; torch does not compare types of eight bits."""
    found = set(types)
    wide = [dtype for dtype in found if dtype.itemsize > 1]
    return reduce(torch.promote_types, wide) if wide else found.pop() if len(found) == 1 else torch.float16


def described(model: StableDiffusion) -> Metadata:
    """By what programs sort models."""
    facts = ModelFacts(model.family.value, model.prediction_type == "v_prediction", str(model.source))
    return {"modelspec.sai_model_spec": "1.0.1", "modelspec.architecture": ARCHITECTURES[facts.version]}
