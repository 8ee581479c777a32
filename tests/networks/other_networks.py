"""Network modules as other trainers have them, small: split modules, and the contract of musubi-tuner.

A `Block` has the layers that matter: q, k and v in one (`qkv`), a plain one, and convolutions in two and three
dimensions. `create_network` answers sd-scripts' contract, `create_arch_network` that of musubi-tuner; both read
`split` (whether qkv is split), `apart` (whether a file keeps the parts apart) and `conv_dim`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

WIDTHS = (8, 8, 4)
"""Outputs of q, k and v."""


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.conv3d = nn.Conv3d(3, 6, 1)
        self.qkv = nn.Linear(6, sum(WIDTHS))
        self.proj = nn.Linear(sum(WIDTHS), 10)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, height, width) to (batch, height * width, 10)."""
        convolved = self.conv(x) + self.conv3d(x.unsqueeze(2)).squeeze(2)
        return self.proj(self.qkv(convolved.flatten(2).mT))


class LoRAModule(nn.Module):
    def __init__(self, name: str, layer: Any, rank: int, alpha: float, widths: tuple[int, ...] | None) -> None:
        super().__init__()
        self.lora_name, self.lora_dim, self.split_dims = name, rank, widths
        if isinstance(layer, nn.Linear) and widths:
            self.lora_down: Any = nn.ModuleList(nn.Linear(layer.in_features, rank, bias=False) for _ in widths)
            self.lora_up: Any = nn.ModuleList(nn.Linear(rank, width, bias=False) for width in widths)
        elif isinstance(layer, nn.Linear):
            self.lora_down = nn.Linear(layer.in_features, rank, bias=False)
            self.lora_up = nn.Linear(rank, layer.out_features, bias=False)
        else:
            kind: Any = type(layer)
            self.lora_down = kind(layer.in_channels, rank, layer.kernel_size, layer.stride, layer.padding, bias=False)
            self.lora_up = kind(rank, layer.out_channels, 1, bias=False)
        for up in self.lora_up if widths else [self.lora_up]:
            nn.init.zeros_(up.weight)
        self.scale = float(alpha) / rank
        self.register_buffer("alpha", torch.tensor(float(alpha)))
        self.multiplier = 1.0
        self.layers = [layer]

    def apply_to(self) -> None:
        layer = self.layers.pop()
        self.base_forward, layer.forward = layer.forward, self.forward  # type: ignore[method-assign]

    def forward(self, x: Tensor) -> Tensor:
        if self.split_dims:
            parts = [up(down(x)) for down, up in zip(self.lora_down, self.lora_up, strict=True)]
            return self.base_forward(x) + self.multiplier * self.scale * torch.cat(parts, -1)
        return self.base_forward(x) + self.multiplier * self.scale * self.lora_up(self.lora_down(x))


class Network(nn.Module):
    """A network whose files have the parts of a split module as one LoRA, as those of sd-scripts for FLUX."""

    def __init__(self, unet: nn.Module, ranks: Mapping[str, tuple[int, float]], split: bool, apart: bool) -> None:
        super().__init__()
        self.split_qkv = split and not apart
        self.text_encoder_loras: list[LoRAModule] = []
        self.unet_loras = [
            LoRAModule(name, layer, *ranks[name], WIDTHS if split and name.endswith("qkv") else None)
            for name, layer in layers_in(unet)
            if name in ranks
        ]

    def apply_to(self, text_encoder: Any, unet: Any, apply_text_encoder: bool = True, apply_unet: bool = True) -> None:
        for lora in self.unet_loras:
            lora.apply_to()
            self.add_module(lora.lora_name, lora)

    def prepare_optimizer_params(self, text_encoder_lr: Any, unet_lr: float, default_lr: float) -> Any:
        return [{"params": list(self.parameters()), "lr": unet_lr or default_lr}], ["unet"]

    def prepare_grad_etc(self, text_encoder: Any, unet: Any) -> None:
        self.requires_grad_(True)

    def on_epoch_start(self, text_encoder: Any, unet: Any) -> None:
        self.train()

    def on_step_start(self, text_encoder: Any, unet: Any) -> None:
        self.steps_started = getattr(self, "steps_started", 0) + 1

    def get_trainable_params(self) -> Iterator[Any]:
        return self.parameters()

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        tensors = super().state_dict(*args, **kwargs)
        if not self.split_qkv:
            return tensors
        for name in [lora.lora_name for lora in self.unet_loras if lora.split_dims]:
            downs = [tensors.pop(f"{name}.lora_down.{i}.weight") for i in range(3)]
            ups = [tensors.pop(f"{name}.lora_up.{i}.weight") for i in range(3)]
            rank, whole, row = ups[0].shape[1], torch.zeros(sum(WIDTHS), sum(up.shape[1] for up in ups)), 0
            for i, up in enumerate(ups):
                whole[row : row + len(up), i * rank : (i + 1) * rank] = up
                row += len(up)
            tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"] = torch.cat(downs), whole
        return tensors

    def load_state_dict(self, state_dict: Any, strict: bool = True) -> Any:
        tensors = dict(state_dict)
        for name in [lora.lora_name for lora in self.unet_loras if lora.split_dims and self.split_qkv]:
            whole, row = tensors.pop(f"{name}.lora_up.weight"), 0
            for i, down in enumerate(tensors.pop(f"{name}.lora_down.weight").chunk(3)):
                rank = len(down)
                tensors[f"{name}.lora_down.{i}.weight"] = down
                up = whole[row : row + WIDTHS[i], i * rank : (i + 1) * rank]
                tensors[f"{name}.lora_up.{i}.weight"] = up
                row += WIDTHS[i]
        return super().load_state_dict(tensors, strict)

    def load_weights(self, file: str) -> Any:
        return self.load_state_dict(load_file(file), False)

    def save_weights(self, file: str, dtype: torch.dtype | None, metadata: Any) -> None:
        tensors = {name: tensor.detach().to("cpu", dtype) for name, tensor in self.state_dict().items()}
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, metadata or None)


