"""The blind restorer B = {G, E} (eq. 4): a U-Net G steered by a ControlNet E that sees the degraded picture.

E is DiffBIR's IRControlNet: a copy of G's encoder and middle that reads the noisy latent and the latent of the degraded
picture side by side (4 + 4 channels), and adds what it finds to G's skip connections. E reads the null text always;
only G is told who is in the picture.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

from library.models.family import StableDiffusion
from library.models.text import TextConditioner

LATENT_CHANNELS = 4


class _NoEmbedding(nn.Module):
    """In place of the network by which other ControlNets read a picture's pixels: here it comes as latents."""

    def forward(self, condition: Tensor) -> Tensor:
        return condition.new_zeros(())


class IRControlNet(ControlNetModel):
    """E: noisy latents and condition latents (each 4 channels) to one control for each skip connection and the middle.

    Its keys are DiffBIR's, one for one; `restoration.system.layouts` has the names.
    """

    @functools.wraps(ControlNetModel.__init__)  # `from_config` reads the names of the arguments
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.controlnet_cond_embedding: nn.Module = _NoEmbedding()

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        controlnet_cond: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """`sample` and `controlnet_cond` are (batch, 4, height/8, width/8)."""
        both = torch.cat([sample, controlnet_cond], dim=1)
        return super().forward(both, timestep, encoder_hidden_states, controlnet_cond, *args, **kwargs)

    @classmethod
    def for_unet(cls, unet: UNet2DConditionModel) -> IRControlNet:
        """The E that fits a G, with random weights: all of its architecture follows from G's."""
        return cls.for_config(unet.config)

    @classmethod
    def for_config(cls, config: Mapping[str, Any]) -> IRControlNet:
        """The same for the config of a G, or of an E."""
        known = inspect.signature(ControlNetModel.__init__).parameters
        own: dict[str, Any] = {name: value for name, value in config.items() if name in known}
        own |= {"in_channels": 2 * LATENT_CHANNELS, "conditioning_channels": LATENT_CHANNELS}
        return cast(IRControlNet, cls.from_config(own))

    @classmethod
    def copy_of(cls, unet: UNet2DConditionModel) -> IRControlNet:
        """A new E: G's weights where the names agree, the condition's channels and all outputs 0, so that B is G."""
        encoder = cls.for_unet(unet)
        weights = unet.state_dict()
        copied = {name: weights[name] for name in encoder.state_dict() if name in weights and name != "conv_in.weight"}
        encoder.load_state_dict(copied, strict=False)
        with torch.no_grad():
            first = cast(nn.Conv2d, encoder.conv_in).weight
            first.zero_()[:, :LATENT_CHANNELS] = weights["conv_in.weight"]
            for convolution in [*encoder.controlnet_down_blocks, encoder.controlnet_mid_block]:
                for parameter in convolution.parameters():
                    parameter.zero_()
        nn.Module.to(encoder, unet.dtype)  # diffusers' own `to` warns of nothing here
        return encoder


@dataclass(frozen=True)
class Controls:
    """What E says: one tensor for each of G's skip connections, and one for its middle (13 in SD 2.1)."""

    down: tuple[Tensor, ...]
    middle: Tensor

    def to(self, dtype: torch.dtype) -> Controls:
        return Controls(tuple(control.to(dtype) for control in self.down), self.middle.to(dtype))

    def __getitem__(self, rows: slice) -> Controls:
        """Some of the batch."""
        return Controls(tuple(control[rows] for control in self.down), self.middle[rows])


class System:
    """B = {G, E} with the VAE and the text encoder that belong to G.

    `null` (1, tokens, width) is the text encoder's reading of "", what E is given at every evaluation; given, it saves
    the reading.
    """

    def __init__(self, model: StableDiffusion, encoder: IRControlNet, null: Tensor | None = None) -> None:
        self.model = model
        self.encoder = encoder
        self.null = TextConditioner(model).encode([""]).hidden.float().cpu() if null is None else null

    @property
    def unet(self) -> UNet2DConditionModel:
        """G"""
        return self.model.unet

    def text(self, prompts: list[str]) -> Tensor:
        """What G is told: (batch, tokens, width) float32 on the CPU."""
        return TextConditioner(self.model).encode(prompts).hidden.float().cpu()

    def condition(self, pictures: Tensor) -> Tensor:
        """c(I) of degraded (and cleaned) pictures in [0, 1]: see `condition_latents`."""
        return condition_latents(self.model.vae, pictures)

    def controls(self, noisy: Tensor, timesteps: Tensor, condition: Tensor) -> Controls:
        """E's answer to x_t and c(I): computed once a step, whatever number of texts G then reads."""
        device, dtype = noisy.device, self.encoder.dtype
        null = self.null.to(device, dtype).expand(len(noisy), -1, -1)
        down, middle = self.encoder(noisy.to(dtype), timesteps, null, condition.to(device, dtype), return_dict=False)
        return Controls(tuple(down), middle)

    def predict(self, noisy: Tensor, timesteps: Tensor, text: Tensor, controls: Controls | None) -> Tensor:
        """G(x_t, t, text) with E's controls added to its skip connections, or without any (eq. 5's G alone)."""
        dtype = self.unet.dtype
        residuals = {}
        if controls is not None:
            controls = controls.to(dtype)
            residuals = {
                "down_block_additional_residuals": controls.down,
                "mid_block_additional_residual": controls.middle,
            }
        return self.unet(noisy.to(dtype), timesteps, text.to(noisy.device, dtype), return_dict=False, **residuals)[0]

    def __call__(self, noisy: Tensor, timesteps: Tensor, text: Tensor, condition: Tensor) -> Tensor:
        """B(x_t, text, I): one evaluation of the system.

        `noisy` and `condition` are (batch, 4, height/8, width/8), `text` (batch, tokens, width) is what G reads.
        """
        return self.predict(noisy, timesteps, text, self.controls(noisy, timesteps, condition))


@torch.no_grad()
def condition_latents(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """c(I) = scaling factor * mode(VAE(2 I - 1)) of pictures (batch, 3, height, width) in [0, 1].

    The mode and not a sample: the same picture always gives the same latents (batch, 4, height/8, width/8).
    """
    images = (2.0 * pictures - 1.0).to(vae.device, vae.dtype)
    posterior = cast(Any, vae.encode(images)).latent_dist
    return posterior.mode() * float(vae.config["scaling_factor"])
