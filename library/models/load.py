"""Loading a model: a diffusers folder or one file, to one `StableDiffusion`, without the network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from library.errors import UserError
from library.files import read_tensors
from library.models.family import Family, PredictionType, StableDiffusion
from library.models.folder import load_folder, load_vae_folder
from library.models.recognise import check_width, recognise_file
from library.models.single_file import VAE, Tensors, from_original, vae_from_original
from library.models.standard import standard_configs
from library.models.tokenizers import family_tokenizers

Module = TypeVar("Module", bound=torch.nn.Module)

FILE_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


def load_model(
    path: Path | str,
    *,
    dtype: torch.dtype = torch.float32,
    vae: Path | str | None = None,
    vae_dtype: torch.dtype | None = None,
    tokenizer_cache_dir: Path | str | None = None,
    prediction_type: PredictionType | None = None,
) -> StableDiffusion:
    """Load every part on the CPU in `dtype` (the VAE in `vae_dtype` if given), frozen and in evaluation mode.

    `vae` is a file or a folder whose VAE takes the place of the model's own. `prediction_type` overrides what the model
    says of itself; a single file that says nothing counts as epsilon. Raises UserError if it is no such model.
    """
    path = Path(path)
    if path.is_dir():
        model = load_folder(path, dtype)
        if prediction_type is not None:
            model.prediction_type = prediction_type
    elif path.is_file():
        cache_dir = Path(tokenizer_cache_dir) if tokenizer_cache_dir is not None else None
        model = _load_single_file(path, dtype, cache_dir, prediction_type)
    else:
        raise UserError(f"There is no model at '{path}'. {_how_to_name(path)}")
    model.scheduler_config["prediction_type"] = model.prediction_type
    if vae is not None:
        model.vae = load_vae(Path(vae), vae_dtype or dtype, config=dict(model.vae.config))
    elif vae_dtype is not None:
        torch.nn.Module.to(model.vae, vae_dtype)
    for module in model.modules.values():
        module.requires_grad_(False).eval()
    return model


def load_vae(path: Path, dtype: torch.dtype, config: Mapping[str, Any]) -> AutoencoderKL:
    """A VAE from a folder with a config of its own, or from a file in either layout that fits `config`."""
    if path.is_dir():
        return load_vae_folder(path, dtype)
    if not path.is_file():
        raise UserError(f"There is no VAE at '{path}'. Give a file or a diffusers folder.")
    tensors, _ = _read(path)
    tensors = {name.removeprefix(VAE): tensor for name, tensor in tensors.items() if _may_be_vae(name)}
    if not any(name.startswith(("encoder.", "decoder.")) for name in tensors):
        raise UserError(f"'{path}' holds no VAE. Give a VAE's file, a whole model's file, or a diffusers folder.")
    with init_empty_weights(include_buffers=False):
        vae: Any = AutoencoderKL.from_config(dict(config))
    return _filled(vae, vae_from_original(tensors, config), dtype, f"VAE of '{path}'")


def _load_single_file(
    path: Path, dtype: torch.dtype, cache_dir: Path | None, prediction_type: PredictionType | None
) -> StableDiffusion:
    tensors, metadata = _read(path)
    known = recognise_file(tensors, metadata, path)
    packed = _packed_configs(metadata, path)
    if packed is None:
        check_width(tensors, known.family, path)
    said = known.prediction_type or (packed or {}).get("scheduler", {}).get("prediction_type")
    notes = []
    if said is None and prediction_type is None and known.family is Family.SD2:
        notes.append(
            f"'{path.name}' does not say whether it predicts noise or velocity; noise (epsilon) is assumed. "
            "Set `v_parameterization` for the 768 pixel models of Stable Diffusion 2."
        )
    kind: PredictionType = prediction_type or said or "epsilon"
    configs = packed or standard_configs(known.family, kind)
    tokenizers = family_tokenizers(known.family, configs.get("tokenizer"), cache_dir, path)
    scheduler = dict(configs["scheduler"])
    if known.zero_terminal_snr:
        scheduler |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}

    parts = from_original(tensors, known.family, configs)
    modules = empty_modules(known.family, configs)
    for name, module in modules.items():
        _filled(module, parts[name], dtype, f"{name} of '{path}'")
    return StableDiffusion(
        family=known.family,
        prediction_type=kind,
        unet=modules["unet"],
        vae=modules["vae"],
        text_encoders=[modules[name] for name in known.family.text_encoder_names],
        tokenizers=tokenizers,
        scheduler_config=scheduler,
        source=path,
        notes=notes,
    )


def empty_modules(family: Family, configs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The parts' modules without memory for their weights."""
    with init_empty_weights(include_buffers=False):
        modules: dict[str, Any] = {
            "unet": UNet2DConditionModel.from_config(dict(configs["unet"])),
            "vae": AutoencoderKL.from_config(dict(configs["vae"])),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**configs["text_encoder"])),
        }
        if family is Family.SDXL:
            config = CLIPTextConfig(**configs["text_encoder_2"])
            modules["text_encoder_2"] = CLIPTextModelWithProjection(config)
    return modules


def _filled(module: Module, tensors: Tensors, dtype: torch.dtype, what: str) -> Module:
    """Give a module its weights in `dtype`, or say which are missing or of another shape."""
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in tensors]
    surplus = [name for name in tensors if name not in wanted] if isinstance(module, UNet2DConditionModel) else []
    shapes = [name for name in wanted if name in tensors and tensors[name].shape != wanted[name].shape]
    for names, fault in ((missing, "are missing"), (shapes, "have another shape"), (surplus, "are unknown")):
        if names:
            raise UserError(
                f"The {what} does not fit its architecture: {len(names)} tensors {fault}, such as `{names[0]}`. "
                "The file is incomplete or another kind of model."
            )
    # Copies, even in the same type: weights that stay mapped to the file would change, or crash, when it is replaced.
    module.load_state_dict({name: tensors[name].to(dtype, copy=True) for name in wanted}, assign=True)
    return module


def _read(path: Path) -> tuple[Tensors, dict[str, str]]:
    if path.suffix.lower() not in FILE_SUFFIXES:
        raise UserError(f"'{path}' is no weights file: expected is a name that ends in {', '.join(FILE_SUFFIXES)}.")
    return read_tensors(path)


def _packed_configs(metadata: Mapping[str, str], path: Path) -> dict[str, dict[str, Any]] | None:
    """The configs that a file carries under `diffusers_config`, if it does."""
    text = metadata.get("diffusers_config")
    if text is None:
        return None
    try:
        configs = json.loads(text)
    except ValueError as error:
        raise UserError(f"The metadata `diffusers_config` of '{path}' is not JSON: {error}.") from error
    absent = [part for part in ("unet", "vae", "text_encoder", "scheduler") if part not in configs]
    if absent:
        raise UserError(f"The metadata `diffusers_config` of '{path}' lacks {', '.join(absent)}.")
    return configs


def _may_be_vae(name: str) -> bool:
    return name.startswith((VAE, "encoder.", "decoder.", "quant_conv.", "post_quant_conv."))


def _how_to_name(path: Path) -> str:
    """The two usual mistakes: a name on the Hugging Face Hub, and a file that lies elsewhere."""
    if len(path.parts) == 2 and not path.is_absolute() and not path.suffix and not path.parent.exists():
        return (
            "If this is a name on the Hugging Face Hub: nothing is downloaded here. "
            f"Run `hf download {path.as_posix()} --local-dir DIR` and give DIR."
        )
    return "Give the path of a diffusers folder, or of a .safetensors or .ckpt file."
