"""Reading a model from a folder in diffusers' layout: one subfolder a part."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from transformers import CLIPTextModel, CLIPTextModelWithProjection
from transformers.utils import logging

from library.bounded_text import parse_json, read_bytes
from library.errors import UserError
from library.models.family import Family, PredictionType, StableDiffusion
from library.models.recognise import family_of_folder
from library.models.tokenizers import load_tokenizer

_CLASSES: dict[str, Any] = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
}


def load_folder(
    path: Path, dtype: torch.dtype, vae_dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> StableDiffusion:
    """Load a Stable Diffusion from a folder with `model_index.json`, its VAE in `vae_dtype` if given."""
    family, configs = folder_configs(path)
    scheduler = configs.pop("scheduler")
    modules = {
        name: _load_part(path / name, _CLASSES[name], vae_dtype or dtype if name == "vae" else dtype, device)
        for name in configs
    }
    tokenizers = [name.replace("text_encoder", "tokenizer") for name in family.text_encoder_names]
    prediction = _prediction_type(scheduler)
    return StableDiffusion(
        family=family,
        prediction_type=prediction or "epsilon",
        unet=modules["unet"],
        vae=modules["vae"],
        text_encoders=[modules[name] for name in family.text_encoder_names],
        tokenizers=[load_tokenizer(path / name) for name in tokenizers],
        scheduler_config=scheduler,
        source=path,
        says=prediction,
    )


def _prediction_type(scheduler: dict[str, Any]) -> PredictionType | None:
    prediction = scheduler.get("prediction_type")
    if prediction == "flow_prediction" or str(scheduler.get("_class_name", "")).startswith("FlowMatch"):
        return "flow_prediction"
    return prediction if prediction in ("epsilon", "v_prediction") else None


def folder_configs(path: Path) -> tuple[Family, dict[str, dict[str, Any]]]:
    """What a folder holds, and the config of each part and of its noise schedule; no weights are read."""
    index = _model_index(path)
    for foreign in ("transformer", "prior", "controlnet"):
        if foreign in index:
            raise UserError(
                f"'{path}' is a {index.get('_class_name', 'model')} with a part `{foreign}`, which is not supported. "
                "Give a Stable Diffusion 1, 2 or XL model."
            )
    second = (path / "text_encoder_2").is_dir()
    weights = [name for name in _CLASSES if second or name != "text_encoder_2"]
    tokenizers = [name.replace("text_encoder", "tokenizer") for name in weights if name.startswith("text_encoder")]
    absent = [part for part in (*weights, *tokenizers, "scheduler") if not (path / part).is_dir()]
    if absent:
        raise UserError(f"'{path}' lacks the folder{'s' * (len(absent) > 1)} {', '.join(absent)}: it is incomplete.")
    unet_config = _read_json(path / "unet" / "config.json")
    if unet_config.get("in_channels", 4) != 4:
        raise UserError(
            f"The U-Net of '{path}' reads {unet_config['in_channels']} channels instead of 4 (inpainting or editing). "
            "Give a plain text to image model."
        )
    family = family_of_folder(unet_config, _read_json(path / "text_encoder" / "config.json"), second)
    configs = {name: _read_json(path / name / "config.json") for name in weights}
    return family, configs | {"scheduler": _read_json(path / "scheduler" / "scheduler_config.json")}


def load_vae_folder(path: Path, dtype: torch.dtype, device: torch.device | str = "cpu") -> AutoencoderKL:
    """A VAE from its own folder, or from the one inside a model's folder."""
    for folder in (path, path / "vae"):
        if (folder / "config.json").is_file():
            return _load_part(folder, AutoencoderKL, dtype, device)
    raise UserError(f"'{path}' holds no VAE: there is no `config.json` in it or in its folder `vae`.")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bar of transformers' own: ours is the only one that people see."""
    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()


def _model_index(path: Path) -> dict[str, Any]:
    index = path / "model_index.json"
    if index.is_file():
        return _read_json(index)
    files = sorted(p.name for p in path.glob("*.safetensors")) + sorted(p.name for p in path.glob("*.ckpt"))
    if files:
        hint = f"If you mean one of the files in it, give its path: {', '.join(files[:5])}."
    elif (path / "config.json").is_file() or (path / "unet").is_dir():
        hint = "It looks like a part of one; give the folder that holds `model_index.json`."
    else:
        hint = "Give the folder that holds `model_index.json`, or a .safetensors or .ckpt file."
    raise UserError(f"The folder '{path}' is not a diffusers model: it has no `model_index.json`. {hint}")


def _load_part(folder: Path, part_class: Any, dtype: torch.dtype, device: torch.device | str) -> Any:
    """A part's module with all of its weights; diffusers and transformers would fill what is missing with noise."""
    variant = _variant(folder)
    try:
        with quiet_transformers():
            module, info = part_class.from_pretrained(
                folder, torch_dtype=dtype, variant=variant, local_files_only=True, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        raise UserError(f"'{folder}' cannot be loaded: {error}") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise UserError(f"'{folder}' lacks {len(missing)} tensors such as `{missing[0]}`: its weights are incomplete.")
    return module.to(device)


def _variant(folder: Path) -> str | None:
    """Which of a part's weight files to read ("fp16" where there is no other); checks that none is cut off."""
    if not (folder / "config.json").is_file():
        raise UserError(f"'{folder}' lacks `config.json`: it is incomplete.")
    files = sorted(folder.glob("*.safetensors"))
    for file in files:
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise UserError(f"'{file}' is damaged or not completely downloaded ({error}). Get it again.") from error
    names = [file.name for file in files or sorted(folder.glob("*.bin"))]
    if not names:
        raise UserError(f"'{folder}' holds no weights: there is no .safetensors or .bin file in it.")
    return "fp16" if all(".fp16" in name for name in names) else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return parse_json(read_bytes(path, longest=64 * 2**20).decode("utf-8"))
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror}. The model's folder is incomplete.") from error
    except ValueError as error:
        raise UserError(f"'{path}' is not JSON: {error}. The model's folder is damaged.") from error
