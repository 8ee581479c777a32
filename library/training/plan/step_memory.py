"""How many bytes a training step holds at its peak, counted without doing it.

PyTorch's fake tensors have shapes, types and lifetimes, and no content: a step of a full-size model runs through the
same code as on a GPU, in some seconds on any machine. What is counted is what the program asks for: weights, network,
and everything that lives between forward and backward, gradients included.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from library.data.batches import Batch
from library.models.family import Family, StableDiffusion
from library.models.placeholders import TokenRows, token_table
from library.models.skeleton import skeleton
from library.models.standard import Configs
from library.models.text import CHUNK, TextConditioner, TextEmbeddings
from library.training.objectives import NoisePrediction
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


class NoTokenizer:
    """The ids of a tokenizer, of which no text is needed: fake tensors have no content."""

    bos_token_id = eos_token_id = pad_token_id = 0


class AnyCaption(TextConditioner):
    """The text encoders as they are trained through, on captions of full length without content."""

    def _tokens_and_weights(self, captions: Sequence[str], encoder: int) -> tuple[Tensor, Tensor | None]:
        chunks = self.max_token_length // CHUNK
        return torch.zeros(len(captions), chunks, CHUNK + 2, dtype=torch.int64), None


class AnyBatch(Batch):
    """A batch without content; its draws come from no key, which fake tensors could not follow."""

    def generator(self, i: int, purpose: str) -> Any:
        return None


def _loss(model: StableDiffusion, case: Case) -> Tensor:
    """The loss of a training's own objective, with the text encoders in the graph where they are trained."""
    model.tokenizers = [NoTokenizer() for _ in model.text_encoders]  # type: ignore[misc]
    conditioner = AnyCaption(model, max_token_length=case.tokens - 2)
    words = _grow(model) if case.text_grows else []
    full = case.memory.full_fp16 or case.memory.full_bf16
    plain = full or case.dtype == torch.float32
    autocast: AbstractContextManager[Any] = nullcontext() if plain else torch.autocast("cpu", case.dtype)
    objective = NoisePrediction(model, lambda captions: conditioner.encode(captions, grad=True), FAKE)
    with autocast:
        loss = objective.loss_at(_batch(model, case), torch.zeros(case.batch, dtype=torch.int64)).weighted_mean()
    for word in words:
        word.remove()
    return loss


def _grow(model: StableDiffusion) -> list[TokenRows]:
    """A new word in each text encoder, to which gradients go back through all of it."""
    return [
        TokenRows(encoder, 0, torch.zeros(1, token_table(encoder).embedding_dim, requires_grad=True))
        for encoder in model.text_encoders
    ]


def _batch(model: StableDiffusion, case: Case) -> Batch:
    unet: Any = model.unet
    factor, names = model.latent_factor, [str(i) for i in range(case.batch)]
    sizes = torch.zeros(case.batch, 2, dtype=torch.int64)
    return AnyBatch(
        epoch=1,
        sample_ids=names,
        files=names,
        captions=names,
        latents=torch.zeros(case.batch, unet.config.in_channels, case.height // factor, case.width // factor),
        hidden=None if case.runs_text else _cached_text(model, case),
        weights=torch.ones(case.batch),
        true_count=case.batch,
        original_sizes=sizes,
        crops=sizes,
        target_sizes=sizes,
        seed=0,
    )


def _cached_text(model: StableDiffusion, case: Case) -> TextEmbeddings:
    pooled = torch.zeros(case.batch, _pooled_width(model)) if case.family is Family.SDXL else None
    return TextEmbeddings(torch.zeros(case.batch, case.tokens, model.unet.config["cross_attention_dim"]), pooled)


def _pooled_width(model: StableDiffusion) -> int:
    last: Any = model.text_encoders[-1]
    return int(last.config.projection_dim)
