"""LoRA and LoCon: a low-rank update beside the linear layers and convolutions of a frozen model.

    W x   becomes   W x + multiplier * (alpha / rank) * B A x        (Hu et al. 2021, https://arxiv.org/abs/2106.09685)

A is `lora_down`, B is `lora_up`; B starts at zero, so that a new network changes nothing. For a k x k convolution
(LoCon) A carries the kernel and B is 1 x 1. A module's name is its path in the model, with "_" for ".".

A network module by the contract of kohya's trainers: it runs there too, and so knows only torch and safetensors.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
from typing import Any, Callable

import safetensors.torch
import torch
from torch import nn

from networks.lora_arguments import OPTIONS as OPTIONS
from networks.lora_arguments import block_index, read_arguments

logger = logging.getLogger(__name__)

UNET_TARGETS = ("Transformer2DModel",)  # names of classes, so that it makes no difference whose U-Net it is
UNET_CONV_TARGETS = ("ResnetBlock2D", "Downsample2D", "Upsample2D")
TEXT_ENCODER_TARGETS = ("CLIPAttention", "CLIPSdpaAttention", "CLIPMLP")


class LoRAModule(nn.Module):
    """B A beside one layer. It takes the layer's place by replacing its `forward`, and keeps the old one."""

    alpha: torch.Tensor

    def __init__(self, lora_name, org_module, multiplier=1.0, lora_dim=4, alpha=1.0,
                 dropout=0.0, rank_dropout=0.0, module_dropout=0.0):  # fmt: skip
        super().__init__()
        self.lora_name = lora_name
        self.lora_dim = lora_dim
        if isinstance(org_module, nn.Conv2d):
            shape: Any = (org_module.kernel_size, org_module.stride, org_module.padding, org_module.dilation)
            self.lora_down = nn.Conv2d(org_module.in_channels, lora_dim, *shape, bias=False)
            self.lora_up = nn.Conv2d(lora_dim, org_module.out_channels, 1, bias=False)
        else:
            self.lora_down = nn.Linear(org_module.in_features, lora_dim, bias=False)
            self.lora_up = nn.Linear(lora_dim, org_module.out_features, bias=False)
        nn.init.kaiming_uniform_(self.lora_down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_up.weight)
        self.register_buffer("alpha", torch.tensor(float(alpha or lora_dim)))  # always float32: it is part of the file
        self.scale = float(self.alpha) / lora_dim
        self.multiplier = multiplier
        self.enabled = True
        self.dropout, self.rank_dropout, self.module_dropout = dropout, rank_dropout, module_dropout
        self.org_module_ref: list[Any] = [org_module]  # in a list: the layer must not become part of this module

    def apply_to(self):
        self.org_forward = self.org_module_ref[0].forward
        self.org_module_ref[0].forward = self.forward

    def forward(self, x):
        out = self.org_forward(x)
        if not self.enabled or self.multiplier == 0:
            return out
        if not self.training:
            return torch.add(out, self.lora_up(self.lora_down(x)), alpha=self.multiplier * self.scale)
        if self.module_dropout and torch.rand(1) < self.module_dropout:
            return out
        h = self.lora_down(x)  # (batch, ..., rank), or (batch, rank, height, width) of a convolution
        if self.dropout:
            h = nn.functional.dropout(h, p=self.dropout)
        if self.rank_dropout:
            kept = torch.rand((h.shape[0], self.lora_dim), device=h.device) > self.rank_dropout
            ones = (1,) * (h.dim() - 2)
            shape = (-1, self.lora_dim, *ones) if isinstance(self.lora_down, nn.Conv2d) else (-1, *ones, self.lora_dim)
            h = h * (kept / (1 - self.rank_dropout)).to(h.dtype).view(shape)
        return torch.add(out, self.lora_up(h), alpha=self.multiplier * self.scale)

    def delta(self, device=None):
        """(alpha / rank) B A in float32, in the shape of the layer's weight."""
        up, down = (m.weight.detach().to(device, torch.float32) for m in (self.lora_up, self.lora_down))
        return (up.flatten(1) @ down.flatten(1)).view_as(self.org_module_ref[0].weight) * self.scale

    @torch.no_grad()
    def merge(self, device=None):
        """Add the update to the layer's own weight: computed in float32, kept in the weight's dtype and place."""
        weight = self.org_module_ref[0].weight
        device = device or weight.device
        weight.copy_(weight.to(device, torch.float32) + self.multiplier * self.delta(device))

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self.scale = float(self.alpha) / self.lora_dim  # a file brings its own alpha


