"""The merge commands: networks into a model, or into one network. Each returns lines that say what came out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch
from tqdm import tqdm

from library.adapters.block_weights import BlockWeights
from library.adapters.bundled_words import left_behind, merge_beside
from library.adapters.layer_locations import places_in_file, places_in_folder
from library.adapters.layers import read_network
from library.adapters.merge_model import (
    MergePrecision,
    open_folder,
    plan,
    write_folder_as_file,
    write_merged_file,
    write_merged_folder,
)
from library.adapters.merge_networks import Merged, Way, Weighted, added, members, mixed_part
from library.adapters.metadata import Metadata
from library.adapters.save_network import without_stale_hashes, write_network
from library.adapters.tool_metadata import base_model, merged_metadata, network_title, title_of
from library.errors import UserError, raise_all
from library.files import check_free_space
from library.models.family import Family
from library.models.load import FILE_SUFFIXES, opened
from library.streamed_weights import WeightsFile

WORTH_SAYING = 0.01  # of the norm of the sum


@dataclass(frozen=True)
class Result:
    """Where a merged network is written, and how."""

    save_to: Path
    dtype: torch.dtype
    brief: bool = False  # without a modelspec
    is_sd2: bool = False  # what the person says, where the files are silent
    arguments: dict[str, str] | None = None  # ss_network_args


def read_weighted(
    models: Sequence[Path | str], ratios: Sequence[float], blocks: Sequence[BlockWeights] = ()
) -> list[Weighted]:
    """The networks with their ratios and, if given, their weights by block. Raises `UserError`."""
    weights = blocks or [None] * len(models)
    files = [read_network(model) for model in models]
    families = {file.is_sdxl for file in files} - {None}
    if len(families) == 1:  # what one file does not tell, those beside it do
        files = [
            read_network(file.path, is_sdxl=next(iter(families))) if file.is_sdxl is None else file for file in files
        ]
    found = [Weighted(file, ratio, of_blocks) for file, ratio, of_blocks in zip(files, ratios, weights, strict=True)]
    for network in found:
        unet = [name for name in network.file.layers if "text_model_encoder_" not in name]
        if network.blocks and unet and not any(network.blocks.knows(name) for name in unet):
            other = "17 or 26" if network.blocks.is_sdxl else "12 or 20"
            raise UserError(
                f"`lbws` has a number for no layer of the U-Net in `{network.file.path}`: it is of another "
                f"family; give {other} numbers"
            )
    return found


def merge_together(networks: Sequence[Weighted], way: Way, result: Result, *, shuffle: bool = False) -> Iterable[str]:
    """Write one network that does what `way` makes of several."""
    layers: list[Merged] = []
    off = whole = 0.0
    for name, parts_of in tqdm(members(networks).items(), desc="merging", unit="layer", disable=None):
        parts = [part() for part in parts_of]
        layer = way(name, parts)
        if way is added:
            mixed = mixed_part(layer, parts)
            off, whole = off + mixed[0], whole + mixed[1]
        layers.append(layer.shuffled() if shuffle else layer)
    files = [network.file for network in networks]
    tensors = {key: tensor for layer in layers for key, tensor in layer.tensors().items()}
    beside, notes = merge_beside(files)
    tensors |= beside
    metadata = merged_metadata(
        files,
        base_model(files, is_sd2=result.is_sd2),
        [layer.rank for layer in layers],
        [layer.alpha for layer in layers],
        title=result.save_to.stem,
        arguments=result.arguments,
        brief=result.brief,
    )
    write_network(result.save_to, tensors, result.dtype, metadata)
    ranks = [layer.rank for layer in layers]
    span = str(ranks[0]) if min(ranks) == max(ranks) else f"{min(ranks)} to {max(ranks)}"
    yield f"Wrote {result.save_to}: {len(networks)} networks as one of {len(layers)} layers of rank {span}"
    if whole and (off / whole) ** 0.5 > WORTH_SAYING:
        yield (
            "note: adding factors, as sd-scripts does, is not adding updates: the merged update is "
            f"{(off / whole) ** 0.5:.0%} of the norm off from the sum of ratio times update. `--concat` gives that sum "
            "exactly, networks/svd_merge_lora.py its best approximation at a rank"
        )
    yield from notes


def merge_into_model(
    networks: Sequence[Weighted],
    model: Path,
    save_to: Path,
    precision: MergePrecision,
    *,
    family: Family | None = None,
    is_sd2: bool | None = None,
    brief: bool = False,
    device: torch.device | str = "cpu",
) -> Iterable[str]:
    """Write the model, a single file or a diffusers folder, with the networks in its weights.

    A folder is written as one file where `save_to` has the name of a file. `family` and `is_sd2` are what the person
    says of the model; `UserError` where they are wrong.
    """
    device, as_file = torch.device(device), model.is_file() or is_file_name(save_to)
    if as_file and save_to.suffix != ".safetensors":
        raise UserError(f"`save_to` is `{save_to}`; a merged model is written as .safetensors")
    if model.is_dir():
        if model.resolve() in save_to.resolve().parents:
            raise UserError(f"`save_to` is `{save_to}`, which lies inside the model's folder; choose one beside it")
        files = open_folder(model)
        checkpoint = places_in_folder(model, {path: file.outline for path, file in files.items()})
    else:
        files = {model: opened(model)}
        _refuse_scaled(files[model], model)
        checkpoint = places_in_file(model, files[model].outline, files[model].metadata)
    _check_family(checkpoint.family, model, family, is_sd2)
    merge = plan(checkpoint, networks)
    raise_all(check_free_space(save_to.parent, _size(model)))
    if model.is_dir() and as_file:
        metadata = {} if brief else _merged_from({}, model, networks, save_to)
        write_folder_as_file(model, networks, save_to, precision, metadata, device)
    elif model.is_dir():
        write_merged_folder(model, files, merge, save_to, precision, device)
    else:
        metadata = without_stale_hashes(files[model].metadata)
        if not brief:
            metadata |= _merged_from(metadata, model, networks, save_to)
        write_merged_file(files[model], merge, save_to, precision, metadata, device)
    changed = sum(len(of_file) for of_file in merge.changes.values())
    yield f"Wrote {save_to}: {merge.count} layers of {len(networks)} networks merged into {changed} weights of {model}"
    if merge.strangers:
        examples = ", ".join(f"`{name}`" for name in merge.strangers[:3])
        yield f"note: {len(merge.strangers)} layers have no place in this model and were left out, such as {examples}"
    yield from left_behind(network.file for network in networks)
    eight = sum(
        files[path].outline[key].element_size() == 1 for path, of_file in merge.changes.items() for key in of_file
    )
    if eight and precision.save is None:
        yield (
            f"note: {eight} of the changed weights are written in eight bits, as the model's are, and most of what a "
            "network changes is less than their steps; `--save_precision fp16` keeps it"
        )


def is_file_name(path: Path) -> bool:
    """Whether a name is meant for a weights file rather than for a folder."""
    return path.suffix.lower() in FILE_SUFFIXES


def _check_family(found: Family, model: Path, family: Family | None, is_sd2: bool | None) -> None:
    if family is not None and found is not family:
        raise UserError(
            f"`{model}` is a {found.spoken} model and not {family.spoken}; use networks/"
            f"{'sdxl_merge_lora' if found is Family.SDXL else 'merge_lora'}.py"
        )
    if is_sd2 and found is not Family.SD2:
        raise UserError(f"`v2` is set, but `{model}` is a {found.spoken} model; leave `--v2` out")


def _refuse_scaled(file: WeightsFile, model: Path) -> None:
    """Weights in eight bits with a factor beside them are not what their tensors say."""
    scale = next((key for key in file.outline if key.endswith((".scale_weight", ".weight_scale", "scaled_fp8"))), None)
    if scale is not None:
        raise UserError(
            f"`{model}` holds weights in eight bits with scales of their own (`{scale}`), which cannot be merged into; "
            "give the model in fp16 or bf16"
        )


def _merged_from(metadata: Metadata, model: Path, networks: Sequence[Weighted], save_to: Path) -> Metadata:
    titles = [title_of(model, metadata), *(network_title(network.file) for network in networks)]
    return {
        "modelspec.title": save_to.stem,
        "modelspec.merged_from": ", ".join(titles),
        "modelspec.date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _size(model: Path) -> int:
    if model.is_file():
        return model.stat().st_size
    return sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
