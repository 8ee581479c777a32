"""The tasks on which rank rules are compared: teachers whose ranks are planted, styles with few to many pictures,
several styles in one LoRA. A task is latents, captions and a held-out set, made once and kept in a file.

A teacher is the mini model plus a random difference of known rank in every linear layer and 1 x 1 convolution of its
transformer blocks. The student sees drawings of the pretraining's kind, for which the mini model is a good denoiser,
and is asked for the noise plus the difference between the teacher's prediction and the mini model's. So what is to be
learned is the teacher, layer by layer of known rank, under the true noise of diffusion training and with few
pictures. (What a teacher draws itself is no such ground: its pictures are easier than the pictures that it would have
to be trained on, and a student does better on them than the teacher.)
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from library.diffusion.schedule import add_noise, alphas_cumprod
from library.files import read_tensors, write_tensors
from library.models.family import StableDiffusion
from library.models.text import TextConditioner
from miniworld.judge import to_pictures
from miniworld.prove.measures import HeldOut
from miniworld.scenes import ScenePicture, draw_for_pretraining
from miniworld.sets import stream, style_set, training_pictures
from miniworld.styles import HELD_OUT_STYLES

TEACHER_PICTURES, TEACHER_HELD_OUT = 96, 32
TEACHER_DRAWS = 16  # of noise and timestep for each picture
TOGETHER = 32  # pictures that go through a network at once
FALLING = -0.7  # the exponent of a spectrum that falls: s_i = i ** FALLING


@dataclass(frozen=True)
class Teacher:
    """Planted ranks, dealt out to the transformer blocks in turn; the size is ||Delta|| / ||W|| of every layer."""

    ranks: tuple[int, ...]
    falls: bool = False
    size: float = 0.5


@dataclass(frozen=True)
class Task:
    """Either a teacher, or `pictures` training pictures of each of some held-out styles."""

    name: str
    styles: tuple[str, ...] = ()
    pictures: int = 15
    teacher: Teacher | None = None


def _teachers() -> list[Task]:
    planted = {"1": (1,), "4": (4,), "16": (16,), "1, 4, 16": (1, 4, 16)}
    flat = [Task(f"teacher {name}", teacher=Teacher(ranks)) for name, ranks in planted.items()]
    falling = [Task(f"teacher {name}, falling", teacher=Teacher(planted[name], True)) for name in ("16", "1, 4, 16")]
    return flat + falling


_MIXED = ("woodcut", "blueprint", "neon", "oil", "comic", "stainedglass", "papercut", "chalk")

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        *_teachers(),
        *(Task(style, (style,)) for style in HELD_OUT_STYLES),
        *(Task(f"woodcut x {count}", ("woodcut",), count) for count in (8, 48, 192, 768)),
        *(Task(f"oil x {count}", ("oil",), count) for count in (192,)),
        *(Task(f"{count} styles", _MIXED[:count]) for count in (2, 4, 8)),
    )
}


@dataclass(frozen=True)
class Data:
    """A task ready to be trained on. Latents are the VAE's posterior, scaled as the U-Net sees them."""

    mean: Tensor  # (pictures, 4, 16, 16)
    deviation: Tensor
    hidden: Tensor  # (pictures, tokens, width): the captions
    held_out: HeldOut
    planted: dict[str, int]
    """Rank by module, of a teacher; else empty."""
    base_loss: float
    """The mini model's own held-out loss."""
    floor: float | None = None
    """The teacher's."""
    draws: tuple[Tensor, Tensor, Tensor] | None = None
    """Of a teacher: noise (draws, pictures, 4, 16, 16), timesteps (draws, pictures), and the shift of the target."""


def prepare(task: Task, base: StableDiffusion, folder: Path, weights: str) -> Data:
    """The task's data, from the file that keeps it, or made and kept. `weights` name the mini model's."""
    file = folder / f"{task.name.replace(' ', '-').replace(',', '')}-{weights}.safetensors"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(file, _of_teacher(task.teacher, base) if task.teacher else _of_styles(task, base))
    kept, _ = read_tensors(file)
    held_out = HeldOut.of_latents(base, kept["held_out.latents"], kept["held_out.hidden"])
    seen = (kept["mean"], kept["deviation"], kept["hidden"], held_out)
    floor = held_out.loss(base)
    if not task.teacher:
        return Data(*seen, {}, floor)
    held_out.shift = kept["held_out.shift"]  # the teacher's error of its target is the mini model's of the noise
    draws = (kept["noise"], kept["timesteps"], kept["shift"])
    return Data(*seen, planted_ranks(base.unet, task.teacher), held_out.loss(base), floor, draws)


