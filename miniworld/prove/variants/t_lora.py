"""`python -m miniworld.prove t_lora`: does a rank that follows the timestep learn few pictures better than a fixed one?

LoRA, T-LoRA (plain, and with an orthogonal start), AC-LoRA and AC-LoRA by timestep, at the same steps, batch and rate:
on held-out styles from 15 pictures and from one, and on held-out people from one. Files are plain LoRAs and are
measured as such, all slots at all timesteps; for the masked methods the loss on held-out pictures is measured with the
mask, too: the difference is what inference without it costs.

Arms are kept as lines of JSON, keyed by their settings: a second call goes on where the first stopped, and `--minutes`
stops in time. Prints the table of the finished arms; `--write-docs FILE` puts it there between its marks.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import shutil
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from library.errors import UserError
from library.files import write_text
from library.models.family import StableDiffusion
from library.training.trained.network import NetworkSpec, create_network
from miniworld.draw import write_dataset
from miniworld.prove.ac_lora import ac_lora
from miniworld.prove.arms import Method, command_line, lora
from miniworld.prove.exam import StyleExam
from miniworld.prove.persons import TestPerson, called
from miniworld.prove.results import Results, add_options, measure_what_is_missing
from miniworld.prove.tables import cell, markdown, write_between_marks
from miniworld.sets import style_set
from miniworld.styles import HELD_OUT_STYLES
from networks import t_lora

OUTPUT = Path("output/prove/t_lora")
RANK = 16
METHODS = {
    method.name: method
    for method in (
        dataclasses.replace(lora(RANK), name="LoRA"),
        Method("T-LoRA", RANK, "networks.t_lora"),
        Method("T-LoRA orthogonal", RANK, "networks.t_lora", ("t_start=random",)),
        dataclasses.replace(ac_lora("product", RANK), name="AC-LoRA"),
        Method("AC-LoRA by timestep", RANK, "networks.ac_lora", ("ac_mode=product", "ac_timesteps=on")),
    )
}


def prove(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m miniworld.prove t_lora", description=__doc__)
    parser.add_argument("--styles", nargs="*", default=["oil", "comic"], help="which styles")
    parser.add_argument("--people", nargs="*", default=["id01", "id02"], help="which people")
    parser.add_argument("--steps", type=int, default=400, help="optimizer steps of an arm")
    parser.add_argument("--write-docs", type=Path, metavar="FILE", help="put the table between its marks in this file")
    add_options(parser, OUTPUT)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    results = Results(arguments.output / "arms.jsonl")
    exams = lru_cache(maxsize=None)(StyleExam)
    measure_what_is_missing(
        results,
        keys(arguments.styles, arguments.people, arguments.steps, arguments.seeds),
        lambda key: train_and_measure(key, exams, arguments.output),
        arguments.minutes,
    )
    text = results.signed(table(results.arms))
    write_text(arguments.output / "table.md", text)
    if arguments.write_docs:
        write_between_marks(arguments.write_docs, "prove t_lora", text)
    print(text)


def keys(styles: Sequence[str], people: Sequence[str], steps: int, seeds: int) -> Iterator[dict[str, Any]]:
    """The arms of one seed, then those of the next; one picture of a person first, which T-LoRA is for."""
    tasks = [(name, 1) for name in (*people, *styles)] + [(style, 15) for style in styles]
    for seed in range(seeds):
        for subject, pictures in tasks:
            for method in METHODS:
                yield {"subject": subject, "pictures": pictures, "method": method, "steps": steps, "seed": seed}


def train_and_measure(key: Mapping[str, Any], exams: Any, output: Path) -> dict[str, Any]:
    """Train one arm and measure its file, without the mask and with it."""
    subject, method = key["subject"], METHODS[key["method"]]
    folder = output / f"{subject}-{key['pictures']}-{method.name}-{key['seed']}".replace(" ", "-")
    shutil.rmtree(folder, ignore_errors=True)
    style = subject if subject in HELD_OUT_STYLES else "oil"  # whose exam has the base model and the judge, too
    exam: StyleExam = exams(style)
    person = None if subject in HELD_OUT_STYLES else TestPerson(subject, exam.base, exam.judge)
    if person is None:
        write_dataset(folder / "pictures" / f"1_{style}", style_set(style, "train")[: key["pictures"]])
    else:
        person.write_pictures(folder / "pictures", 1)
    train(method, folder, key["steps"], key["seed"])
    file = folder / "network.safetensors"
    model = exam.with_network(method.module, file)
    examples = folder.with_suffix(".png")
    measured: dict[str, Any]
    if person is None:
        measured = {"held_out": exam.held_out_loss(model), **exam.measure(model, examples)}
        if method.module == "networks.t_lora":  # files of AC-LoRA are cut: how many slots were active is not in them
            measured["held_out_masked"] = masked_loss(exam, method, file)
    else:
        measured = person.examine(model, called(f"sks {person.gender}"), examples)
    shutil.rmtree(folder)
    return measured


def masked_loss(exam: StyleExam, method: Method, file: Path) -> float:
    """The loss on held-out pictures with the mask on."""
    model: StableDiffusion = dataclasses.replace(exam.base, unet=copy.deepcopy(exam.base.unet))
    arguments = dict(argument.split("=", 1) for argument in method.arguments)
    spec = NetworkSpec(network_weights=file, dim_from_weights=True, network_train_unet_only=True)
    network: Any = create_network(t_lora, spec, arguments, model, Namespace())
    network.eval().requires_grad_(False)
    network.mask_always(True)
    return exam.held_out_loss(model)


def train(method: Method, folder: Path, steps: int, seed: int) -> None:
    import train_network

    if code := train_network.main([*command_line(method, folder, steps, seed), "--no-report", "--overwrite"]):
        raise UserError(f"the arm {folder.name} ended with exit code {code}")


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """A row for each kind of subject, number of pictures and method; means over subjects and seeds."""
    rows = []
    kinds = [("people", 1), ("styles", 1), ("styles", 15)]
    for kind, pictures in kinds:
        for method in METHODS:
            mine = [r for r in results if r["method"] == method and r["pictures"] == pictures and kind_of(r) == kind]
            if mine:
                columns = [("held_out", 4), ("held_out_masked", 4), ("frechet", 0), ("style_score", 2)]
                columns += [("content_score", 2), ("identity", 2), ("prompt", 2)]
                figures = [cell(mine, *column) for column in columns]
                rows.append([kind, pictures, method, len(mine), figures[0], beside_lora(mine, results), *figures[1:]])
    head = ["subjects", "pictures", "method", "n", "held-out loss", "beside LoRA", "with the mask", "Fréchet", "style"]
    return markdown([*head, "content", "identity", "prompt"], rows)


def beside_lora(arms: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]]) -> str:
    """Held-out loss over that of the LoRA of the same subject, pictures and seed; empty for the LoRA itself."""
    task = ("subject", "pictures", "steps", "seed")
    loras = {tuple(arm[name] for name in task): arm for arm in results if arm["method"] == "LoRA"}
    pairs = [(arm, loras.get(tuple(arm[name] for name in task))) for arm in arms if arm["method"] != "LoRA"]
    return cell([{"ratio": arm["held_out"] / own["held_out"]} for arm, own in pairs if own], "ratio", 2)


def kind_of(arm: Mapping[str, Any]) -> str:
    return "styles" if arm["subject"] in HELD_OUT_STYLES else "people"
