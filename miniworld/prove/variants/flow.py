"""`python -m miniworld.prove flow`: does a LoRA on rectified flow move the style as one on a model of noise?

The model of rectified flow is the mini model, trained on by `python -m miniworld.flow_model`. On both the same LoRA is
trained on a held-out style's 15 pictures, at the same steps, batch and rate; the judge sees what they draw from the
test captions, with and without it. Losses are each model's own on 32 pictures of other content, as shares of its
target's square: those of one model compare with each other, not with the other model's.

Arms are kept as lines of JSON, keyed by their settings: a second call goes on where the first stopped, and `--minutes`
stops in time. Prints the table of the finished arms; `--write-docs FILE` puts it there between its marks.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from library.diffusion.loss import squared_error
from library.diffusion.rectified_flow import TIMESTEPS, flow_velocity, interpolated
from library.errors import UserError
from library.files import write_text
from library.models.family import StableDiffusion
from library.models.load import load_model
from miniworld.draw import write_dataset
from miniworld.flow_model import OUTPUT as FLOW
from miniworld.judge import Judge
from miniworld.prove.arms import command_line, lora
from miniworld.prove.exam import MODEL, with_file
from miniworld.prove.measures import BATCH, HeldOut, content_score, draw, similarity
from miniworld.prove.results import UNET, Results, add_options, measure_what_is_missing
from miniworld.prove.tables import cell, markdown, write_between_marks
from miniworld.scenes import ScenePicture
from miniworld.sets import style_set

OUTPUT = Path("output/prove/flow")
RANK = 16
UNTRAINED, TRAINED = "base model", "LoRA"


def prove(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m miniworld.prove flow", description=__doc__)
    parser.add_argument("--flow", type=Path, default=FLOW / "model", help="the model that miniworld.flow_model wrote")
    parser.add_argument("--styles", nargs="*", default=["oil", "comic"], help="which styles")
    parser.add_argument("--steps", type=int, default=400, help="optimizer steps of an arm")
    parser.add_argument("--write-docs", type=Path, metavar="FILE", help="put the table between its marks in this file")
    add_options(parser, OUTPUT)
    arguments = parser.parse_args(argv)
    if not arguments.flow.is_dir():
        raise UserError(f"there is no model in {arguments.flow}; make it with python -m miniworld.flow_model")
    torch.set_num_threads(1)
    models = {"noise": MODEL, "rectified flow": arguments.flow}
    weights = (UNET, arguments.flow / "unet" / UNET.name)
    results = Results(arguments.output / "arms.jsonl", weights)
    load, judge = lru_cache(maxsize=None)(load_model), Judge.load()

    def measure(key: Mapping[str, Any]) -> dict[str, Any]:
        return train_and_measure(key, models[key["model"]], load(models[key["model"]]), judge, arguments.output)

    measure_what_is_missing(
        results, keys(arguments.styles, arguments.steps, arguments.seeds), measure, arguments.minutes
    )
    text = results.signed(table(results.arms))
    write_text(arguments.output / "table.md", text)
    if arguments.write_docs:
        write_between_marks(arguments.write_docs, "prove flow", text)
    print(text)


def keys(styles: Sequence[str], steps: int, seeds: int) -> Iterator[dict[str, Any]]:
    """What both models draw untrained, then the arms of one seed, then those of the next."""
    kinds = ("noise", "rectified flow")
    for style in styles:
        yield from ({"style": style, "model": kind, "what": UNTRAINED} for kind in kinds)
    for seed in range(seeds):
        for style in styles:
            for kind in kinds:
                yield {"style": style, "model": kind, "what": TRAINED, "steps": steps, "seed": seed}


def train_and_measure(
    key: Mapping[str, Any], folder_of_model: Path, base: StableDiffusion, judge: Judge, output: Path
) -> dict[str, Any]:
    style, test = key["style"], style_set(key["style"], "test")
    if key["what"] == UNTRAINED:
        return measure_model(base, judge, style, test)
    folder = output / f"{style}-{key['model']}-{key['seed']}".replace(" ", "-")
    shutil.rmtree(folder, ignore_errors=True)
    write_dataset(folder / "pictures" / f"1_{style}", style_set(style, "train"))
    train(folder_of_model, folder, key["steps"], key["seed"])
    measured = measure_model(with_file(base, folder / "network.safetensors"), judge, style, test)
    shutil.rmtree(folder)
    return measured


def train(model: Path, folder: Path, steps: int, seed: int) -> None:
    """A folder of a rectified-flow model says so itself; no option has to."""
    import train_network

    words = [*command_line(lora(RANK), folder, steps, seed), "--no-report", "--overwrite"]
    words[words.index("--pretrained_model_name_or_path") + 1] = str(model)
    if code := train_network.main(words):
        raise UserError(f"the arm {folder.name} ended with exit code {code}")


def measure_model(model: StableDiffusion, judge: Judge, style: str, test: Sequence[ScenePicture]) -> dict[str, Any]:
    pictures = draw(model, [picture.caption for picture in test])
    drawings = judge.features([picture.image for picture in test])
    return {
        "relative_loss": relative_loss(model, HeldOut(model, test)),
        "style_score": judge.style_score(pictures, style),
        "content_score": content_score(judge, pictures, test),
        "similarity": similarity(judge.features(pictures), drawings),
    }


@torch.no_grad()
def relative_loss(model: StableDiffusion, pictures: HeldOut) -> float:
    """The mean squared error over the mean square of the target: of the noise, or of the velocity."""
    if not model.is_flow:
        return pictures.loss(model) / float(pictures.noise.square().mean())
    target = flow_velocity(pictures.latents, pictures.noise)
    sigma = pictures.timesteps / TIMESTEPS
    noisy = interpolated(pictures.latents, pictures.noise, sigma)
    errors = [
        squared_error(model.unet(x, TIMESTEPS * s, h).sample, t)
        for x, s, h, t in zip(*(part.split(BATCH) for part in (noisy, sigma, pictures.hidden, target)), strict=True)
    ]
    return float(torch.cat(errors).mean() / target.square().mean())


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """A row for each model, untrained and trained; means over styles and seeds."""
    rows = []
    for kind in ("noise", "rectified flow"):
        for what in (UNTRAINED, TRAINED):
            mine = [arm for arm in results if (arm["model"], arm["what"]) == (kind, what)]
            if mine:
                columns = [("relative_loss", 4), ("style_score", 2), ("content_score", 2), ("similarity", 3)]
                rows.append([kind, what, len(mine), *(cell(mine, *column) for column in columns)])
    return markdown(["model", "what", "n", "held-out loss / target²", "style", "content", "similarity"], rows)
