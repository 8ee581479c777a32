"""T-LoRA: a LoRA whose rank follows the timestep (Soboleva et al. 2025, https://arxiv.org/abs/2507.05964).

At noisy timesteps a picture's layout is made, and few pictures are soon known by heart there: of R slots,

    r(t) = floor((T - t) / T * (R - r_min)) + r_min

are active at timestep t, the first ones; all of them at t = 0, r_min at the end. The mask is on while the network is
trained. A file is a plain LoRA without it, and a run is measured and drawn without it: that is what people will see.

With an orthogonal start A has orthonormal rows and B orthonormal columns, so that each slot has a direction of its own
from the beginning: of random matrices, or of the layer's own largest singular vectors. The product of the start is
subtracted, so that a new network changes nothing; a file holds both, as 2R slots.

Only the U-Net has timesteps: modules of text encoders are plain. A trainer says the timesteps of a batch by
`on_timesteps(timesteps)`; in one that does not, such as kohya's, they are read from the U-Net's arguments.
"""

from __future__ import annotations

import importlib.util
import math
import os
import sys
import weakref
from typing import TYPE_CHECKING, Any, Callable, Mapping, Optional

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import networks.lora as lora_module
else:
    from networks import lora as lora_module

    if not hasattr(lora_module, "OPTIONS"):
        # Another trainer's own networks.lora comes first on the path there: take the one beside this file.
        beside = os.path.join(os.path.dirname(os.path.abspath(__file__)), "lora.py")
        if not os.path.exists(beside) or os.path.samefile(beside, lora_module.__file__):
            raise ImportError(
                "networks.t_lora works with the networks/lora.py that it came with, and this is another trainer's: put "
                "the folder it came in on PYTHONPATH instead of copying the file"
            )
        spec = importlib.util.spec_from_file_location("networks.lora_beside_t_lora", beside)
        lora_module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(lora_module)

from networks.lora_arguments import read_arguments

LoRAModule, LoRANetwork = lora_module.LoRAModule, lora_module.LoRANetwork
is_sdxl, read_file = lora_module.is_sdxl, lora_module.read_file

STEPS = 1000  # T
STARTS = ("zero", "random", "layer")
OWN_OPTIONS = {
    "t_min_rank": "rank at the noisiest timestep (default: half of the rank)",
    "t_start": "zero: as a LoRA (default); random or layer: orthogonal, from random or the layer's singular vectors",
}
OPTIONS = {**lora_module.OPTIONS, **OWN_OPTIONS}


def active_rank(timesteps: Tensor, rank: int, least: int) -> Tensor:
    """r(t) of each timestep, whole or not: floor((T - t) / T * (R - r_min)) + r_min."""
    return torch.div((STEPS - timesteps) * (rank - least), STEPS, rounding_mode="floor") + least


def mask_of(timesteps: Tensor, rank: int, least: int) -> Tensor:
    """(batch, rank): which slots are active at each timestep."""
    slots = torch.arange(rank, device=timesteps.device)
    return slots < active_rank(timesteps, rank, least).unsqueeze(-1)


class Timesteps:
    """Those of the batch that goes through the U-Net, shared by all modules; None before the first one."""

    def __init__(self, min_rank: Optional[int]) -> None:
        self.min_rank = min_rank
        self.now: Optional[Tensor] = None
        self._masks: dict = {}

    def set(self, timesteps: Tensor) -> None:
        self.now = timesteps.detach().reshape(-1)
        self._masks = {}

    def least(self, rank: int) -> int:
        return min(rank, math.ceil(rank / 2) if self.min_rank is None else self.min_rank)

    def mask(self, rank: int, batch: int, device: Any, dtype: Any) -> Tensor:
        """(batch or 1, rank), made once for each rank. Nothing waits for the device."""
        if self.now is None:
            raise RuntimeError(
                "T-LoRA needs the timesteps of each batch: this trainer neither calls network.on_timesteps, nor does "
                "its U-Net take an argument `timestep` or `timesteps`; train with networks.lora there"
            )
        key = (rank, device, dtype)
        if key not in self._masks:
            mask = mask_of(self.now, rank, self.least(rank))
            self._masks[key] = mask.to(device=device, dtype=dtype, non_blocking=True)
        mask = self._masks[key]
        if mask.shape[0] not in (1, batch):
            raise RuntimeError(
                f"T-LoRA was given {mask.shape[0]} timesteps for a batch of {batch}: the trainer must call "
                "network.on_timesteps with those of the batch that comes next"
            )
        return mask