def is_sdxl(text_encoder, unet):
    two = isinstance(text_encoder, (list, tuple)) and len(text_encoder) > 1
    return two or hasattr(unet, "add_embedding") or hasattr(unet, "label_emb")  # diffusers' and the original U-Net


class LoRANetwork(nn.Module):
    """All LoRA modules of a model's text encoders and U-Net.

    `choose(lora_name, is_wide_conv)` gives the rank and alpha of a module, or None where there is to be none.
    """

    def __init__(self, text_encoder, unet, multiplier, arguments, choose: Callable, with_conv: bool):
        super().__init__()
        self.multiplier = multiplier
        self.arguments = arguments
        self.frozen = []  # parameters whose learning rate is 0: saved, not trained
        encoders = list(text_encoder) if isinstance(text_encoder, (list, tuple)) else [text_encoder]
        self.text_encoder_loras = []
        for i, encoder in enumerate(encoders):
            prefix = f"lora_te{i + 1}" if len(encoders) > 1 else "lora_te"
            self.text_encoder_loras += self._create(prefix, encoder, TEXT_ENCODER_TARGETS, choose)
        targets = UNET_TARGETS + UNET_CONV_TARGETS if with_conv else UNET_TARGETS
        self.unet_loras = self._create("lora_unet", unet, targets, choose)
        if not self.loras:
            raise ValueError("there is nothing to train: no layer of this model matches, or every rank is 0")
        logger.info(f"LoRA: {len(self.text_encoder_loras)} text encoder and {len(self.unet_loras)} U-Net modules")

    def _create(self, prefix, root, targets, choose):
        loras = {}
        for path, container in root.named_modules() if root is not None else ():
            if type(container).__name__ not in targets:
                continue
            for child_path, child in container.named_modules():
                if not isinstance(child, (nn.Linear, nn.Conv2d)):
                    continue
                name = f"{prefix}.{path}.{child_path}".replace("..", ".").replace(".", "_")
                is_wide_conv = isinstance(child, nn.Conv2d) and child.kernel_size != (1, 1)
                chosen = choose(name, is_wide_conv)
                if chosen and name not in loras:
                    rank, alpha = chosen
                    loras[name] = self.make_module(name, child, rank, alpha)
        return list(loras.values())

    def make_module(self, name, layer, rank, alpha):
        """The module beside one layer."""
        return LoRAModule(name, layer, self.multiplier, rank, alpha, *self.arguments.dropouts)

    @property
    def loras(self):
        return self.text_encoder_loras + self.unet_loras

    def apply_to(self, text_encoder, unet, apply_text_encoder=True, apply_unet=True):
        if not apply_text_encoder:
            self.text_encoder_loras = []
        if not apply_unet:
            self.unet_loras = []
        if not self.loras:
            raise ValueError("there is nothing to train: this network has no modules in the part that is trained")
        for lora in self.loras:
            lora.apply_to()
            self.add_module(lora.lora_name, lora)

    def set_multiplier(self, multiplier):
        self.multiplier = multiplier
        for lora in self.loras:
            lora.multiplier = multiplier

    def set_enabled(self, is_enabled):
        for lora in self.loras:
            lora.enabled = is_enabled

    # --- training

    def enable_gradient_checkpointing(self):
        """Nothing to do: what is kept for the backward pass belongs to the model's own blocks."""

    def prepare_optimizer_params(self, text_encoder_lr, unet_lr, default_lr=None):
        """Parameter groups and their names: text encoders first; where a rate is 0 or None there is no group."""
        groups, names = [], []
        self.frozen = []

        def add(name, loras, lr, ratio):
            by_part = {"": [], " plus": []}
            for lora in loras:
                by_part[""].append(lora.lora_down.weight)
                by_part[" plus" if ratio else ""].append(lora.lora_up.weight)
            for part, parameters in by_part.items():
                if parameters and not lr:
                    self.frozen += parameters
                elif parameters:
                    groups.append({"params": parameters, "lr": lr * ratio if part else lr})
                    names.append(name + part)

        encoders = {}
        for lora in self.text_encoder_loras:
            encoders.setdefault(lora.lora_name.split("_")[1], []).append(lora)  # te, or te1 and te2
        lrs = list(text_encoder_lr) if isinstance(text_encoder_lr, (list, tuple)) else [text_encoder_lr]
        lrs = [default_lr if lr is None else lr for lr in lrs or [None]]
        lrs = (lrs + lrs[-1:] * len(encoders))[: len(encoders)]  # one rate is meant for all encoders
        if len(set(lrs)) == 1:
            encoders = {"": self.text_encoder_loras}
        for (encoder, loras), lr in zip(encoders.items(), lrs, strict=False):
            add(f"textencoder {encoder[2:]}".strip(), loras, lr, self.arguments.text_encoder_ratio)

        unet_lr = default_lr if unet_lr is None else unet_lr
        weights, ratio = self.arguments.lr_weights, self.arguments.unet_ratio
        if weights is None:
            add("unet", self.unet_loras, unet_lr, ratio)
        else:
            blocks = {}
            for lora in self.unet_loras:
                blocks.setdefault(block_index(lora.lora_name, self.arguments.sdxl), []).append(lora)
            for block, loras in blocks.items():
                add(f"unet_block{block}", loras, (unet_lr or 0) * weights[block], ratio)
        return groups, names

    prepare_optimizer_params_with_multiple_te_lrs = prepare_optimizer_params

    def prepare_grad_etc(self, text_encoder, unet):
        self.requires_grad_(True)
        for parameter in self.frozen:
            parameter.requires_grad_(False)

    def on_epoch_start(self, text_encoder, unet):
        self.train()

    def get_trainable_params(self):
        return self.parameters()

    @torch.no_grad()
    def apply_max_norm_regularization(self, max_norm_value, device):
        """Shrink every update whose Frobenius norm is above the limit. Returns (number shrunk, mean norm, largest)."""
        norms = []
        for lora in self.loras:
            up, down = (m.weight.to(device, torch.float32).flatten(1) for m in (lora.lora_up, lora.lora_down))
            squared = ((up.T @ up) * (down @ down.T)).sum()  # ||B A||^2 = <B'B, A A'>: r x r, never the full product
            norms.append(squared.clamp(min=0).sqrt() * lora.scale)
        norms = torch.stack(norms)
        ratios = (max_norm_value / norms.clamp(min=1e-12)).clamp(max=1.0)
        for lora, ratio in zip(self.loras, ratios.tolist(), strict=True):
            if ratio < 1:
                lora.lora_up.weight *= ratio**0.5
                lora.lora_down.weight *= ratio**0.5
        norms = norms * ratios
        return int((ratios < 1).sum()), norms.mean().item(), norms.max().item()

    # --- files

    def load_weights(self, file):
        """Take the weights of a file. ValueError if it is another network's; names that differ are in the result."""
        tensors = read_file(file)
        own = self.state_dict()
        matched = {name: tensor for name, tensor in tensors.items() if name in own}
        if not matched:
            raise ValueError(
                f"no tensor of {file} belongs to this network. The file has for example "
                f"{', '.join(list(tensors)[:3])}; the network {', '.join(list(own)[:3])}. "
                f"It was made for another model or by another network module."
            )
        for name, tensor in matched.items():
            here = own[name]  # a 1 x 1 convolution in one program is a linear layer in another: (out, in) either way
            if tensor.numel() != here.numel() or (here.dim() and tensor.shape[:1] != here.shape[:1]):
                ours, theirs = (t.shape[0] if ".lora_up." in name else t[:1].numel() for t in (here, tensor))
                hint = "set network_dim and conv_dim as in the file, or use dim_from_weights"
                if ours != theirs:  # what is no rank comes from the model
                    hint = "the file was made for another model"
                raise ValueError(f"{name} is {tuple(tensor.shape)} in {file}, but {tuple(here.shape)} here: {hint}")
        for lora in self.loras:  # a file without alphas means scale 1
            if f"{lora.lora_name}.lora_down.weight" in matched:
                matched.setdefault(f"{lora.lora_name}.alpha", torch.tensor(float(lora.lora_dim)))
        return self.load_state_dict({k: t.reshape(own[k].shape) for k, t in matched.items()}, strict=False)

    def tensors_to_save(self):
        """The tensors of a file by name."""
        return self.state_dict()

    def save_weights(self, file, dtype, metadata):
        """Write the tensors in `dtype` (None: as they are; alphas stay float32) as .safetensors, else as torch does."""
        tensors = {}
        for name, tensor in self.tensors_to_save().items():
            tensor = tensor.detach().to("cpu", copy=True)
            tensors[name] = tensor.to(dtype or tensor.dtype).contiguous() if tensor.dim() else tensor.float()
        if os.path.splitext(file)[1] == ".safetensors":
            metadata = dict(metadata or {})
            safetensors.torch.save_file(tensors, file, {**metadata, **hashes(tensors, metadata)})
        else:
            torch.save(tensors, file)

    # --- inference and merging

    def is_mergeable(self):
        return True

    def merge_to(self, text_encoder, unet, weights_sd, dtype=None, device=None):
        """Add the updates in `weights_sd` to the model's own weights, in those weights' dtype."""
        for lora in self.loras:
            own = {key: weights_sd.get(f"{lora.lora_name}.{key}") for key in lora.state_dict()}
            if own["lora_down.weight"] is None:
                continue
            if own["alpha"] is None:
                own["alpha"] = torch.tensor(float(lora.lora_dim))
            lora.load_state_dict({key: t.reshape(lora.state_dict()[key].shape) for key, t in own.items()})
            lora.merge(device)

    def backup_weights(self):
        self.backup = [lora.org_module_ref[0].weight.detach().clone() for lora in self.loras]

    @torch.no_grad()
    def restore_weights(self):
        for lora, weight in zip(self.loras, self.backup, strict=True):
            lora.org_module_ref[0].weight.copy_(weight)
        self.set_enabled(True)

    def pre_calculation(self):
        """Merge into the model for fast inference; `restore_weights` undoes it."""
        for lora in self.loras:
            lora.merge()
        self.set_enabled(False)


