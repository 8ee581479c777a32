"""What batches are made of, prepared once: the latents of the images and the embeddings of the captions."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from library.config.spec import declared, spec
from library.data.batches import LatentSource
from library.data.caches.latents_cache import DiskLatents, LiveLatents, MemoryLatents
from library.data.caches.text_encoder_cache import TextCache, captions_to_come
from library.data.dataset import Dataset
from library.data.images.image_folder import CACHE_FOLDER
from library.models.family import StableDiffusion
from library.models.half import in_dtype
from library.models.hashes import weights_hash
from library.models.text import TextConditioner
from library.models.vae_padding import pads_by_reflection
from library.training.runtime.distributed import Processes


@spec
class CacheSpec:
    """The options on caching; field names are the options'."""

    cache_latents: bool = declared
    cache_latents_to_disk: bool = declared
    cache_text_encoder_outputs: bool = declared
    cache_text_encoder_outputs_to_disk: bool = declared
    vae_batch_size: int = declared
    max_data_loader_n_workers: int = declared


logger = logging.getLogger(__name__)


class VaeEncoder:
    """The VAE as the caches ask for it: pictures in, mean and standard deviation of the posterior out.

    In float16 some VAEs (SDXL's own) overflow on some pictures. Those pictures are encoded again in float32, which is
    logged once.
    """

    def __init__(self, model: StableDiffusion, device: torch.device) -> None:
        self._model = model
        self._device = device
        self._has_overflowed = False

    @torch.no_grad()
    def encode_posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, 3, height, width) in [-1, 1] to two of (batch, 4, height/8, width/8), float32 on the CPU."""
        vae: Any = self._model.vae
        vae.to(self._device)
        mean, std = _posterior(vae, images)
        finite = (mean.isfinite() & std.isfinite()).flatten(1).all(dim=1)
        if vae.dtype in (torch.float16, torch.bfloat16) and not finite.all():
            if not self._has_overflowed:
                logger.info(
                    "the VAE overflows in half precision: the pictures that it happens to are encoded in float32 "
                    "(no_half_vae keeps the VAE in float32 from the start)"
                )
                self._has_overflowed = True
            with in_dtype(vae, torch.float32):
                mean[~finite], std[~finite] = _posterior(vae, images[~finite])
        return mean, std


def _posterior(vae: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    with torch.autocast(vae.device.type, enabled=False):
        posterior = vae.encode(images.to(vae.device, vae.dtype)).latent_dist
    return posterior.mean.float().cpu(), posterior.std.float().cpu()


def latent_source(
    spec: CacheSpec, dataset: Dataset, model: StableDiffusion, processes: Processes, output_dir: Path
) -> tuple[LatentSource, list[str]]:
    """Where latents come from by the options, filled, and lines worth saying. Raises `UserError` for bad images."""
    source, lines = _filled(spec, dataset, model, processes, output_dir)
    source.shift_factor = model.shift_factor
    return source, lines


def _filled(
    spec: CacheSpec, dataset: Dataset, model: StableDiffusion, processes: Processes, output_dir: Path
) -> tuple[LatentSource, list[str]]:
    encoder = VaeEncoder(model, processes.device)
    scaling = model.scaling_factor
    workers = max(1, spec.max_data_loader_n_workers)
    filling = {"batch_size": spec.vae_batch_size, "workers": workers, "progress": processes.is_main}
    if spec.cache_latents_to_disk:
        source = DiskLatents(dataset, scaling, vae_hash=hash_of_vae(model), fallback=output_dir)
        filled = source.fill(
            encoder,
            process_index=processes.index,
            num_processes=processes.count,
            wait=processes.wait,
            **filling,
        )
        return source, list(filled.notes)
    if spec.cache_latents:
        memory = MemoryLatents(dataset, scaling)
        return memory, list(memory.fill(encoder, **filling).notes)
    live = LiveLatents(dataset, scaling, encoder, batch_size=spec.vae_batch_size)
    live.check(workers=workers, progress=processes.is_main)
    return live, []


def hash_of_vae(model: StableDiffusion) -> str:
    """What posteriors on disk depend on: the weights and how they pad. Scale and shift come later."""
    return weights_hash(model.vae) + ("-reflect" if pads_by_reflection(model.vae) else "")


def text_source(
    spec: CacheSpec, dataset: Dataset, conditioner: TextConditioner, output_dir: Path, *, show: bool
) -> tuple[TextCache, list[str]]:
    """Embeddings of a text encoder that is not trained: each caption once, in memory, and on disk if asked for; and
    lines worth saying."""
    model = conditioner.model
    to_disk = spec.cache_text_encoder_outputs_to_disk
    cache = TextCache(
        conditioner.encode,
        text_hash="-".join(weights_hash(encoder) for encoder in model.text_encoders) if to_disk else "",
        clip_skip=conditioner.clip_skip,
        max_token_length=conditioner.max_token_length,
        weighted=conditioner.weighted,
        folder=output_dir / CACHE_FOLDER if to_disk else None,
        shape=(conditioner.max_token_length + 2, sum(e.config.hidden_size for e in model.text_encoders)),
    )
    captions = captions_to_come(dataset)
    if captions is not None:
        cache.fill(captions, progress=show)
    damaged = f"{cache.damaged} files of the cache of captions were damaged or changed and have been made again"
    return cache, [damaged] if cache.damaged else []
