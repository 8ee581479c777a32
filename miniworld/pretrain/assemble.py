"""The last stage: what was trained, as a Stable Diffusion folder that diffusers loads, in fp16."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from torch import nn

from library.files import write_json, write_text
from miniworld.architecture import build_scheduler, keep_clip_scales
from miniworld.identities import NAMES
from miniworld.pretrain.unet import build_model
from miniworld.tokenizer import load_tokenizer

TOKENIZER_FILES = ("vocab.json", "merges.txt")  # transformers 5 writes tokenizer.json alone; other programs read these


def assemble(work: Path, output: Path) -> None:
    """Averaged weights, tokenizer, scheduler and the list of names into `output`; a README there is left alone."""
    tokenizer = load_tokenizer(work / "tokenizer")
    model = averaged_model(work, len(tokenizer))
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(work / "vae"),  # type: ignore[arg-type]
        text_encoder=model["text_encoder"],  # type: ignore[arg-type]
        tokenizer=tokenizer,
        unet=model["unet"],  # type: ignore[arg-type]
        scheduler=build_scheduler(),  # type: ignore[arg-type]
        safety_checker=None,  # type: ignore[arg-type]
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(output)
    load_in_float32(output / "text_encoder" / "config.json")
    for name in TOKENIZER_FILES:
        shutil.copyfile(work / "tokenizer" / name, output / "tokenizer" / name)
    write_text(output / "names.txt", "".join(f"{name}\n" for name in NAMES))
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    print(f"[assemble] {output}: {size / 1e6:.2f} MB", flush=True)


def load_in_float32(config: Path) -> None:
    """transformers loads in the type that the config names, diffusers in float32: without this a pipeline that is
    loaded without a type would mix the two."""
    stored = json.loads(config.read_text(encoding="utf-8"))
    write_json(config, stored | {"dtype": "float32"})


def averaged_model(work: Path, vocabulary_size: int) -> nn.ModuleDict:
    """The U-Net and the text encoder with the moving average of their weights."""
    model = build_model(vocabulary_size)
    state = torch.load(work / "unet.checkpoint.pt", weights_only=True, map_location="cpu")
    model.load_state_dict(state["model"])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.no_grad():
        for parameter, average in zip(trained, state["average"], strict=True):
            parameter.copy_(average)
    keep_clip_scales(model["text_encoder"])
    return model.eval()
