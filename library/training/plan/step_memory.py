"""How many bytes a training step holds at its peak, counted without doing it.

PyTorch's fake tensors have shapes, types and lifetimes, and no content: a step of a full-size model runs through the
same code as on a GPU, in some seconds on any machine. What is counted is what the program asks for: weights, network,
and everything that lives between forward and backward, gradients included.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from library.models.family import Family, StableDiffusion
from library.models.skeleton import skeleton
from library.models.standard import Configs
from library.training.runtime.memory import MemorySpec, save_memory

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

    def most(self, work: Callable[[], Any]) -> int:
        """The most that `work` adds to what is alive."""
        gc.collect()
        start = self.peak = self.now
        work()
        return self.peak - start

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
class Case:
    """What decides how much a training step holds. `width` and `height` are pixels, of the largest bucket.

    `runs_text`: every step runs the text encoders and goes back through them. `text_grows`: there are vectors of a new
    word to go back to, whatever the network does. `preview` is the size of the largest sample picture.
    """

    family: Family
    configs: Configs
    width: int
    height: int
    batch: int = 1
    tokens: int = 77
    dtype: torch.dtype = torch.bfloat16
    vae_dtype: torch.dtype | None = None
    runs_text: bool = True
    text_grows: bool = False
    vae_batch: int = 1
    preview: tuple[int, int] | None = None
    memory: MemorySpec = field(default_factory=MemorySpec)


@dataclass(frozen=True)
class Counted:
    """Bytes. `step` is the most that forward and backward add, gradients included; `encode` and `decode` the VAE's."""

    unet: int
    vae: int
    text_encoders: int
    network: int
    step: int
    encode: int
    decode: int


MakeNetwork = Callable[[StableDiffusion], nn.Module | None]


def count(case: Case, make_network: MakeNetwork) -> Counted:
    """Count one step: `make_network` puts the network onto the model, as it is trained."""
    before = torch.get_default_dtype()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), Counter() as counter:
            return _count(case, make_network, counter)
    finally:
        torch.set_default_dtype(before)
        gc.collect()


def _count(case: Case, make_network: MakeNetwork, counter: Counter) -> Counted:
    model = skeleton(Path("fake"), case.family, case.configs, dtype=case.dtype, vae_dtype=case.vae_dtype)
    encode = counter.most(lambda: _encode(model, case))
    size = case.preview
    decode = counter.most(lambda: _decode(model, size)) if size else 0
    save_memory(model, case.memory, FAKE, train_text_encoder=case.runs_text)
    gc.collect()
    without = counter.now
    network = make_network(model)
    gc.collect()
    held_by_network = counter.now - without
    model.unet.train()
    for encoder in model.text_encoders:
        encoder.train()
    if network is not None:
        network.train()
    step = counter.most(lambda: _loss(model, case).backward())
    encoders = sum(_nbytes(encoder) for encoder in model.text_encoders)
    return Counted(_nbytes(model.unet), _nbytes(model.vae), encoders, held_by_network, step, encode, decode)


def _nbytes(module: nn.Module) -> int:
    """Of a part's own weights; a network that was put on it has registered none there."""
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def _encode(model: StableDiffusion, case: Case) -> None:
    vae: Any = model.vae
    with torch.no_grad():
        vae.encode(torch.zeros(case.vae_batch, 3, case.height, case.width, dtype=vae.dtype))


def _decode(model: StableDiffusion, size: tuple[int, int]) -> None:
    vae: Any = model.vae
    factor, channels = model.latent_factor, vae.config.latent_channels
    with torch.no_grad():
        vae.decode(torch.zeros(1, channels, size[1] // factor, size[0] // factor, dtype=vae.dtype))


def _loss(model: StableDiffusion, case: Case) -> Tensor:
    """The squared error of a noise prediction, with the text encoders in the graph where they are trained."""
    unet: Any = model.unet
    dtype, factor = case.dtype, model.latent_factor
    full = case.memory.full_fp16 or case.memory.full_bf16
    plain = full or dtype == torch.float32
    latents = torch.zeros(case.batch, unet.config.in_channels, case.height // factor, case.width // factor, dtype=dtype)
    autocast: AbstractContextManager[Any] = nullcontext() if plain else torch.autocast("cpu", dtype)
    with autocast:
        hidden, pooled = _text(model, case)
        added = None
        if case.family is Family.SDXL:
            added = {"text_embeds": pooled, "time_ids": torch.zeros(case.batch, 6, dtype=dtype)}
        timesteps = torch.zeros(case.batch, dtype=torch.int64)
        prediction = unet(latents, timesteps, hidden, added_cond_kwargs=added, return_dict=False)[0]
    return prediction.float().square().mean()


def _text(model: StableDiffusion, case: Case) -> tuple[Tensor, Tensor]:
    """Text embeddings as the U-Net reads them: from a cache, or with the encoders' graph behind them."""
    encoders: list[Any] = list(model.text_encoders)
    width = model.unet.config["cross_attention_dim"]
    if not case.runs_text:
        hidden = torch.zeros(case.batch, case.tokens, width, dtype=case.dtype)
        return hidden, torch.zeros(case.batch, _pooled_width(model), dtype=case.dtype)
    longest = encoders[0].config.max_position_embeddings
    chunks = -(-case.tokens // longest)
    ids = torch.zeros(case.batch * chunks, longest, dtype=torch.int64)
    states = [encoder(input_ids=ids, output_hidden_states=True) for encoder in encoders]
    last = [state.hidden_states[-2] for state in states] if len(states) > 1 else [states[0].last_hidden_state]
    hidden = torch.cat(last, dim=-1).reshape(case.batch, chunks * longest, -1)[:, : case.tokens]
    pooled = states[-1].text_embeds[: case.batch] if len(states) > 1 else hidden
    if case.text_grows and not hidden.requires_grad:
        hidden.requires_grad_()
    return hidden.to(case.dtype), pooled.to(case.dtype)


def _pooled_width(model: StableDiffusion) -> int:
    last: Any = model.text_encoders[-1]
    return int(getattr(last.config, "projection_dim", 0) or 1)
