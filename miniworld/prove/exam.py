"""What the networks of one held-out style are examined on: made once for a style, the same for every arm."""

from __future__ import annotations

import copy
import dataclasses
import importlib
from argparse import Namespace
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from library.files import read_tensors
from library.metrics.distances import frechet_distance
from library.models.family import StableDiffusion
from library.models.load import load_model
from library.training.trained.network import NetworkSpec, create_network
from miniworld.judge import Judge
from miniworld.pretrain.preview import save_grid
from miniworld.prove.measures import HeldOut, content_score, draw, similarity, through_vae
from miniworld.scenes import draw_for_pretraining
from miniworld.sets import STYLE_SIZES, stream, style_set

MODEL = Path(__file__).parents[1] / "model"
REFERENCE_SETS = 4
"""Of test pictures in the style: 128 drawings are what the Fréchet distance is measured to."""
SHOWN = 8
"""Pictures of an arm in its row of examples."""


class StyleExam:
    """The base model, a style's 32 test pictures, 32 pictures of the pretraining's kind, and the judge."""

    def __init__(self, style: str) -> None:
        self.style = style
        self.base = load_model(MODEL)
        self.judge = Judge.load()
        self.test = style_set(style, "test")
        rng = stream("what the model could do before")
        self._held_out = HeldOut(self.base, self.test)
        self._prior = HeldOut(self.base, [draw_for_pretraining(rng) for _ in range(STYLE_SIZES["test"])])

    def held_out_loss(self, model: StableDiffusion) -> float:
        return self._held_out.loss(model)

    def with_network(self, module: str, file: Path, scale: float = 1.0) -> StableDiffusion:
        """The mini model with a trained network: merged at `scale` where the file is of the LoRA kind, else applied."""
        tensors, _ = read_tensors(file)
        if any(name.endswith(".lora_up.weight") for name in tensors):
            return with_file(self.base, file, scale)
        model = dataclasses.replace(self.base, unet=copy.deepcopy(self.base.unet))
        spec = NetworkSpec(network_weights=file, dim_from_weights=True, network_train_unet_only=True)
        network = create_network(importlib.import_module(module), spec, {}, model, Namespace())
        network.eval().requires_grad_(False)
        return model

    def measure(self, model: StableDiffusion, examples: Path) -> dict[str, Any]:
        """Figures of what the model draws from the test captions, and of what it has forgotten."""
        pictures = draw(model, [picture.caption for picture in self.test])
        rows = torch.from_numpy(np.concatenate([self._drawings[:SHOWN], pictures[:SHOWN]])).permute(0, 3, 1, 2)
        examples.parent.mkdir(parents=True, exist_ok=True)
        save_grid(rows / 127.5 - 1, examples, columns=SHOWN)
        return {"prior": self._prior.loss(model), **self._see(pictures)}

    def measure_base(self, examples: Path) -> dict[str, Any]:
        """The base model's figures, and the ceiling: the test drawings themselves, sent through the VAE."""
        loss = self.held_out_loss(self.base)
        ceiling = self._see(through_vae(self.base, self._drawings))
        return {
            **{"end": loss, "best": loss, "best_step": 0},
            **self.measure(self.base, examples),
            **{f"ceiling_{name}": value for name, value in ceiling.items()},
        }

    def _see(self, pictures: np.ndarray) -> dict[str, float]:
        features = self.judge.features(pictures)
        return {
            "frechet": frechet_distance(features, self._reference),
            "similarity": similarity(features, self.judge.features(self._drawings)),
            "style_score": self.judge.style_score(pictures, self.style),
            "content_score": content_score(self.judge, pictures, self.test),
        }

    @cached_property
    def _drawings(self) -> np.ndarray:
        return np.stack([picture.image for picture in self.test])

    @cached_property
    def _reference(self) -> Tensor:
        sets = [style_set(self.style, "test", seed) for seed in range(REFERENCE_SETS)]
        return self.judge.features([picture.image for pictures in sets for picture in pictures])


def with_file(base: StableDiffusion, file: Path, scale: float = 1.0) -> StableDiffusion:
    """The model with a LoRA file merged into a copy of its U-Net."""
    model = dataclasses.replace(base, unet=copy.deepcopy(base.unet))
    merge(model.unet, read_tensors(file)[0], scale)
    return model


@torch.no_grad()
def merge(unet: nn.Module, tensors: Mapping[str, Tensor], multiplier: float = 1.0) -> None:
    """Add multiplier * (alpha / rank) B A of a LoRA file to the U-Net's weights.

    By the tensors alone, not by a network module: LyCORIS 3.4.0 cannot load the files that its DyLoRA writes for 1 x 1
    convolutions. Raises `KeyError` for a name that the U-Net has not.
    """
    layers = {f"lora_unet_{path.replace('.', '_')}": layer for path, layer in unet.named_modules()}
    for name, up in tensors.items():
        if name.endswith(".lora_up.weight"):
            module = name.removesuffix(".lora_up.weight")
            down, weight = tensors[f"{module}.lora_down.weight"], layers[module].weight
            scale = multiplier * float(tensors[f"{module}.alpha"]) / len(down)
            weight += scale * (up.flatten(1) @ down.flatten(1)).view_as(weight)  # type: ignore[operator]
