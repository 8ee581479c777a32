"""How much memory a run will need: what lies on the GPU in each of its stages, or in the computer's memory without one.

A run has four stages, and its peak is the largest of them. On a GPU only what a stage uses is there
(`library/training/runtime/memory.py` moves the rest away); without one, everything is in the computer's memory
all the time.

    stage       on the GPU                                  and at the most beside it
    latents     VAE                                         encoding `vae_batch_size` pictures (once, with a cache)
    captions    text encoders                               little
    training    U-Net, network, optimizer; the VAE and the  forward and backward, gradients included; or encoding,
                text encoders if steps use them             where latents are not cached
    samples     everything                                  decoding the largest picture

All figures are bytes of tensors. What a process has beside them, `Surroundings`, is said apart.
"""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2**30
GPU_OVERHEAD = (GIB // 2, GIB + GIB // 2)
"""What a GPU adds: its context, workspaces of kernels, gaps between blocks. From other people's reports, not ours."""
RUNNING = GIB // 10
"""What a process takes beside a plan's when it trains: kernels, threads, gaps between blocks. Found on the mini model,
which has next to nothing else."""


@dataclass(frozen=True)
class Parts:
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


def on_gpu(parts: Parts, habits: Habits) -> dict[str, int]:
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


def without_gpu(parts: Parts, habits: Habits, around: Surroundings) -> dict[str, int]:
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
