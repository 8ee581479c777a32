"""A very small model and a few files, for hundreds of runs of two steps."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel

from library.models.family import Family, StableDiffusion
from miniworld.tiny import tiny_configs, tiny_tokenizer

SIZES = ((96, 64), (64, 160), (64, 64), (128, 128))
CAPTIONS = (
    "sks, zwx, a {red|blue} circle, (cat:1.5), dog;;;boat, tree\na house, river",
    "sks, zwx, green, yellow ||| a man, black, white, stone ||| a square, bridge",
    "sks, zwx, a portrait of a woman, smiling, hat, coat, river, stone",
    "sks, zwx, " + " ".join(["a boy and a girl with a dog on the bridge"] * 12),
)


@cache
def micro_model(name: str) -> StableDiffusion:
    """Two levels, one layer each; another name is another seed."""
    configs = tiny_configs(Family.SD1)
    unet = configs["unet"] | {
        "block_out_channels": [8, 8],
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "attention_head_dim": 2,
    }
    vae = configs["vae"] | {"block_out_channels": [4, 4, 4, 4], "layers_per_block": 1, "norm_num_groups": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sum(map(ord, name)))
        model = StableDiffusion(
            family=Family.SD1,
            prediction_type="epsilon",
            unet=UNet2DConditionModel(**unet),
            vae=AutoencoderKL(**vae),
            text_encoders=[CLIPTextModel(CLIPTextConfig(**configs["text_encoder"]))],
            tokenizers=[tiny_tokenizer(None)],
            scheduler_config=configs["scheduler"],
            source=Path(name),
        )
    for module in model.modules.values():
        module.requires_grad_(False).eval()
    return model


def load_micro_model(path: Any, **asked: Any) -> StableDiffusion:
    """What is in for the loading of files: a copy of the model of that name, as it was asked for.

    That files are loaded as asked for is tested where models are; here it is tested that they are asked for.
    """
    model = copy.deepcopy(micro_model(Path(path).name))
    if asked["vae"] is not None:
        model.vae = copy.deepcopy(micro_model(Path(asked["vae"]).name).vae)
    if asked["prediction_type"] is not None:
        model.prediction_type = asked["prediction_type"]
    model.scheduler_config["prediction_type"] = model.prediction_type
    for name, module in model.modules.items():
        dtype = asked["vae_dtype"] if name == "vae" and asked["vae_dtype"] is not None else asked["dtype"]
        torch.nn.Module.to(module, dtype)
    if asked["tokenizer_cache_dir"] is not None:
        model.notes.append(f"the tokenizer comes from {asked['tokenizer_cache_dir']}")
    return model


def make_world(root: Path) -> None:
    """Everything that the cases name, under `root`."""
    for name in ("model", "other_model", "other_vae"):
        (root / name).mkdir()
    for i, folder in enumerate(("pictures", "other_pictures", "reg")):
        _pictures(root / folder / "1_sks", seed=i)
    for file in (root / "pictures" / "1_sks").glob("*.png"):
        (root / "masks").mkdir(exist_ok=True)
        half = np.zeros((*Image.open(file).size[::-1], 3), dtype=np.uint8)
        half[: half.shape[0] // 2] = 255
        Image.fromarray(half).save(root / "masks" / file.name)
    images = {str(file): {"caption": "a cat"} for file in sorted((root / "pictures" / "1_sks").glob("*.png"))}
    (root / "captions.json").write_text(json.dumps(images), encoding="utf-8")
    (root / "prompts.txt").write_text("a cat --w 64 --h 64 --s 1 --d 1\n", encoding="utf-8")
    (root / "config.toml").write_text("noise_offset = 0.5\n", encoding="utf-8")
    (root / "odd.toml").write_text("noise_ofset = 0.5\n", encoding="utf-8")
    (root / "tracker.toml").write_text('[wandb]\nnotes = "mine"\n', encoding="utf-8")
    (root / "thumb.png").write_bytes(next((root / "pictures" / "1_sks").glob("*.png")).read_bytes())
    _dataset_config(root / "dataset.toml", root, "num_repeats = 2")
    _dataset_config(root / "masked.toml", root, f"conditioning_data_dir = {str(root / 'masks')!r}")
    (root / "halved_lora.py").write_text(HALVED, encoding="utf-8")
    (root / "wandb.py").write_text(WANDB, encoding="utf-8")


def _pictures(folder: Path, seed: int) -> None:
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for i, (size, caption) in enumerate(zip(SIZES, CAPTIONS, strict=True)):
        pixels = generator.integers(0, 255, (size[1], size[0], 4), dtype=np.uint8)
        # The four numbers are for face crops: centre and size of the face.
        stem = f"{i}_{size[0] // 3}_{size[1] // 3}_24_24"
        Image.fromarray(pixels).save(folder / f"{stem}.png")
        (folder / f"{stem}.txt").write_text(caption, encoding="utf-8")
        (folder / f"{stem}.text").write_text("a boat", encoding="utf-8")


def _dataset_config(path: Path, root: Path, line: str) -> None:
    path.write_text(
        "[[datasets]]\nresolution = 64\nbatch_size = 2\n[[datasets.subsets]]\n"
        f"image_dir = {str(root / 'pictures' / '1_sks')!r}\n{line}\n",
        encoding="utf-8",
    )


HALVED = '''"""A network module that somebody else wrote: a LoRA of half the strength."""

from networks import lora


def create_network(multiplier, dim, alpha, *rest, **arguments):
    return lora.create_network(multiplier, dim, alpha / 2, *rest, **arguments)
'''

WANDB = '''"""A tracker that leaves what it is told in a file."""

import json
from pathlib import Path


class Run:
    def __init__(self, settings):
        self.file = Path(settings["dir"], "wandb.json")
        self.file.write_text(json.dumps(settings, default=str, sort_keys=True))

    def log(self, figures, step):
        pass

    def finish(self):
        pass


def login(key):
    Path("wandb_key.txt").write_text(key)


def init(**settings):
    return Run(settings)
'''