class ArchNetwork(Network):
    """The calls that musubi-tuner makes: no text encoder, and an optimizer's groups by one rate."""

    def prepare_optimizer_params(self, unet_lr: float = 1e-4, **kwargs: Any) -> Any:  # type: ignore[override]
        return [{"params": list(self.parameters()), "lr": unet_lr}], ["unet"]

    def prepare_grad_etc(self, unet: Any) -> None:  # type: ignore[override]
        self.requires_grad_(True)

    def on_epoch_start(self, unet: Any) -> None:  # type: ignore[override]
        self.train()

    def on_step_start(self) -> None:  # type: ignore[override]
        self.steps_started = getattr(self, "steps_started", 0) + 1


def layers_in(unet: nn.Module) -> list[tuple[str, Any]]:
    layers = [(name, layer) for name, layer in unet.named_modules() if hasattr(layer, "weight")]
    return [(f"lora_unet_{name.replace('.', '_')}", layer) for name, layer in layers]


def _network(kind: type[Network], rank: Any, alpha: Any, unet: nn.Module, arguments: Mapping[str, Any]) -> Network:
    conv_dim = arguments.get("conv_dim")
    ranks = {
        name: (int(rank), float(alpha)) if isinstance(layer, nn.Linear) else (int(conv_dim or 0), 1.0)
        for name, layer in layers_in(unet)
        if isinstance(layer, nn.Linear) or conv_dim
    }
    return kind(unet, ranks, arguments.get("split") == "True", arguments.get("apart") == "True")


def _ranks_in(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, float]]:
    downs = {name.partition(".")[0]: tensor for name, tensor in tensors.items() if ".lora_down." in name}
    return {name: (len(down), float(tensors[f"{name}.alpha"])) for name, down in downs.items()}


def create_network(
    multiplier, network_dim, network_alpha, vae, text_encoder, unet, neuron_dropout=None, **kwargs
) -> Network:
    return _network(Network, network_dim, network_alpha, unet, kwargs)


def create_network_from_weights(
    multiplier, file, vae, text_encoder, unet, weights_sd=None, for_inference=False, **kwargs
):
    tensors = load_file(file) if weights_sd is None else weights_sd
    apart = any(".lora_down.0." in name for name in tensors)
    return Network(unet, _ranks_in(tensors), split=apart, apart=apart), tensors


def create_arch_network(
    multiplier, network_dim, network_alpha, vae, text_encoders, unet, neuron_dropout=None, **kwargs
) -> ArchNetwork:
    return _network(ArchNetwork, network_dim, network_alpha, unet, kwargs)  # type: ignore[return-value]


def create_arch_network_from_weights(
    multiplier, weights_sd, text_encoders=None, unet=None, for_inference=False, **kwargs
) -> ArchNetwork:
    apart = any(".lora_down.0." in name for name in weights_sd)
    assert unet is not None
    return ArchNetwork(unet, _ranks_in(weights_sd), split=apart, apart=apart)
