"""How much GPU or main memory a planned run takes: its stages, its largest step, and what lies beside the weights.

A run has four stages, and its peak is the largest of them. On a GPU only what a stage uses is there
(`library/training/runtime/memory.py` moves the rest away); without one, everything is in the computer's memory
all the time.

    stage       on the GPU                                  and at the most beside it
    latents     VAE                                         encoding `vae_batch_size` pictures (once, with a cache)
    captions    text encoders                               little
    training    U-Net, network, optimizer; the VAE and the  forward and backward, gradients included; or encoding,
                text encoders if steps use them             where latents are not cached
    samples     everything                                  decoding the largest picture

All figures are bytes of tensors. What a process has beside them, `Surroundings`, is reported apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from library.config.option import Settings
from library.data.caches.text_encoder_cache import captions_to_come
from library.data.dataset import Dataset
from library.models.family import Family
from library.models.standard import Configs
from library.models.text import TextSpec
from library.streamed_weights import PIECE
from library.training.callbacks.samples import PreviewSpec
from library.training.plan.step_memory import Case
from library.training.runtime.memory import MemorySpec
from library.training.runtime.mixed_precision import DTYPES
from library.training.setup.base_model import BaseModelSpec
from library.training.setup.caching import CacheSpec
from library.training.setup.checks import Checked, runs_text_encoder

GIB = 2**30
GPU_OVERHEAD = (GIB // 2, GIB + GIB // 2)
"""What a GPU adds: its context, workspaces of kernels, gaps between blocks. From other people's reports, not ours."""
RUNNING = GIB // 10
"""What a process takes beside a plan's when it trains: kernels, threads, gaps between blocks. Found on the mini model,
which has next to nothing else."""


@dataclass(frozen=True)
class MemoryParts:
    """What a run is made of, in bytes. `step`, `encode` and `decode` are peaks beside all that lies there."""

    unet: int
    vae: int
    text_encoders: int
    network: int
    optimizer: int
    step: int
    encode: int
    decode: int = 0

    @property
    def model(self) -> int:
        return self.unet + self.vae + self.text_encoders

    @property
    def trained(self) -> int:
        return self.network + self.optimizer


@dataclass(frozen=True)
class Habits:
    """Which parts steps use, by the options: see `library/training/setup/build.py`."""

    caches_latents: bool
    runs_text: bool  # every step goes through the text encoders
    encodes_text: bool  # captions change, and are encoded as they come
    draws_samples: bool
    lowram: bool = False


@dataclass(frozen=True)
class Surroundings:
    """What a process holds beside tensors of the run: Python and its libraries, caches of latents and captions.

    `loading` is the most that weights, and what of their file is in memory beside them, take while they are read.
    """

    libraries: int
    caches: int
    loading: int = 0

    @property
    def total(self) -> int:
        return self.libraries + self.caches


def on_gpu(parts: MemoryParts, habits: Habits) -> dict[str, int]:
    """{stage: bytes on the GPU at its peak}, without what the GPU itself adds."""
    kept = parts.unet if habits.lowram else 0
    stages = {}
    if habits.caches_latents:
        stages["latents"] = kept + parts.vae + parts.encode
    if not habits.runs_text:
        stages["captions"] = kept + parts.text_encoders
    stays = parts.unet + parts.trained
    stays += parts.text_encoders if habits.runs_text or habits.encodes_text else 0
    beside = parts.step
    if not habits.caches_latents:
        stays += parts.vae
        beside = max(parts.step, parts.encode)
    stages["training"] = stays + beside
    if habits.draws_samples:
        stages["samples"] = parts.model + parts.trained + parts.decode
    return stages


def without_gpu(parts: MemoryParts, habits: Habits, around: Surroundings) -> dict[str, int]:
    """{stage: bytes of the resident set at its peak}."""
    everything = around.total + RUNNING + parts.model + parts.trained
    stages = {"loading": around.libraries + around.loading, "latents": everything + parts.encode}
    stages["training"] = everything + parts.step
    if habits.draws_samples:
        stages["samples"] = everything + parts.decode
    return stages


