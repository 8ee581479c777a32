"""Prior pictures: faces of nobody in particular that keep G from becoming one person altogether (eq. 2)."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from library.models.family import StableDiffusion
from library.models.text import TextConditioner
from library.sampling.generate import generate
from library.sampling.prompts import SamplePrompt
from restoration.image_folders import maker_of, write_png
from restoration.pivots.person import base_mark

logger = logging.getLogger(__name__)

AT_ONCE = 8  # pictures between two looks at what is on disk


def prior_folder(output_dir: Path, class_prompt: str) -> Path:
    """Where generated prior pictures lie: one folder for each class prompt, shared by all people of that class."""
    name = re.sub(r"[^\w ]+", "", class_prompt)[:60].strip()
    return output_dir / f"prior {name}"


def draw_prior(model: StableDiffusion, class_prompt: str, folder: Path, count: int, side: int) -> None:
    """Let G draw what is missing of `count` pictures of the class.

    Picture i is a function of G, prompt, side and i alone, so that an interrupted call goes on where it stopped. Those
    that another G drew, or this one at another size, are drawn anew; those that were put there are kept.
    """
    maker = f"{base_mark(model.unet)} at {side}"
    files = [folder / f"{i:04d}.png" for i in range(count)]
    missing = [i for i, file in enumerate(files) if not file.is_file() or maker_of(file) not in (None, maker)]
    if not missing:
        return
    logger.info(f"drawing {len(missing)} pictures of '{class_prompt}' into {folder}; give reg_data_dir to use others")
    folder.mkdir(parents=True, exist_ok=True)
    conditioner = TextConditioner(model)
    for start in range(0, len(missing), AT_ONCE):
        numbers = missing[start : start + AT_ONCE]
        prompts = [SamplePrompt(class_prompt, width=side, height=side, seed=i) for i in numbers]
        for number, picture in zip(numbers, generate(model, conditioner, prompts), strict=True):
            write_png(files[number], picture, maker)
