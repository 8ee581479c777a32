"""Stage 3: the text encoder alone, by contrast with pictures, as CLIP's was.

A small convolutional network reads noisy latents; captions and pictures that belong together must be closer than the
rest of a group. Token rows are held small after every step, so that CLIP's scales hold by construction: outputs of
norm about sqrt(width), rows at least thirty times smaller.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from miniworld.architecture import (
    TEXT_WIDTH,
    build_text_encoder,
    keep_clip_scales,
    token_rows,
    use_plain_attention,
)
from miniworld.pretrain import drawings
from miniworld.pretrain.lockstep import Process, TrainingStage, draws, noise_generator, write_atomically
from miniworld.pretrain.schedule import learning_rate
from miniworld.tokenizer import load_tokenizer, token_ids

CAPTION_TOKENS = 40  # the longest caption is shorter; the padding behind it changes nothing before it
VALIDATION_PICTURES = 400
LATENT_NOISE = 0.15
WEIGHT_DECAY = 0.05


@dataclass(frozen=True)
class TextEncoderRecipe:
    steps: int | None
    minutes: float | None
    groups: int = 2  # contrasted each on its own: a process takes whole groups
    group_size: int = 128
    peak_rate: float = 1.5e-3


class PictureReader(nn.Sequential):
    """Latents (n, 4, 16, 16) -> features (n, width): five convolutions and a linear layer."""

    def __init__(self, width: int = TEXT_WIDTH) -> None:
        def layer(inputs: int, outputs: int, stride: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(8, outputs), nn.SiLU())

        super().__init__(
            layer(4, 48, 1), layer(48, 96, 2), layer(96, 96, 1), layer(96, 160, 2), layer(160, 160, 1),
            nn.Flatten(), nn.Linear(160 * 16, width),
        )  # fmt: skip


class Matcher(nn.Module):
    """The text encoder, its projection, the picture reader and their temperature."""

    def __init__(self, vocabulary_size: int) -> None:
        super().__init__()
        self.end_of_text = vocabulary_size - 1
        self.text_encoder = build_text_encoder(vocabulary_size)
        self.projection = nn.Linear(TEXT_WIDTH, TEXT_WIDTH, bias=False)
        self.pictures = PictureReader()
        self.log_scale = nn.Parameter(torch.tensor(2.3))

    def forward(self, latents: Tensor, ids: Tensor) -> Tensor:
        """Scaled cosine similarities, (pictures, captions)."""
        hidden = self.text_encoder(ids).last_hidden_state.float()
        last = ids.eq(self.end_of_text).int().argmax(1)
        told = self.projection(hidden[torch.arange(len(ids)), last])
        seen = self.pictures(latents).float()
        return F.normalize(seen, dim=-1) @ F.normalize(told, dim=-1).T * self.log_scale.exp().clamp(max=100)


def train(process: Process, folder: Path, seed: int, recipe: TextEncoderRecipe) -> None:
    """Train and write the text encoder's weights to `folder/text_encoder.pt`."""
    tokenizer = load_tokenizer(folder / "tokenizer")
    latents = torch.load(folder / "latents.pt", weights_only=True, mmap=True)
    ids = token_ids(tokenizer, drawings.read(folder, "train").captions, CAPTION_TOKENS)
    seen = latents["validation"][:VALIDATION_PICTURES].float().to(process.device)
    told = token_ids(tokenizer, drawings.read(folder, "validation").captions[: len(seen)], CAPTION_TOKENS)
    torch.manual_seed(seed)
    matcher = Matcher(len(tokenizer)).to(process.device)
    use_plain_attention(matcher.text_encoder)
    optimizer = torch.optim.AdamW(
        parameter_groups(matcher), recipe.peak_rate, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY, fused=True
    )
    stage = TrainingStage(
        "text_encoder", folder, process, matcher, optimizer,
        steps=recipe.steps, minutes=recipe.minutes, average_decay=0.98,
    )  # fmt: skip
    for step in stage.remaining():
        rng = draws(seed, "text_encoder", step)
        groups = rng.integers(len(ids), size=(recipe.groups, recipe.group_size))
        generators = [noise_generator(rng) for _ in groups]
        total = 0.0
        share = range(recipe.groups)[process.share(recipe.groups)]
        for i in share:
            chosen = torch.from_numpy(groups[i])
            clean = latents["train"][chosen].float()
            noisy = clean + LATENT_NOISE * torch.randn(clean.shape, generator=generators[i])
            with process.autocast():
                similarity = matcher(noisy.to(process.device), ids[chosen].to(process.device))
            loss = contrast(similarity) / len(share)
            loss.backward()
            total += loss.item()
        stage.update(learning_rate(step, stage.steps, recipe.peak_rate, warm_up=50))
        keep_clip_scales(matcher.text_encoder)
        if stage.report_due():
            with stage.averaged():
                stage.report(loss=total, retrieval=retrieval(matcher, seen, told.to(process.device)))
    if process.first:
        with stage.averaged():
            keep_clip_scales(matcher.text_encoder)
            write_atomically(matcher.text_encoder.state_dict(), folder / "text_encoder.pt")
            found = retrieval(matcher, seen, told.to(process.device))
            ratio = norm_ratio(matcher.text_encoder, told)
            stage.say(f"finds {found:.1%} of {len(seen)} captions; output norm / row norm {ratio:.1f}")


def parameter_groups(model: nn.Module, **settings: float) -> list[dict]:
    """Token rows and norms without weight decay: decay would pull the rows of rare words to nothing."""
    matrices = [p for n, p in model.named_parameters() if p.ndim > 1 and "embedding" not in n and p.requires_grad]
    others = [p for n, p in model.named_parameters() if (p.ndim < 2 or "embedding" in n) and p.requires_grad]
    return [{"params": matrices, **settings}, {"params": others, "weight_decay": 0.0, **settings}]


def contrast(similarity: Tensor) -> Tensor:
    """CLIP's loss: each picture must find its caption and each caption its picture."""
    target = torch.arange(len(similarity), device=similarity.device)
    return (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)) / 2


@torch.no_grad()
def retrieval(matcher: Matcher, latents: Tensor, ids: Tensor) -> float:
    """The share of pictures whose own caption is the closest of all."""
    best = matcher(latents, ids).argmax(1)
    return float((best == torch.arange(len(best), device=best.device)).float().mean())


@torch.no_grad()
def norm_ratio(encoder: Any, ids: Tensor) -> float:
    """Mean norm of the outputs over mean norm of the token rows that the captions use."""
    outputs = encoder(ids.to(encoder.device)).last_hidden_state.norm(dim=-1).mean()
    rows = token_rows(encoder)[ids.unique().to(encoder.device)].norm(dim=-1).mean()
    return float(outputs / rows)
