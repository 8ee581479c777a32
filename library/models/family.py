"""The model that everything else passes around: one Stable Diffusion of any family, with its parts side by side."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

PredictionType = Literal["epsilon", "v_prediction", "flow_prediction"]
PREDICTION_NAMES: dict[PredictionType, str] = {
    "epsilon": "epsilon",
    "v_prediction": "v",
    "flow_prediction": "rectified_flow",
}
"""What `modelspec.prediction_type` calls each."""
TextEncoder = CLIPTextModel | CLIPTextModelWithProjection


class Family(Enum):
    """A generation of Stable Diffusion: which text encoders it has and how its files are laid out."""

    SD1 = "sd1"
    SD2 = "sd2"
    SDXL = "sdxl"

    @property
    def spoken(self) -> str:
        """As people call it."""
        return {"sd1": "Stable Diffusion 1", "sd2": "Stable Diffusion 2", "sdxl": "SDXL"}[self.value]

    @property
    def text_encoder_names(self) -> tuple[str, ...]:
        """The text encoders' folders in diffusers' layout; the tokenizers' are the same with "tokenizer"."""
        return ("text_encoder", "text_encoder_2") if self is Family.SDXL else ("text_encoder",)


TEXT_WIDTHS = {Family.SD1: 768, Family.SD2: 1024, Family.SDXL: 2048}
"""How wide the text is that the U-Net's cross attention reads: it tells the families apart."""


@dataclass
class StableDiffusion:
    """A U-Net, a VAE, one or two text encoders with their tokenizers, and the noise schedule they were trained with.

    `scheduler_config` is a diffusers scheduler's config; `notes` are sentences about what loading had to assume; `says`
    is the prediction type that the model's files state, None where they state none.
    """

    family: Family
    prediction_type: PredictionType
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoders: list[TextEncoder]
    tokenizers: list[CLIPTokenizer]
    scheduler_config: dict[str, Any]
    source: Path
    notes: list[str] = field(default_factory=list)
    says: PredictionType | None = None

    @property
    def scaling_factor(self) -> float:
        """What the VAE's latents are multiplied with before they reach the U-Net (0.18215, SDXL 0.13025)."""
        return float(self.vae.config["scaling_factor"])

    @property
    def shift_factor(self) -> float:
        """What is taken from the VAE's latents before that: 0 for Stable Diffusion's own VAEs."""
        return float(self.vae.config.get("shift_factor") or 0.0)

    @property
    def is_flow(self) -> bool:
        """Whether it was trained on straight paths (rectified flow) instead of a diffusion's."""
        return self.prediction_type == "flow_prediction"

    @property
    def latent_factor(self) -> int:
        """Pixels per latent in each direction: 8."""
        return 2 ** (len(self.vae.config["block_out_channels"]) - 1)

    @property
    def native_size(self) -> int:
        """Side in pixels of the square pictures the U-Net was trained on (512, 768, 1024; a tiny model's own)."""
        sample_size = self.unet.config["sample_size"]
        side = sample_size if isinstance(sample_size, int) else max(sample_size)
        return int(side) * self.latent_factor

    @property
    def modules(self) -> dict[str, torch.nn.Module]:
        """Every part with weights, under its folder's name in diffusers' layout."""
        texts = dict(zip(self.family.text_encoder_names, self.text_encoders, strict=True))
        return {"unet": self.unet, "vae": self.vae, **texts}

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> StableDiffusion:
        """Move every part, in place."""
        for module in self.modules.values():
            module.to(device=device, dtype=dtype)
        return self
