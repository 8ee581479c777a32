"""Pictures during training: under sd-scripts' names, with what made them written into the PNG."""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from library.atomic import atomic
from library.errors import Interrupted
from library.models.family import StableDiffusion
from library.sampling.generate import Conditioner, generate
from library.sampling.prompts import SamplePrompt


def write_previews(
    model: StableDiffusion,
    conditioner: Conditioner,
    prompts: Sequence[SamplePrompt],
    folder: Path,
    *,
    output_name: str | None = None,
    epoch: int | None = None,
    step: int = 0,
    run_seed: int = 0,
    sampler: str = "ddim",
    **generating: Any,
) -> list[Path]:
    """Draw every prompt and write it into `folder`; returns the files in the prompts' order.

    `epoch` names the files by epoch, without it they are named by `step`. A prompt without a seed gets one of its own,
    the same each time, from `run_seed` and its place among the prompts. `generating` goes to `generate`. The global
    random generators and the modules' training modes are the same afterwards as before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seeded = [replace(p, seed=seed_for(p, place, run_seed)) for place, p in enumerate(prompts)]
    with undisturbed(model):
        pictures = _draw(lambda chosen: generate(model, conditioner, chosen, sampler=sampler, **generating), seeded)
    now = time.strftime("%Y%m%d%H%M%S")
    files = []
    for index, (given, prompt, picture) in enumerate(zip(prompts, seeded, pictures, strict=True)):
        if picture is None:
            continue
        path = folder / preview_name(index, given.seed, now, output_name=output_name, epoch=epoch, step=step)
        write_png(path, picture, png_texts(prompt, picture, sampler))
        files.append(path)
    return files


def seed_for(prompt: SamplePrompt, place: int, run_seed: int) -> int:
    """The seed of the prompt at `place`: pictures of a prompt differ by what was learnt between them, not by chance."""
    if prompt.seed is not None:
        return prompt.seed
    if prompt.any_seed:
        return secrets.randbits(32)
    return int.from_bytes(blake2b(f"sample {run_seed} {place}".encode(), digest_size=4).digest(), "little")


def _draw(
    draw: Callable[[Sequence[SamplePrompt]], list[Image.Image]], prompts: Sequence[SamplePrompt]
) -> Sequence[Image.Image | None]:
    """All pictures at once; where that fails, one by one, None for a prompt that fails alone, too.

    Raises what `draw` raised where no prompt can be drawn.
    """
    try:
        return draw(prompts)
    except Interrupted:
        raise
    except Exception as error:
        if len(prompts) == 1:
            raise
        pictures = [_draw_alone(draw, prompt) for prompt in prompts]
        if not any(pictures):
            raise error from None
        return pictures


def _draw_alone(draw: Callable[[Sequence[SamplePrompt]], list[Image.Image]], prompt: SamplePrompt) -> Any:
    try:
        return draw([prompt])[0]
    except Interrupted:
        raise
    except Exception as error:
        logging.getLogger(__name__).warning("the sample '%s' is left out: %s", prompt.prompt, error)
        return None


def preview_name(
    index: int, seed: int | None, now: str, *, output_name: str | None, epoch: int | None, step: int
) -> str:
    """`{name_}{e000001 | 000100}_{index}_{time}{_seed}.png`; the seed only where the prompt gives one."""
    prefix = f"{output_name}_" if output_name else ""
    when = f"e{epoch:06d}" if epoch is not None else f"{step:06d}"
    suffix = f"_{seed}" if seed is not None else ""
    return f"{prefix}{when}_{index:02d}_{now}{suffix}.png"


def png_texts(prompt: SamplePrompt, picture: Image.Image, sampler: str) -> dict[str, str]:
    """What it takes to draw the picture again."""
    return {
        "prompt": prompt.prompt,
        "negative_prompt": prompt.negative_prompt,
        "seed": str(prompt.seed),
        "steps": str(prompt.sample_steps),
        "sampler": prompt.sample_sampler or sampler,
        "scale": str(prompt.scale),
        "size": f"{picture.width}x{picture.height}",
    }


def write_png(path: Path, picture: Image.Image, texts: dict[str, str]) -> None:
    """A PNG with text chunks, whole or not at all."""
    info = PngInfo()
    for key, text in texts.items():
        info.add_itxt(key, text)  # iTXt is UTF-8: prompts come in any script
    with atomic(path) as temporary:
        picture.save(temporary, format="PNG", pnginfo=info)


@contextmanager
def undisturbed(model: StableDiffusion) -> Iterator[None]:
    """Evaluation mode inside; training modes of every submodule and all global generators as before, outside."""
    modes = [(module, module.training) for part in model.modules.values() for module in part.modules()]
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices):
            for part in model.modules.values():
                part.eval()
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        for module, training in modes:
            module.training = training
