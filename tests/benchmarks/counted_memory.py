"""How many bytes a training step holds at its peak, counted without doing it.

PyTorch's fake tensors have shapes, types and lifetimes, and no content: a step of a full-size model runs through the
same code as on a GPU, in half a minute on any machine. What is counted is what the program asks for: weights, network,
gradients, optimizer states and everything that lives between forward and backward. What a GPU adds by itself (its
context, kernels' workspaces, gaps between blocks; usually 0.5 to 1.5 GB) is not in it.
"""

from __future__ import annotations

import gc
import weakref
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from library.models.family import Family, StableDiffusion
from library.models.standard import standard_configs
from library.training.memory import MemorySpec, save_memory
from networks import lora

FAKE = torch.device("cpu")  # the device that fake tensors pretend to be on


class Counter(TorchDispatchMode):
    """Bytes of all tensors that are alive, and the most there ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._alive: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._alive:
            self.now += size
            self.peak = max(self.peak, self.now)
            self._alive[key] = weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self.now -= size
        del self._alive[key]


@dataclass(frozen=True)
class Step:
    """A training step of a LoRA: sizes and the options that save memory, under their names."""

    family: Family
    side: int
    rank: int = 32
    batch: int = 1
    network_train_unet_only: bool = False  # with text embeddings from a cache
    cache_latents: bool = False
    adamw_8bit: bool = False
    full_bf16: bool = False
    memory: MemorySpec = field(default_factory=MemorySpec)


@dataclass(frozen=True)
class Held:
    """Bytes: what lies on the device all the time, and the most that a step adds. `encode` is the VAE's own peak."""

    model: int
    network: int
    optimizer: int
    step: int
    encode: int

    @property
    def peak(self) -> int:
        return self.model + self.network + self.optimizer + max(self.step, self.encode)


def count(case: Step) -> Held:
    """Count a step under `mixed_precision = "bf16"`: forward, backward, and what the optimizer keeps."""
    before = torch.get_default_dtype()
    try:
        with FakeTensorMode(), Counter() as counter:
            return _count(case, counter)
    finally:
        torch.set_default_dtype(before)
        gc.collect()


def _count(case: Step, counter: Counter) -> Held:
    torch.set_default_dtype(torch.bfloat16)
    model = _fake_model(case.family)
    train_text = not case.network_train_unet_only
    if not train_text:
        model.text_encoders.clear()  # off the device once their outputs are cached
    encode = 0 if case.cache_latents else _vae_peak(model, case, counter)
    if case.cache_latents:
        model.vae = torch.nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    save_memory(model, case.memory, FAKE, train_text_encoder=train_text)
    gc.collect()
    weights = counter.now

    torch.set_default_dtype(torch.bfloat16 if case.full_bf16 else torch.float32)
    encoders: Any = model.text_encoders if case.family is Family.SDXL else (model.text_encoders or [None])[0]
    network = lora.create_network(1.0, case.rank, case.rank, None, encoders, model.unet)
    network.apply_to(encoders, model.unet, train_text, True)
    parameters = list(network.parameters())
    held_by_network = counter.now - weights
    each = 2 * (1 + 4 / 256) if case.adamw_8bit else 2 * parameters[0].element_size()
    optimizer = int(each * sum(parameter.numel() for parameter in parameters))

    model.unet.train()
    for encoder in model.text_encoders:
        encoder.train()
    network.train()
    start = counter.peak = counter.now
    loss = _loss(model, case)
    loss.backward()
    return Held(weights, held_by_network, optimizer, counter.peak - start, encode)


def _fake_model(family: Family) -> StableDiffusion:
    configs = standard_configs(family)
    unet: Any = UNet2DConditionModel.from_config(dict(configs["unet"]))
    vae: Any = AutoencoderKL.from_config(dict(configs["vae"]))
    encoders: list[Any] = [CLIPTextModel(CLIPTextConfig(**configs["text_encoder"]))]
    if family is Family.SDXL:
        encoders.append(CLIPTextModelWithProjection(CLIPTextConfig(**configs["text_encoder_2"])))
    for part in (unet, vae, *encoders):
        part.requires_grad_(False)
    return StableDiffusion(family, "epsilon", unet, vae, encoders, [], configs["scheduler"], Path("fake"))


def _vae_peak(model: StableDiffusion, case: Step, counter: Counter) -> int:
    """What encoding one picture holds beside the weights."""
    start = counter.peak = counter.now
    with torch.no_grad():
        vae: Any = model.vae
        vae.encode(torch.zeros(1, 3, case.side, case.side))
    return counter.peak - start


def _loss(model: StableDiffusion, case: Step) -> Tensor:
    """The squared error of a noise prediction, with the text encoders in the graph where they are trained."""
    config = standard_configs(case.family)["unet"]
    dtype = torch.bfloat16
    latents = torch.zeros(case.batch, 4, case.side // 8, case.side // 8, dtype=dtype)
    autocast: AbstractContextManager[Any] = nullcontext() if case.full_bf16 else torch.autocast("cpu", dtype)
    with autocast:
        hidden = torch.zeros(case.batch, 77, config["cross_attention_dim"], dtype=dtype)
        pooled = torch.zeros(case.batch, 1280, dtype=dtype)
        if model.text_encoders:
            ids = torch.zeros(case.batch, 77, dtype=torch.int64)
            states = [encoder(input_ids=ids, output_hidden_states=True) for encoder in model.text_encoders]
            if case.family is Family.SDXL:
                hidden = torch.cat([state.hidden_states[-2] for state in states], dim=-1)
                pooled = states[1].text_embeds
            else:
                hidden = states[0].last_hidden_state
        added = None
        if case.family is Family.SDXL:
            added = {"text_embeds": pooled.to(dtype), "time_ids": torch.zeros(case.batch, 6, dtype=dtype)}
        timesteps = torch.zeros(case.batch, dtype=torch.int64)
        unet: Any = model.unet
        prediction = unet(latents, timesteps, hidden.to(dtype), added_cond_kwargs=added, return_dict=False)[0]
    return prediction.float().square().mean()
