"""The difference of two models as a LoRA: for each weight the best approximation of its difference at a rank.

Layers are read one at a time, so that neither model is ever in memory as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from library.adapters.factors import leading
from library.adapters.layer_kinds import is_attention, is_of_a_resnet, is_of_a_text_encoder
from library.adapters.layer_locations import Checkpoint, Place, places_in_file, places_in_folder
from library.adapters.merge_model import open_folder
from library.adapters.merge_networks import Merged
from library.adapters.metadata import Metadata, ModelFacts
from library.adapters.save_network import write_network
from library.adapters.tool_metadata import specified
from library.errors import UserError
from library.models.family import Family
from library.models.load import opened
from library.models.recognise import recognise_file


@dataclass(frozen=True)
class Model:
    """A model's files, of which only names and shapes have been read."""

    path: Path
    read: Mapping[Path, Callable[[str], Tensor]]  # one tensor of each file
    checkpoint: Checkpoint
    predicts_v: bool | None  # None: it does not say
    is_flow: bool = False

    def weight(self, place: Place) -> Tensor:
        return place.of(self.read[place.file](place.key))


@dataclass(frozen=True)
class Extraction:
    """What is asked for. `conv_rank` None leaves the resnets out; values above the quantile `clamp` are cut (1: none).

    `least` is the difference that some weight of the text encoders must have for them to be extracted.
    """

    rank: int
    conv_rank: int | None = None
    clamp: float = 1.0
    least: float = 0.01
    load_dtype: torch.dtype | None = None

    def rank_of(self, place: Place) -> int:
        wide = torch.Size(place.shape[2:]).numel() > 1
        rank = self.conv_rank if wide and self.conv_rank is not None else self.rank
        return min(rank, place.shape[0], torch.Size(place.shape[1:]).numel())


@dataclass(frozen=True)
class Extracted:
    """The layers with how much of their difference they keep, and the names of those that are the same in both."""

    layers: Sequence[Merged]
    kept: float  # of the Frobenius norm of all differences
    same: Sequence[str]
    text_difference: float  # the largest of any weight of the text encoders
    with_text: bool


def open_model(path: Path) -> Model:
    """Look into a model's file or diffusers folder. Raises `UserError` where it is none."""
    if path.is_dir():
        files = open_folder(path)
        checkpoint = places_in_folder(path, {file: weights.outline for file, weights in files.items()})
        return Model(path, {file: weights.reader() for file, weights in files.items()}, checkpoint, None)
    file = opened(path)
    checkpoint = places_in_file(path, file.outline, file.metadata)
    prediction = recognise_file(file.outline, file.metadata, path, only_plain=False).prediction_type
    is_flow = prediction == "flow_prediction"
    return Model(
        path, {path: file.reader()}, checkpoint, None if prediction is None else prediction == "v_prediction", is_flow
    )


def shared_layers(original: Model, tuned: Model, extraction: Extraction) -> dict[str, tuple[Place, Place]]:
    """Where each layer of the LoRA lies in both models, by its name in a file. Raises `UserError` if they differ."""
    first, second = original.checkpoint, tuned.checkpoint
    if first.family is not second.family:
        raise UserError(
            f"`{original.path}` is a {first.family.spoken} model and `{tuned.path}` a {second.family.spoken} one; "
            "a difference needs two models of one kind"
        )
    layers: dict[str, tuple[Place, Place]] = {}
    taken = set()
    for name, place in first.places.items():
        if not is_trained(name, extraction) or (place.file, place.key, place.rows) in taken:
            continue  # the second name of a layer of SDXL's U-Net
        taken.add((place.file, place.key, place.rows))
        other = second.place(name)
        if other is None or other.shape != place.shape:
            found = "no such weight" if other is None else f"{other.shape}"
            raise UserError(
                f"`{name}` is a weight of {place.shape} in `{original.path}`, but `{tuned.path}` has {found}; "
                "a difference needs two models of one kind"
            )
        layers[name] = (place, other)
    return layers


def is_trained(layer: str, extraction: Extraction) -> bool:
    """Whether kohya's trainer would give a layer a LoRA: attention and MLP, and resnets if convolutions have a rank."""
    if layer.startswith("lora_te"):
        return is_of_a_text_encoder(layer)
    if is_of_a_resnet(layer):
        return extraction.conv_rank is not None
    return is_attention(layer)


def extract(
    original: Model,
    tuned: Model,
    extraction: Extraction,
    device: torch.device | str = "cpu",
    progress: Callable[[Mapping[str, tuple[Place, Place]]], Iterator[str]] = iter,  # pyright: ignore[reportArgumentType]
) -> Extracted:
    """The LoRA of `tuned` minus `original`. Raises `UserError` where there is no difference."""
    places = shared_layers(original, tuned, extraction)

    def difference(name: str) -> Tensor:
        weights = [model.weight(place) for model, place in zip((original, tuned), places[name], strict=True)]
        if extraction.load_dtype is not None:
            weights = [weight.to(extraction.load_dtype) for weight in weights]
        return (weights[1].to(device, torch.float64) - weights[0].to(device, torch.float64)).flatten(1)

    text = [name for name in places if is_of_a_text_encoder(name)]
    most = max((float(difference(name).abs().max()) for name in text), default=0.0)
    with_text = most > extraction.least
    layers, same, energy, kept = [], [], 0.0, 0.0
    for name in progress({name: place for name, place in places.items() if with_text or name not in text}):
        matrix = difference(name)
        if not matrix.isfinite().all():
            raise UserError(f"the weights of `{name}` are not finite in one of the two models; that file is damaged")
        if not matrix.any():
            same.append(name)
            continue
        rank = extraction.rank_of(places[name][0])
        up, down = leading(matrix, rank).cut(rank)
        if extraction.clamp < 1:
            most_allowed = torch.quantile(torch.cat([up.flatten(), down.flatten()]), extraction.clamp)
            up, down = (factor.clamp(-most_allowed, most_allowed) for factor in (up, down))
        energy += float(matrix.square().sum())
        kept += float(matrix.square().sum() - (matrix - up @ down).square().sum())
        kernel = tuple(places[name][0].shape[2:])
        layers.append(Merged(name, up.cpu(), down.cpu(), float(rank), kernel))
    if not layers:
        raise UserError(
            f"`{tuned.path}` has no weight that differs from `{original.path}`; there is nothing to extract"
        )
    return Extracted(layers, max(kept / energy, 0.0) ** 0.5, same, most, with_text)


def find_facts(original: Model, tuned: Model, is_sd2: bool, is_sdxl: bool, predicts_v: bool | None) -> ModelFacts:
    """What the LoRA is for: what a person says, checked against the weights, then what the models say.

    A Stable Diffusion 2 of which nobody says what it predicts counts as v, as in sd-scripts.
    """
    family = original.checkpoint.family
    for name, asked, meant in (("v2", is_sd2, Family.SD2), ("sdxl", is_sdxl, Family.SDXL)):
        if asked and family is not meant:
            raise UserError(f"`{name}` is set, but `{original.path}` is a {family.spoken} model; leave `--{name}` out")
    answers = (predicts_v or None, tuned.predicts_v, original.predicts_v, family is Family.SD2)
    is_v = next(answer for answer in answers if answer is not None)
    return ModelFacts(cast("str", family.value), is_v, str(original.path), is_flow=tuned.is_flow)  # pyright: ignore[reportArgumentType]


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
