"""Loading a restorer from where people have it: one DiffBIR v1 file, or a Stable Diffusion and an E beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from library.config.option import Settings
from library.config.spec import declared
from library.errors import UserError
from library.files import read_metadata, read_tensors, temporary_tensors
from library.models.family import PredictionType, StableDiffusion
from library.models.load import load_model
from library.streamed_weights import open_weights
from restoration.options import restoration_spec
from restoration.system.layouts import (
    CLEANER,
    CONDITION_ENCODER,
    CONTROL,
    Tensors,
    encoder_from,
    is_whole_restorer,
    recognise,
    under,
    unwrapped,
)
from restoration.system.system import IRControlNet, System

ENCODER_FOLDER = "controlnet"  # of a restorer in diffusers' layout: E, beside unet, vae, ...
CLEANER_FILE = "cleaner.safetensors"
_BESIDE = (CONTROL, CONDITION_ENCODER, CLEANER)


@dataclass
class Restorer:
    """A system as it was loaded. `cleaner` holds R's tensors where they came with it; `notes` are worth saying."""

    system: System
    cleaner: Tensors = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def load_restorer(
    model_path: Path | str,
    encoder_path: Path | str | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    prediction_type: PredictionType | None = None,
    zero_terminal_snr: bool = False,
    tokenizer_cache_dir: Path | None = None,
) -> Restorer:
    """Load a system on the CPU in `dtype`, frozen and in evaluation mode.

    `model_path` is a Stable Diffusion 1 or 2 (file or folder), a folder that `restoration.convert` wrote, or a DiffBIR
    v1 file, from which everything then comes; `encoder_path` is E in any layout. Raises `UserError` with the file and
    the reason where they do not fit.
    """
    path = Path(model_path)
    with _named(path) as file:
        model = load_model(
            file,
            dtype=dtype,
            prediction_type=prediction_type,
            tokenizer_cache_dir=tokenizer_cache_dir,
            beside=_BESIDE,
        )
    model.source = path
    if len(model.text_encoders) > 1:
        raise UserError(f"'{path}' is an SDXL model; restorers are made on Stable Diffusion 1 or 2, DiffBIR's on 2.1")
    if zero_terminal_snr:
        model.scheduler_config["rescale_betas_zero_snr"] = True
    if encoder_path is None:
        encoder_path = _encoder_of(path)
    encoder = load_encoder(Path(encoder_path), model, dtype)
    cleaner, notes = _companions(path, model)
    return Restorer(System(model, encoder), cleaner, [*model.notes, *notes])


@restoration_spec
class RestorerSpec:
    """The options that name a restorer; field names are the options'."""

    pretrained_model_name_or_path: str
    controlnet_model_name_or_path: str | None = declared
    v_parameterization: bool = declared
    zero_terminal_snr: bool = declared
    tokenizer_cache_dir: Path | None = declared


def load_named_restorer(settings: Settings) -> Restorer:
    """The restorer that the options name."""
    spec = settings.take(RestorerSpec)
    restorer = load_restorer(
        spec.pretrained_model_name_or_path,
        spec.controlnet_model_name_or_path,
        prediction_type="v_prediction" if spec.v_parameterization else None,
        zero_terminal_snr=spec.zero_terminal_snr,
        tokenizer_cache_dir=spec.tokenizer_cache_dir,
    )
    model = restorer.system.model
    restorer.notes += settings.model_notes(model.family.value, model.prediction_type)
    return restorer


def load_encoder(path: Path, model: StableDiffusion, dtype: torch.dtype = torch.float32) -> IRControlNet:
    """E for a model's G, from a file of any layout or a diffusers folder; frozen and in evaluation mode."""
    tensors = encoder_tensors(path, dict(model.unet.config))
    encoder = IRControlNet.for_unet(model.unet)
    wanted = encoder.state_dict()
    missing = [name for name in wanted if name not in tensors]
    unknown = [name for name in tensors if name not in wanted]
    shapes = [name for name in wanted if name in tensors and tensors[name].shape != wanted[name].shape]
    for names, fault in ((shapes, "have another shape"), (missing, "are missing"), (unknown, "are unknown")):
        if names:
            raise UserError(
                f"'{path}' does not fit the U-Net of '{model.source}': {len(names)} tensors {fault}, such as "
                f"`{names[0]}`; give the Stable Diffusion that it was trained with (DiffBIR's is 2.1-base)"
            )
    # Copies: weights that stay mapped to the file would change when it is replaced.
    encoder.load_state_dict({name: tensor.to(dtype, copy=True) for name, tensor in tensors.items()}, assign=True)
    return encoder.requires_grad_(False).eval()


def encoder_tensors(path: Path, config: dict[str, Any]) -> Tensors:
    """E's tensors under diffusers' names; `config` is its or its G's, for the names of other layouts."""
    tensors = unwrapped(read_tensors(weights_file(path))[0])
    return encoder_from(tensors, recognise(tensors, path), config)


def weights_file(path: Path) -> Path:
    """The file itself, or the one file of weights in a diffusers folder."""
    if not path.is_dir():
        return path
    folder = path / ENCODER_FOLDER if (path / ENCODER_FOLDER).is_dir() else path
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise UserError(f"'{folder}' holds {len(files)} .safetensors files; give the file of the ControlNet")
    return files[0]


def encoder_metadata(path: Path) -> dict[str, str]:
    """What E's file says of itself."""
    return read_metadata(weights_file(path))


def packed_config(metadata: dict[str, str]) -> dict[str, Any] | None:
    """E's architecture, where its file carries it."""
    text = metadata.get("diffusers_config")
    return json.loads(text) if text else None


def _encoder_of(path: Path) -> Path:
    if path.is_dir():
        if (path / ENCODER_FOLDER).is_dir():
            return path / ENCODER_FOLDER
    elif is_whole_restorer(unwrapped(open_weights(path).outline)):
        return path
    raise UserError(
        f"'{path}' is a Stable Diffusion without a restorer in it; give `controlnet_model_name_or_path`, DiffBIR's "
        "ControlNet (v1_face.pth, v2.pth ...), or a whole DiffBIR v1 checkpoint as the model"
    )


def _companions(path: Path, model: StableDiffusion) -> tuple[Tensors, list[str]]:
    """R's tensors that lie with the model, and notes."""
    if path.is_dir():
        file = path / CLEANER_FILE
        return (read_tensors(file)[0] if file.is_file() else {}), []
    if not is_whole_restorer(unwrapped(open_weights(path).outline)):
        return {}, []
    tensors = unwrapped(read_tensors(path)[0])
    notes = []
    if _differs(under(tensors, CONDITION_ENCODER), under(tensors, "first_stage_model.")):
        notes.append(
            f"the condition encoder in '{path.name}' is not the VAE's encoder; the VAE's is used, so results will "
            "differ from DiffBIR's own"
        )
    return under(tensors, CLEANER), notes


def _differs(copy: dict[str, Tensor], original: dict[str, Tensor]) -> bool:
    return any(name not in original or not torch.equal(copy[name], original[name]) for name in copy)


@contextmanager
def _named(path: Path) -> Iterator[Path]:
    """The model's file with plain names: itself, or a copy where training on several devices has prefixed them."""
    if not path.is_file():
        yield path
        return
    outline = open_weights(path).outline
    if unwrapped(outline).keys() == outline.keys():
        yield path
        return
    tensors, metadata = read_tensors(path)
    with temporary_tensors(path, tensors, unwrapped(tensors), metadata) as file:
        yield file