class TLoRAModule(LoRAModule):
    """B (mask(t) A x), and with an orthogonal start minus the same of the start."""

    def __init__(self, *arguments, timesteps: Timesteps, start: str) -> None:
        super().__init__(*arguments)
        self.timesteps = [timesteps]  # in a list: it is everybody's
        self.is_masked_always = False
        self.start_down: Optional[Tensor]
        self.start_up: Optional[Tensor]
        self.register_buffer("start_down", None)
        self.register_buffer("start_up", None)
        if start != "zero":
            self._start_orthogonally(start)

    @torch.no_grad()
    def _start_orthogonally(self, start: str) -> None:
        down, up = self.lora_down.weight, self.lora_up.weight
        wide, tall = down[0].numel(), up.shape[0]
        if self.lora_dim > min(wide, tall):
            raise ValueError(
                f"t_start = {start}: {self.lora_name} has no {self.lora_dim} orthogonal directions, its matrix is "
                f"{tall} x {wide}; lower network_dim (conv_dim) to {min(wide, tall)}"
            )
        if start == "layer":
            left, right = largest_singular_vectors(self.org_module_ref[0].weight.detach().flatten(1), self.lora_dim)
        else:
            left, right = (orthonormal_columns(torch.randn(n, self.lora_dim)) for n in (tall, wide))
        down.copy_(right.T.reshape(down.shape))
        up.copy_(left.reshape(up.shape))
        self.start_down, self.start_up = down.detach().clone(), up.detach().clone()

    def forward(self, x):
        if not (self.training or self.is_masked_always):
            return super().forward(x) if self.start_down is None else self._masked(x, None)
        timesteps = self.timesteps[0]
        return self._masked(x, timesteps.mask(self.lora_dim, x.shape[0], x.device, torch.float32))

    def _masked(self, x, mask):
        out = self.org_forward(x)
        if not self.enabled or self.multiplier == 0:
            return out
        if self.training and self.module_dropout and torch.rand(1) < self.module_dropout:
            return out
        h = self._down(x, self.lora_down.weight)
        slots = None
        if mask is not None:
            slots = self._shaped(mask, x)
            if self.training and self.rank_dropout:
                kept = torch.rand((x.shape[0], self.lora_dim), device=x.device) > self.rank_dropout
                slots = slots * self._shaped(kept / (1 - self.rank_dropout), x)
            if self.training and self.dropout:
                slots = nn.functional.dropout(slots.expand_as(h), p=self.dropout)  # single values, as in networks.lora
            slots = slots.to(h.dtype)
        update = self._up(h, slots, self.lora_up.weight)
        if self.start_down is not None:
            update = update - self._up(self._down(x, self.start_down), slots, self.start_up)
        return torch.add(out, update, alpha=self.multiplier * self.scale)

    def _down(self, x, weight):
        layer = self.lora_down
        if isinstance(layer, nn.Conv2d):
            return nn.functional.conv2d(x, weight, None, layer.stride, layer.padding, layer.dilation)
        return nn.functional.linear(x, weight)

    def _up(self, h, slots, weight):
        h = h if slots is None else h * slots
        return (nn.functional.conv2d if isinstance(self.lora_up, nn.Conv2d) else nn.functional.linear)(h, weight)

    def _shaped(self, rows, x):
        """(batch, rank) so that it scales the slots of what A gives for x."""
        ones = (1,) * (x.dim() - 2)
        is_conv = isinstance(self.lora_down, nn.Conv2d)
        return rows.view((-1, self.lora_dim, *ones) if is_conv else (-1, *ones, self.lora_dim))

    def factors(self) -> tuple:
        """A and B of a plain LoRA that does the same without a mask."""
        down, up = self.lora_down.weight.detach(), self.lora_up.weight.detach()
        if self.start_down is None or self.start_up is None:
            return down, up
        return torch.cat([down, self.start_down.to(down)]), torch.cat([up, -self.start_up.to(up)], dim=1)

    def take(self, down: Tensor, up: Tensor) -> None:
        """Take what `factors` gave; with an orthogonal start, what is no wider than A is all trained."""
        rank = self.lora_dim
        if down.shape[0] not in ((rank,) if self.start_down is None else (rank, 2 * rank)):
            raise ValueError(
                f"{self.lora_name} has rank {down.shape[0]} in the file, but {rank} here: set network_dim and conv_dim "
                "as in the file, or use dim_from_weights"
            )
        with torch.no_grad():
            self.lora_down.weight.copy_(down[:rank].reshape(self.lora_down.weight.shape))
            self.lora_up.weight.copy_(up[:, :rank].reshape(self.lora_up.weight.shape))
            if self.start_down is not None and self.start_up is not None:
                self.start_down.zero_()
                self.start_up.zero_()
                if down.shape[0] > rank:
                    self.start_down.copy_(down[rank:].reshape(self.start_down.shape))
                    self.start_up.copy_(-up[:, rank:].reshape(self.start_up.shape))

    def delta(self, device=None):
        down, up = (tensor.to(device, torch.float32).flatten(1) for tensor in self.factors())
        return (up @ down).view_as(self.org_module_ref[0].weight) * self.scale


