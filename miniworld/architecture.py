"""The three networks of the mini model: the classes of Stable Diffusion 1.x at tiny size.

Everything that Stable Diffusion 1.x fixes is kept (8x smaller latents of 4 channels, cross attention at every
resolution of the U-Net, a CLIP text encoder with its end-of-text padding, the noise schedule, 0.18215); only the
widths and depths are small: 5.9 M parameters in the U-Net, 3.1 M in the VAE, 0.6 M in the text encoder.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

IMAGE_SIZE = 128  # pixels
LATENT_SIZE = 16  # 128 / 8
SCALING_FACTOR = 0.18215  # latents given to the U-Net = posterior * this; the VAE is scaled so that they have unit std
MAX_TOKENS = 77
TEXT_WIDTH = 128

VAE_WIDTHS = (16, 32, 96, 128)
UNET_WIDTHS = (64, 96, 128)

# CLIP's scales: outputs of norm about sqrt(width), token rows much smaller. A row starts at norm 0.02 * sqrt(128) =
# 0.23 and is kept under the bound below for good.
TOKEN_ROW_STD = 0.02
TOKEN_ROW_BOUND = 0.30

SCHEDULER_CONFIG: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def build_vae(widths: tuple[int, ...] = VAE_WIDTHS, groups: int = 8) -> AutoencoderKL:
    """The autoencoder: one halving less than it has widths, so four widths give Stable Diffusion's factor of 8."""
    levels = len(widths)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * levels,  # type: ignore[arg-type]
        up_block_types=("UpDecoderBlock2D",) * levels,  # type: ignore[arg-type]
        block_out_channels=widths,  # type: ignore[arg-type]
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=groups,
        sample_size=IMAGE_SIZE,
        scaling_factor=SCALING_FACTOR,
    )


def build_unet(widths: tuple[int, ...] = UNET_WIDTHS, groups: int = 16) -> UNet2DConditionModel:
    """The denoiser: one layer a block, cross attention in every block, and every residual branch silent at the start.

    The last layer of each residual block, of each transformer and of the whole network starts at zero, so that the
    untrained network predicts zero noise and early training is stable at a high learning rate.
    """
    levels = len(widths)
    unet = UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        block_out_channels=widths,
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,  # diffusers reads this as the number of heads for SD1.x
        norm_num_groups=groups,
    )
    for name, module in unet.named_modules():
        if name.endswith(("conv2", "proj_out")) or name == "conv_out":
            nn.init.zeros_(module.weight)  # type: ignore[arg-type]
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    return unet


def build_text_encoder(vocabulary_size: int, layers: int = 2) -> CLIPTextModel:
    """CLIP's text transformer; the last two entries of the vocabulary are start-of-text and end-of-text."""
    config = CLIPTextConfig(
        vocab_size=vocabulary_size,
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        hidden_act="quick_gelu",
        bos_token_id=vocabulary_size - 2,
        eos_token_id=vocabulary_size - 1,
        pad_token_id=vocabulary_size - 1,
    )
    encoder = CLIPTextModel(config)
    with torch.no_grad():
        token_rows(encoder).normal_(0.0, TOKEN_ROW_STD)
    keep_clip_scales(encoder)
    return encoder


def token_rows(encoder: Any) -> Tensor:
    """The token embedding matrix, (vocabulary, width)."""
    return encoder.get_input_embeddings().weight  # type: ignore[return-value]


@torch.no_grad()
def keep_clip_scales(encoder: Any, bound: float = TOKEN_ROW_BOUND) -> None:
    """Bring a text encoder back to CLIP's scales; called after every optimizer step.

    Token rows over the bound are scaled back to it. The last layer norm is scaled so that an output's expected squared
    norm, the sum of gain^2 + bias^2 over the channels, is the width: a norm of about 11.3, some forty rows.
    """
    rows = token_rows(encoder)
    norms = rows.norm(dim=1, keepdim=True)
    rows.mul_((bound / norms.clamp_min(1e-12)).clamp(max=1.0))
    gain, bias = encoder.final_layer_norm.weight, encoder.final_layer_norm.bias
    scale = (len(gain) / (gain.square().sum() + bias.square().sum())).sqrt()
    gain.mul_(scale)
    bias.mul_(scale)


def build_scheduler() -> DDIMScheduler:
    return DDIMScheduler(**SCHEDULER_CONFIG)


def use_plain_attention(*models: Any) -> None:
    """Matrix product, softmax, matrix product: on a CPU without AMX the fused kernel's bf16 backward is 1.5 times
    slower (19.8 against 12.8 ms a picture for the U-Net's forward and backward)."""
    for model in models:
        if isinstance(model, CLIPTextModel):
            model.config._attn_implementation = "eager"
        else:
            model.set_attn_processor(AttnProcessor())
