"""What a file or a folder of weights is: a family of Stable Diffusion, or another thing that was given by mistake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from library.config.weights_header import EMBEDDING_MARKS, NETWORK_MARKS
from library.errors import UserError
from library.models.family import TEXT_WIDTHS, Family, PredictionType
from library.models.single_file import SD1_TEXT_SHORT, SD2_TEXT, SDXL_TEXT_1, SDXL_TEXT_2, UNET, VAE

_CROSS_ATTENTION_KEY = "attn2.to_k.weight"
_EXPECTED = "Expected is a Stable Diffusion 1, 2 or XL model: a diffusers folder, or one .safetensors or .ckpt file."

# The first line whose marks occur in a file's tensor names says what it is.
_OTHER_THINGS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        NETWORK_MARKS,
        "a LoRA or another network file (give it as `network_weights` or `base_weights`)",
    ),
    (EMBEDDING_MARKS, "a textual inversion embedding"),
    (("control_model.", "controlnet_cond_embedding."), "a ControlNet"),
    (("double_blocks.", "single_blocks."), "a Flux model, which is not supported"),
    (("joint_blocks.", "joint_transformer_blocks."), "a Stable Diffusion 3 model, which is not supported"),
)
_PARTS_ALONE: tuple[tuple[tuple[str, ...], str], ...] = (
    (("down_blocks.", "up_blocks.", "mid_block."), "the U-Net of a diffusers folder (give the whole folder)"),
    (("encoder.down_blocks.", "encoder.down.", "decoder.up"), "a VAE (give it as `vae`, beside a whole model)"),
    (("text_model.", "embeddings.token_embedding", "transformer.resblocks."), "a text encoder alone"),
    (("clip_l", "clip_g"), "a textual inversion embedding"),
)


FLOW_NAMES = ("rectified_flow", "flow_prediction", "flow_matching", "flow", "rf")
"""What files of rectified-flow models call what they predict."""


@dataclass(frozen=True)
class Recognised:
    """A single file's family, and what it says of its training; None where it says nothing."""

    family: Family
    prediction_type: PredictionType | None
    zero_terminal_snr: bool


def recognise_file(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], path: Path, *, only_plain: bool = True
) -> Recognised:
    """Tell a single file's family by the names of its tensors, or raise a UserError that says what it looks like.

    `only_plain` refuses models that read more than noisy latents, such as those for inpainting.
    """
    for marks, thing in _OTHER_THINGS:
        if any(mark in name for name in tensors for mark in marks):
            raise UserError(f"'{path}' looks like {thing}. {_EXPECTED}")
    family = _family_of_names(tensors)
    if family is None:
        raise UserError(f"'{path}' {_what_it_looks_like(tensors)}. {_EXPECTED}")
    missing = [part for prefix, part in ((UNET, "U-Net"), (VAE, "VAE")) if not _has(tensors, prefix)]
    if missing:
        raise UserError(f"'{path}' holds no {' and no '.join(missing)}: it is a part of a model. {_EXPECTED}")
    if only_plain:
        _check_input_channels(tensors, path)
    return Recognised(family, _prediction_type(tensors, metadata), zero_terminal_snr="ztsnr" in tensors)


def check_width(tensors: Mapping[str, Tensor], family: Family, path: Path) -> None:
    """Refuse a file without configs whose width is not its family's: no standard config could hold it."""
    width = next((int(t.shape[1]) for name, t in tensors.items() if name.endswith(_CROSS_ATTENTION_KEY)), None)
    if width != TEXT_WIDTHS[family]:
        raise UserError(
            f"'{path}' is laid out like {family.name} but its cross attention reads {width} numbers instead of "
            f"{TEXT_WIDTHS[family]}, and the file carries no `diffusers_config` metadata that would describe it. "
            "Give the model as a diffusers folder."
        )


def family_of_folder(unet: Mapping[str, Any], text_encoder: Mapping[str, Any], has_second_encoder: bool) -> Family:
    """Tell a folder's family by its width; a model of another width by the choices that only one family makes."""
    if has_second_encoder or unet.get("addition_embed_type") == "text_time":
        return Family.SDXL
    for family, width in TEXT_WIDTHS.items():
        if unet.get("cross_attention_dim") == width:
            return family
    return Family.SD2 if text_encoder.get("hidden_act") == "gelu" else Family.SD1


def _family_of_names(tensors: Mapping[str, Tensor]) -> Family | None:
    if _has(tensors, SDXL_TEXT_1) and _has(tensors, SDXL_TEXT_2):
        return Family.SDXL
    if _has(tensors, SD2_TEXT):
        return Family.SD2
    if _has(tensors, SD1_TEXT_SHORT):
        return Family.SD1
    return None


def _what_it_looks_like(tensors: Mapping[str, Tensor]) -> str:
    if _has(tensors, "conditioner.embedders.0.model."):
        return "looks like the SDXL refiner, which cannot be trained here"
    if _has(tensors, UNET):
        return "holds a U-Net but no text encoder that is known here: it is a part of a model"
    for marks, thing in _PARTS_ALONE:
        if any(name.startswith(marks) for name in tensors):
            return f"looks like {thing}"
    if not tensors:
        return "holds no tensors"
    examples = ", ".join(f"`{name}`" for name in list(tensors)[:3])
    return f"holds {len(tensors)} tensors such as {examples}, which are none of a Stable Diffusion model's"


def _check_input_channels(tensors: Mapping[str, Tensor], path: Path) -> None:
    first = tensors.get(f"{UNET}input_blocks.0.0.weight")
    if first is not None and first.shape[1] != 4:
        kind = {9: "an inpainting model", 8: "an image editing model"}.get(int(first.shape[1]), "another kind of model")
        raise UserError(
            f"'{path}' is {kind}: its U-Net reads {first.shape[1]} channels instead of 4. "
            "Give the plain text to image model that it was made from."
        )


def _prediction_type(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> PredictionType | None:
    prediction = metadata.get("modelspec.prediction_type", "")
    if prediction in FLOW_NAMES:
        return "flow_prediction"
    if "v_pred" in tensors or prediction in ("v", "v_prediction"):
        return "v_prediction"
    if prediction == "epsilon":
        return "epsilon"
    if metadata.get("modelspec.architecture", "").endswith("768-v"):
        return "v_prediction"
    return None


def _has(tensors: Mapping[str, Tensor], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in tensors)