def read_file(file):
    if os.path.splitext(file)[1] == ".safetensors":
        return safetensors.torch.load_file(file)
    return torch.load(file, map_location="cpu", weights_only=True)


def hashes(tensors, metadata):
    """The two hashes by which web UIs know a file: of all tensor bytes, and the older one of a 64 KiB window."""
    training = {key: value for key, value in metadata.items() if key.startswith("ss_")}
    content = safetensors.torch.save(tensors, training)
    start = 8 + int.from_bytes(content[:8], "little")
    legacy = hashlib.sha256(content[0x100000:0x110000]).hexdigest()[:8]
    return {"sshs_model_hash": hashlib.sha256(content[start:]).hexdigest(), "sshs_legacy_hash": legacy}


def create_network(
    multiplier, network_dim, network_alpha, vae, text_encoder, unet, neuron_dropout=None, **kwargs
) -> LoRANetwork:
    arguments = read_arguments(is_sdxl(text_encoder, unet), network_dim, network_alpha, neuron_dropout, kwargs)
    with_conv = arguments.conv_ranks is not None
    return LoRANetwork(text_encoder, unet, multiplier, arguments, arguments.rank_and_alpha, with_conv)


def create_network_from_weights(
    multiplier, file, vae, text_encoder, unet, weights_sd=None, for_inference=False, neuron_dropout=None, **kwargs
):
    """A network with the ranks and alphas of a file. Its weights are loaded later. Returns (network, tensors)."""
    tensors = read_file(file) if weights_sd is None else weights_sd
    ranks = {}
    for key, tensor in tensors.items():
        name, _, part = key.partition(".")
        if part == "lora_down.weight":
            alpha = tensors.get(f"{name}.alpha")
            ranks[name] = (tensor.shape[0], float(tensor.shape[0] if alpha is None else alpha))
    if not ranks:
        raise ValueError(f"{file} holds no LoRA: it has for example {', '.join(list(tensors)[:3]) or 'no tensors'}")
    arguments = read_arguments(is_sdxl(text_encoder, unet), None, None, neuron_dropout, kwargs)
    network = LoRANetwork(text_encoder, unet, multiplier, arguments, lambda name, _: ranks.get(name), with_conv=True)
    if for_inference:
        network.eval()
    return network, tensors