def orthonormal_columns(matrix: Tensor) -> Tensor:
    """Those of a random matrix' singular vectors: the Q of its QR, with the signs that make it uniform."""
    q, r = torch.linalg.qr(matrix.float())
    return q * torch.sign(torch.diagonal(r))


def largest_singular_vectors(weight: Tensor, rank: int) -> tuple:
    """(out, rank) and (in, rank): the left and right singular vectors of the `rank` largest singular values."""
    u, _, vh = torch.linalg.svd(weight.float(), full_matrices=False)
    return u[:, :rank], vh[:rank].T


class TLoRANetwork(LoRANetwork):
    """A LoRA network whose U-Net modules are masked by timestep. A network's hook on the U-Net stays as long as it."""

    def __init__(self, text_encoder, unet, multiplier, arguments, choose: Callable, with_conv: bool, own: Any):
        self._own = own
        super().__init__(text_encoder, unet, multiplier, arguments, choose, with_conv)
        self.timesteps: Timesteps = own["timesteps"]
        self.start: str = own["start"]
        self._has_timesteps = False

    def make_module(self, name, layer, rank, alpha):
        if not name.startswith("lora_unet"):
            return super().make_module(name, layer, rank, alpha)
        parts = (name, layer, self.multiplier, rank, alpha, *self.arguments.dropouts)
        return TLoRAModule(*parts, **self._own)

    def apply_to(self, text_encoder, unet, apply_text_encoder=True, apply_unet=True):
        super().apply_to(text_encoder, unet, apply_text_encoder, apply_unet)
        if apply_unet:
            mine = weakref.ref(self)

            def listen(module, arguments, keywords):
                network = mine()
                if network is not None and not network._has_timesteps:
                    network._overhear(arguments, keywords)

            unet.register_forward_pre_hook(listen, with_kwargs=True)

    # --- the trainer's calls

    def prepare_network(self, args: Any) -> None:
        if self.start != "zero" and getattr(args, "scale_weight_norms", None):
            raise ValueError(
                f"scale_weight_norms cannot be used with t_start = {self.start}: shrinking A and B would not shrink "
                "their difference to the start; leave one of them out"
            )

    def on_timesteps(self, timesteps: Tensor) -> None:
        """The timesteps (batch,) of the batch that goes through the U-Net next."""
        self._has_timesteps = True
        self.timesteps.set(timesteps)

    def _overhear(self, arguments: tuple, keywords: Mapping[str, Any]) -> None:
        given = keywords.get("timestep", keywords.get("timesteps", arguments[1] if len(arguments) > 1 else None))
        if given is not None:
            self.timesteps.set(torch.as_tensor(given))

    def mask_always(self, is_masked: bool) -> None:
        """Whether the mask is on outside the training, too: as the paper's own sampling does it."""
        for lora in self.unet_loras:
            lora.is_masked_always = is_masked

    # --- files: plain LoRAs

    def file_tensors(self) -> dict:
        tensors = {}
        for lora in self.loras:
            down, up = lora.lora_down.weight.detach(), lora.lora_up.weight.detach()
            alpha = lora.alpha.detach().clone()
            if isinstance(lora, TLoRAModule):
                down, up = lora.factors()
                alpha *= down.shape[0] / lora.lora_dim  # what it is divided by grows with the rank
            tensors[f"{lora.lora_name}.lora_down.weight"] = down
            tensors[f"{lora.lora_name}.lora_up.weight"] = up
            tensors[f"{lora.lora_name}.alpha"] = alpha
        return tensors

    def tensors_to_save(self) -> Mapping[str, Tensor]:
        return super().tensors_to_save() if self.start == "zero" else self.file_tensors()

    def load_weights(self, file):
        """Take the weights of a file, with or without a start in it."""
        if self.start == "zero":
            return super().load_weights(file)
        tensors = read_file(file)
        found = [lora for lora in self.loras if f"{lora.lora_name}.lora_down.weight" in tensors]
        if not found:
            raise ValueError(f"no tensor of {file} belongs to this network; it was made for another model or module")
        for lora in found:
            down, up = (tensors[f"{lora.lora_name}.lora_{part}.weight"].float() for part in ("down", "up"))
            alpha = float(tensors.get(f"{lora.lora_name}.alpha", torch.tensor(float(down.shape[0]))))
            if isinstance(lora, TLoRAModule):
                lora.take(down, up)
                alpha *= lora.lora_dim / down.shape[0]
            else:
                lora.load_state_dict({"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(alpha)})
            lora.alpha.fill_(alpha)
            lora.scale = alpha / lora.lora_dim
        return f"{len(found)} of {len(self.loras)} modules"

    def announce(self, total_epochs: int, total_steps: int) -> list:
        ranks = sorted({lora.lora_dim for lora in self.unet_loras})
        if not ranks:
            return ["T-LoRA: only text encoders are trained, which have no timesteps: this is a plain LoRA"]
        spoken = ", ".join(f"{self.timesteps.least(rank)} to {rank}" for rank in ranks)
        return [f"T-LoRA: {spoken} ranks are used, the fewest at the noisiest timestep; the file is a plain LoRA"]


def create_network(
    multiplier, network_dim, network_alpha, vae, text_encoder, unet, neuron_dropout=None, **kwargs
) -> TLoRANetwork:
    own, rest = own_options(kwargs)
    arguments = read_arguments(is_sdxl(text_encoder, unet), network_dim, network_alpha, neuron_dropout, rest)
    with_conv = arguments.conv_ranks is not None
    return TLoRANetwork(text_encoder, unet, multiplier, arguments, arguments.rank_and_alpha, with_conv, own)


def create_network_from_weights(
    multiplier, file, vae, text_encoder, unet, weights_sd=None, for_inference=False, neuron_dropout=None, **kwargs
):
    """A network with the ranks of a file, half of them where the file has a start in it; for inference a plain LoRA."""
    own, rest = own_options(kwargs)
    if for_inference:
        return lora_module.create_network_from_weights(
            multiplier, file, vae, text_encoder, unet, weights_sd=weights_sd, for_inference=True, **rest
        )
    tensors = read_file(file) if weights_sd is None else weights_sd
    ranks = {}
    for key, tensor in tensors.items():
        name, _, part = key.partition(".")
        if part != "lora_down.weight":
            continue
        rank = tensor.shape[0]
        alpha = float(tensors.get(f"{name}.alpha", torch.tensor(float(rank))))
        if own["start"] != "zero" and name.startswith("lora_unet"):
            if rank % 2:
                raise ValueError(f"{name} has rank {rank} in {file}, which holds no orthogonal start; set t_start=zero")
            rank, alpha = rank // 2, alpha / 2
        ranks[name] = (rank, alpha)
    if not ranks:
        raise ValueError(f"{file} holds no LoRA: it has for example {', '.join(list(tensors)[:3]) or 'no tensors'}")
    arguments = read_arguments(is_sdxl(text_encoder, unet), None, None, neuron_dropout, rest)
    return TLoRANetwork(text_encoder, unet, multiplier, arguments, lambda name, _: ranks.get(name), True, own), tensors


def own_options(given: Mapping[str, Any]) -> tuple:
    """What is T-LoRA's of the network_args, and the rest, which is networks.lora's. ValueError for bad values."""
    rest = {name: value for name, value in given.items() if name not in OWN_OPTIONS}
    start = str(given.get("t_start") or "zero").strip().lower()
    if start not in STARTS:
        raise ValueError(f"t_start must be {', '.join(STARTS[:-1])} or {STARTS[-1]}, not {start!r}")
    least = given.get("t_min_rank")
    if least in (None, ""):
        return {"timesteps": Timesteps(None), "start": start}, rest
    try:
        number = int(str(least))
    except ValueError:
        number = -1
    if number < 0:
        raise ValueError(f"t_min_rank must be a whole number of at least 0, not {least!r}")
    return {"timesteps": Timesteps(number), "start": start}, rest