def _of_styles(task: Task, base: StableDiffusion) -> dict[str, Tensor]:
    """Each style's training pictures, and as many test pictures of each as make 32."""
    trained = [picture for style in task.styles for picture in training_pictures(style, task.pictures)]
    tests = [style_set(style, "test")[: 32 // len(task.styles)] for style in task.styles]
    mean, deviation = encode(base, trained)
    test = [picture for pictures in tests for picture in pictures]
    return {
        "mean": mean,
        "deviation": deviation,
        "hidden": _hidden(base, [picture.caption for picture in trained]),
        "held_out.latents": encode(base, test)[0],
        "held_out.hidden": _hidden(base, [picture.caption for picture in test]),
    }


@torch.no_grad()
def encode(model: StableDiffusion, pictures: Sequence[ScenePicture]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the VAE's posterior."""
    parts = to_pictures(np.stack([picture.image for picture in pictures])).split(TOGETHER)
    posteriors = [model.vae.encode(part).latent_dist for part in parts]  # type: ignore[union-attr]
    mean, deviation = (torch.cat([getattr(p, name) for p in posteriors]) for name in ("mean", "std"))
    return mean * model.scaling_factor, deviation * model.scaling_factor


@torch.no_grad()
def _hidden(model: StableDiffusion, captions: Sequence[str]) -> Tensor:
    return TextConditioner(model).encode(captions).hidden.contiguous()


def _of_teacher(teacher: Teacher, base: StableDiffusion) -> dict[str, Tensor]:
    """Drawings of the pretraining's kind, and by how much the teacher's predictions differ from the mini model's."""
    unet = copy.deepcopy(base.unet)
    plant(unet, teacher)
    rng = stream("pictures of the teachers")
    pictures = [draw_for_pretraining(rng) for _ in range(TEACHER_PICTURES + TEACHER_HELD_OUT)]
    latents, hidden = encode(base, pictures)[0], _hidden(base, [picture.caption for picture in pictures])
    held_out = HeldOut.of_latents(base, latents[TEACHER_PICTURES:], hidden[TEACHER_PICTURES:])
    generator = torch.Generator().manual_seed(0)
    mean, hidden = latents[:TEACHER_PICTURES], hidden[:TEACHER_PICTURES]
    noise = torch.randn(TEACHER_DRAWS, *mean.shape, generator=generator)
    timesteps = torch.randint(0, 1000, (TEACHER_DRAWS, len(mean)), generator=generator)
    pairs = zip(noise, timesteps, strict=True)
    return {
        "mean": mean.contiguous(),
        "deviation": torch.zeros_like(mean),
        "hidden": hidden.contiguous(),
        "noise": noise,
        "timesteps": timesteps,
        "shift": torch.stack([difference(unet, base, mean, hidden, e, t) for e, t in pairs]),
        "held_out.latents": latents[TEACHER_PICTURES:].contiguous(),
        "held_out.hidden": held_out.hidden[:TEACHER_HELD_OUT].contiguous(),
        "held_out.shift": difference(
            unet, base, held_out.latents, held_out.hidden, held_out.noise, held_out.timesteps
        ).contiguous(),
    }


@torch.no_grad()
def difference(
    unet: nn.Module, base: StableDiffusion, latents: Tensor, hidden: Tensor, noise: Tensor, timesteps: Tensor
) -> Tensor:
    """The teacher's prediction minus the mini model's, of noisy latents."""
    noisy = add_noise(latents, noise, alphas_cumprod(base.scheduler_config)[timesteps])
    rows = [slice(i, i + TOGETHER) for i in range(0, len(noisy), TOGETHER)]
    parts = [
        unet(noisy[r], timesteps[r], hidden[r]).sample - base.unet(noisy[r], timesteps[r], hidden[r]).sample
        for r in rows
    ]
    return torch.cat(parts)


def adapted_layers(unet: nn.Module) -> dict[str, nn.Module]:
    """The layers beside which `networks.lora` puts its modules, by the modules' names, in the U-Net's order."""
    layers: dict[str, nn.Module] = {}
    for path, block in unet.named_modules():
        if type(block).__name__ == "Transformer2DModel":
            for inside, layer in block.named_modules():
                is_point = isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)
                if isinstance(layer, nn.Linear) or is_point:
                    layers[f"lora_unet_{path}.{inside}".replace(".", "_")] = layer
    return layers


def planted_ranks(unet: nn.Module, teacher: Teacher) -> dict[str, int]:
    """The rank of every layer: transformer blocks take the teacher's ranks in turn."""
    blocks = [path for path, block in unet.named_modules() if type(block).__name__ == "Transformer2DModel"]
    of_block = {f"lora_unet_{p}".replace(".", "_"): teacher.ranks[i % len(teacher.ranks)] for i, p in enumerate(blocks)}
    return {name: next(r for b, r in of_block.items() if name.startswith(f"{b}_")) for name in adapted_layers(unet)}


@torch.no_grad()
def plant(unet: nn.Module, teacher: Teacher, seed: int = 0) -> None:
    """Add a difference of its rank to every adapted layer: U diag(s) V^T, s flat or falling, U and V random."""
    ranks = planted_ranks(unet, teacher)
    generator = torch.Generator().manual_seed(seed)
    for name, layer in adapted_layers(unet).items():
        weight: Tensor = layer.weight  # type: ignore[assignment]
        rows, columns = weight.flatten(1).shape
        u, v = (torch.linalg.qr(torch.randn(n, ranks[name], generator=generator))[0] for n in (rows, columns))
        spectrum = torch.arange(1, ranks[name] + 1) ** (FALLING if teacher.falls else 0.0)
        delta = u * spectrum @ v.T
        weight += (delta * teacher.size * weight.norm() / delta.norm()).view_as(weight)
