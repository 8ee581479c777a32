"""Loading a model: a diffusers folder or one file, to one `StableDiffusion`, without the network."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from library.errors import UserError
from library.models.family import Family, PredictionType, StableDiffusion
from library.models.folder import load_folder, load_vae_folder
from library.models.recognise import check_width, recognise_file
from library.models.single_file import VAE, Parts, Tensors, from_original, vae_from_original
from library.models.standard import standard_configs
from library.models.tokenizers import family_tokenizers
from library.models.vae_padding import pad_by_reflection, pads_by_reflection
from library.streamed_weights import WeightsFile, open_weights

FILE_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
_SPOKEN = {
    "epsilon": "the noise (epsilon)",
    "v_prediction": "the velocity (v)",
    "flow_prediction": "the velocity of straight paths",
}


@dataclass(frozen=True)
class LoadTarget:
    """Where weights go while they are loaded, and how: `vae_dtype` None means `dtype`.

    `mapped` False reads files with plain reads instead of mapping them into memory.
    """

    dtype: torch.dtype = torch.float32
    vae_dtype: torch.dtype | None = None
    device: torch.device | str = "cpu"
    mapped: bool = True

    def dtype_of(self, part: str) -> torch.dtype:
        return self.vae_dtype or self.dtype if part == "vae" else self.dtype


def load_model(
    path: Path | str,
    *,
    dtype: torch.dtype = torch.float32,
    vae: Path | str | None = None,
    vae_dtype: torch.dtype | None = None,
    tokenizer_cache_dir: Path | str | None = None,
    prediction_type: PredictionType | None = None,
    device: torch.device | str = "cpu",
    mapped: bool = True,
    beside: tuple[str, ...] = (),
) -> StableDiffusion:
    """Load every part in `dtype` (the VAE in `vae_dtype` if given) onto `device`, frozen and in evaluation mode.

    `vae` is a file or a folder whose VAE takes the place of the model's own. `prediction_type` overrides what the model
    says of itself; a single file that says nothing counts as epsilon. `mapped` False reads a file's bytes instead of
    mapping it. `beside` are the beginnings of tensor names that a single file may hold beside the model's own, and that
    are passed over. Raises UserError if it is no such model.
    """
    path = Path(path)
    target = LoadTarget(dtype, vae_dtype, device, mapped)
    if path.is_dir():
        model = load_folder(path, dtype, vae_dtype, device)
    elif path.is_file():
        cache_dir = Path(tokenizer_cache_dir) if tokenizer_cache_dir is not None else None
        model = _load_single_file(path, target, cache_dir, prediction_type, beside)
    else:
        raise UserError(f"There is no model at '{path}'. {_how_to_name(path)}")
    if prediction_type is not None:
        if model.says is not None and model.says != prediction_type:
            model.notes.append(
                f"'{path.name}' says that it predicts {_SPOKEN[model.says]}, but it is trained to predict "
                f"{_SPOKEN[prediction_type]}, as the options ask"
            )
        model.prediction_type = prediction_type
    model.scheduler_config["prediction_type"] = model.prediction_type
    if vae is not None:
        model.vae = load_vae(Path(vae), vae_dtype or dtype, config=dict(model.vae.config), device=device, mapped=mapped)
    if pads_by_reflection(model.vae):  # as its own config says
        pad_by_reflection(model.vae)
    for module in model.modules.values():
        module.requires_grad_(False).eval()
    return model


def load_vae(
    path: Path,
    dtype: torch.dtype,
    config: Mapping[str, Any],
    *,
    device: torch.device | str = "cpu",
    mapped: bool = True,
) -> AutoencoderKL:
    """A VAE from a folder with a config of its own, or from a file in either layout that fits `config`."""
    if path.is_dir():
        return load_vae_folder(path, dtype, device)
    if not path.is_file():
        raise UserError(f"There is no VAE at '{path}'. Give a file or a diffusers folder.")
    file = opened(path)
    if not any(_in_vae(name).startswith(("encoder.", "decoder.")) for name in file.outline if _may_be_vae(name)):
        raise UserError(f"'{path}' holds no VAE. Give a VAE's file, a whole model's file, or a diffusers folder.")

    def convert(tensors: Mapping[str, Tensor]) -> Parts:
        return {"vae": vae_from_original({_in_vae(n): t for n, t in tensors.items() if _may_be_vae(n)}, config)}

    with init_empty_weights(include_buffers=False):
        vae: Any = AutoencoderKL.from_config(dict(config))
    _fill({"vae": vae}, file, convert, LoadTarget(dtype, dtype, device, mapped))
    return vae


def _load_single_file(
    path: Path,
    target: LoadTarget,
    cache_dir: Path | None,
    prediction_type: PredictionType | None,
    beside: tuple[str, ...],
) -> StableDiffusion:
    file = opened(path)
    file.outline = {name: tensor for name, tensor in file.outline.items() if not name.startswith(beside)}
    known = recognise_file(file.outline, file.metadata, path)
    packed = packed_configs(file.metadata, path)
    if packed is None:
        check_width(file.outline, known.family, path)
    declared_type: PredictionType | None = known.prediction_type or (packed or {}).get("scheduler", {}).get(
        "prediction_type"
    )
    notes = []
    if declared_type is None and prediction_type is None and known.family is Family.SD2:
        notes.append(
            f"'{path.name}' does not say whether it predicts noise or velocity; noise (epsilon) is assumed. "
            "Set `v_parameterization` for the 768 pixel models of Stable Diffusion 2."
        )
    kind: PredictionType = prediction_type or declared_type or "epsilon"
    configs = packed or standard_configs(known.family, kind)
    tokenizers = family_tokenizers(known.family, configs.get("tokenizer"), cache_dir, path)
    scheduler = dict(configs["scheduler"])
    if known.zero_terminal_snr:
        scheduler |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}

    modules = empty_modules(known.family, configs)
    _fill(modules, file, lambda tensors: from_original(tensors, known.family, configs), target)
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
        says=declared_type,
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


def _fill(
    modules: Mapping[str, torch.nn.Module],
    file: WeightsFile,
    convert: Callable[[Mapping[str, Tensor]], Parts],
    target: LoadTarget,
) -> None:
    """Give modules a file's weights in their target type and place, or say which are missing or of another shape.

    `convert` brings a file's names and shapes to the modules'; it looks at each tensor alone, so that it can be asked
    for a piece at a time. What is wrong is seen from names and shapes, before any weight is read.
    """
    outline = convert(file.outline)
    for part, module in modules.items():
        _check_fit(module, outline[part], f"{part} of '{file.path}'")
    wanted = {part: set(module.state_dict()) for part, module in modules.items()}
    loaded: Parts = {part: {} for part in modules}
    for piece in file.pieces(mapped=target.mapped):
        for part, tensors in convert(piece).items():
            # Copies, even in the same type: weights that stay mapped to the file would change when it is replaced.
            loaded[part] |= {
                name: tensor.to(target.device, target.dtype_of(part), copy=True)
                for name, tensor in tensors.items()
                if name in wanted[part]
            }
    for part, module in modules.items():
        module.load_state_dict(loaded.pop(part), assign=True)
        module.to(target.device)  # buffers, which no file holds


def _check_fit(module: torch.nn.Module, tensors: Tensors, what: str) -> None:
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


def opened(path: Path) -> WeightsFile:
    if path.suffix.lower() not in FILE_SUFFIXES:
        raise UserError(f"'{path}' is no weights file: expected is a name that ends in {', '.join(FILE_SUFFIXES)}.")
    return open_weights(path)


def packed_configs(metadata: Mapping[str, str], path: Path) -> dict[str, dict[str, Any]] | None:
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


def _in_vae(name: str) -> str:
    return name.removeprefix(VAE)


def _how_to_name(path: Path) -> str:
    """The two usual mistakes: a name on the Hugging Face Hub, and a file that lies elsewhere."""
    if len(path.parts) == 2 and not path.is_absolute() and not path.suffix and not path.parent.exists():
        return (
            "If this is a name on the Hugging Face Hub: nothing is downloaded here. "
            f"Run `hf download {path.as_posix()} --local-dir DIR` and give DIR."
        )
    return "Give the path of a diffusers folder, or of a .safetensors or .ckpt file."