def peak(stages: dict[str, int]) -> tuple[str, int]:
    """The stage that needs most, and how much."""
    return max(stages.items(), key=lambda stage: stage[1])


def cache_bytes(latents: int, captions: int, tokens: int, text_width: int) -> int:
    """What caches hold in memory, float32: mean and deviation of `latents` numbers, and captions' embeddings."""
    return 4 * (2 * latents + captions * tokens * text_width)


def habits_of(checked: Checked, settings: Settings) -> Habits:
    previews = settings.take(PreviewSpec)
    return Habits(
        caches_latents=settings.take(CacheSpec).cache_latents,
        runs_text=runs_text_encoder(checked),
        encodes_text=captions_to_come(checked.dataset) is None,
        draws_samples=bool(checked.prompts) and (previews.sample_at_first or previews.interval is not None),
        lowram=settings.take(MemorySpec).lowram,
    )


def case_of(checked: Checked, family: Family, configs: Configs) -> Case:
    """The step that needs most: of the largest bucket, and the dataset with the largest batch there."""
    settings, dataset = checked.settings, checked.dataset
    base = settings.take(BaseModelSpec)
    size, batch = max(
        (
            (bucket, min(len(members), dataset.plan[number].batch_size))
            for (number, bucket), members in dataset.groups.items()
        ),
        key=lambda found: found[0][0] * found[0][1] * found[1],
    )
    sizes = [prompt.size(native_size(configs)) for prompt in checked.prompts]
    return Case(
        family,
        configs,
        *size,
        batch,
        tokens=settings.take(TextSpec).tokens,
        dtype=DTYPES[base.mixed_precision],
        vae_dtype=torch.float32 if base.no_half_vae else None,
        runs_text=runs_text_encoder(checked),
        text_grows=checked.word is not None,
        vae_batch=min(settings.take(CacheSpec).vae_batch_size, len(dataset.all_pictures)),
        preview=max(sizes, key=lambda size: size[0] * size[1]) if sizes else None,
        memory=settings.take(MemorySpec),
    )


def native_size(configs: Configs) -> int:
    side = configs["unet"].get("sample_size") or 64
    return int(side if isinstance(side, int) else max(side)) * 8


def latents_of(dataset: Dataset) -> list[tuple[Path, int]]:
    """(folder, numbers of the latent) for each variant of each picture that a cache keeps."""
    looks = {
        (p.look, flip): p for p in dataset.all_pictures for flip in ((False, True) if p.subset.flip_aug else (False,))
    }
    return [(p.subset.image_dir, p.choice.bucket[0] * p.choice.bucket[1] // 64 * 4) for p in looks.values()]


def held_while_loading(path: Path, model: int, dtype: torch.dtype) -> int:
    """A single file is converted piece by piece beside the weights (`model` bytes) that are made of it; a folder part
    by part, and what is in float32 already is used as it lies there."""
    if path.is_file():
        return model + min(PIECE, path.stat().st_size)
    made = most = 0
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        files = sum(file.stat().st_size for file in (path / part).glob("*.safetensors"))
        most = max(most, made + files)
        made += files * dtype.itemsize // 4
    return most


def held_in_caches(checked: Checked, settings: Settings, configs: Configs) -> int:
    """Bytes of the computer's memory that cached latents and captions take."""
    caches = settings.take(CacheSpec)
    in_memory = caches.cache_latents and not caches.cache_latents_to_disk
    latents = sum(numbers for _, numbers in latents_of(checked.dataset)) if in_memory else 0
    captions = 0 if runs_text_encoder(checked) else len(captions_to_come(checked.dataset) or ())
    tokens = settings.take(TextSpec).tokens
    return cache_bytes(latents, captions, tokens, int(configs["unet"]["cross_attention_dim"]))
