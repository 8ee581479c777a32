"""Prior pictures: faces of nobody in particular that keep G from becoming one person altogether (eq. 2)."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from library.atomic import atomic
from library.models.family import StableDiffusion
from library.models.text import TextConditioner
from library.sampling.generate import generate
from library.sampling.prompts import SamplePrompt

AT_ONCE = 8  # pictures between two looks at what is on disk


def prior_folder(output_dir: Path, class_prompt: str) -> Path:
    """Where generated prior pictures lie: one folder for each class prompt, shared by all people of that class."""
    name = re.sub(r"[^\w ]+", "", class_prompt)[:60].strip()
    return output_dir / f"prior {name}"


def draw_prior(
    model: StableDiffusion, class_prompt: str, folder: Path, count: int, side: int, say: Callable[[str], None]
) -> None:
    """Let G draw what is missing of `count` pictures of the class; those that are there are kept.

    Picture i is a function of the prompt and i alone, so that an interrupted call goes on where it stopped.
    """
    missing = [i for i in range(count) if not (folder / f"{i:04d}.png").is_file()]
    if not missing:
        return
    say(f"drawing {len(missing)} pictures of '{class_prompt}' into {folder}; give reg_data_dir to use others")
    folder.mkdir(parents=True, exist_ok=True)
    conditioner = TextConditioner(model)
    for start in range(0, len(missing), AT_ONCE):
        numbers = missing[start : start + AT_ONCE]
        prompts = [SamplePrompt(class_prompt, width=side, height=side, seed=i) for i in numbers]
        for number, picture in zip(numbers, generate(model, conditioner, prompts), strict=True):
            with atomic(folder / f"{number:04d}.png") as temporary:
                picture.save(temporary)
