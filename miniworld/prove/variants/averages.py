"""`python -m miniworld.prove averages`: is the average as good as the best step, without held-out pictures?

Every arm is a run of train_network.py on a held-out style's 15 pictures with `ema_decay`. The last file, the average
and the best of the files along the way (chosen by the very pictures that judge it, so it is a bound) are judged by the
denoising loss on 32 other pictures and by what the judge sees in what they draw. With AC-LoRA the average begins again
at each RESTART, or is carried on over it, as a run does not: the table says which is better.

Arms are kept as lines of JSON, keyed by their settings: a second call goes on where the first stopped, and `--minutes`
stops in time. Prints the table of the finished arms; `--write-docs FILE` puts it there between its marks.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from library.errors import UserError
from library.files import write_text
from library.training.optim.weight_averages import WeightAverages
from miniworld.draw import write_dataset
from miniworld.prove.ac_lora import ac_lora
from miniworld.prove.arms import Method, command_line, lora, measured_steps
from miniworld.prove.exam import StyleExam
from miniworld.prove.results import Results, add_options, measure_what_is_missing
from miniworld.prove.tables import cell, markdown, write_between_marks
from miniworld.sets import style_set

OUTPUT = Path("output/prove/averages")
METHODS = {"LoRA 16": lora(16), "AC-LoRA product 32": ac_lora("product", 32)}
RESET, CARRIED = "begun again", "carried on"
DECAYS = (0.99, 0.97)


def prove(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m miniworld.prove averages", description=__doc__)
    parser.add_argument("--styles", nargs="*", default=["oil", "comic"], help="which styles")
    parser.add_argument("--steps", type=int, default=600, help="optimizer steps of an arm")
    parser.add_argument("--write-docs", type=Path, metavar="FILE", help="put the table between its marks in this file")
    add_options(parser, OUTPUT)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    results = Results(arguments.output / "arms.jsonl")
    exams = lru_cache(maxsize=None)(StyleExam)
    measure_what_is_missing(
        results,
        keys(arguments.styles, arguments.steps, arguments.seeds),
        lambda key: train_and_measure(key, exams(key["style"]), arguments.output),
        arguments.minutes,
    )
    text = results.signed(table(results.arms))
    write_text(arguments.output / "table.md", text)
    if arguments.write_docs:
        write_between_marks(arguments.write_docs, "prove averages", text)
    print(text)


def keys(styles: Sequence[str], steps: int, seeds: int) -> Iterator[dict[str, Any]]:
    """The arms of one seed, then those of the next."""
    kinds = [("LoRA 16", decay, "") for decay in DECAYS]
    kinds += [("AC-LoRA product 32", DECAYS[0], restarts) for restarts in (RESET, CARRIED)]
    for seed in range(seeds):
        for method, decay, restarts in kinds:
            for style in styles:
                yield {"style": style, "method": method, "decay": decay, "restarts": restarts, "steps": steps,
                       "seed": seed}  # fmt: skip


def train_and_measure(key: Mapping[str, Any], exam: StyleExam, output: Path) -> dict[str, Any]:
    """Train one arm; figures of its last weights, of their average, and of its best step."""
    name = f"{key['style']}-{key['method']}-{key['decay']}-{key['restarts']}-{key['seed']}".replace(" ", "-")
    folder = output / name
    shutil.rmtree(folder, ignore_errors=True)
    write_dataset(folder / "pictures" / f"1_{key['style']}", style_set(key["style"], "train"))
    method, steps = METHODS[key["method"]], key["steps"]
    with carried_over() if key["restarts"] == CARRIED else nullcontext():
        train(method, folder, steps, key["seed"], key["decay"])
    last = folder / "network.safetensors"
    files = {step: folder / f"network-step{step:08d}.safetensors" for step in measured_steps(steps)} | {steps: last}
    losses = {step: exam.held_out_loss(exam.with_network(method.module, file)) for step, file in files.items()}
    best = min(losses, key=lambda step: losses[step])
    measured: dict[str, Any] = {"held_out": {str(step): round(loss, 5) for step, loss in losses.items()}}
    measured["best_step"] = best
    for what, file in {"last": last, "best": files[best], "average": folder / "network-ema.safetensors"}.items():
        model = exam.with_network(method.module, file)
        figures = exam.measure(model, folder.with_name(f"{name}-{what}.png"))
        measured |= {f"{what}_{column}": figures[column] for column in ("frechet", "style_score", "content_score")}
        measured[f"{what}_loss"] = exam.held_out_loss(model)
    shutil.rmtree(folder)
    return measured


def train(method: Method, folder: Path, steps: int, seed: int, decay: float) -> None:
    import train_network

    argv = [*command_line(method, folder, steps, seed), "--ema_decay", str(decay), "--no-report", "--overwrite"]
    if code := train_network.main(argv):
        raise UserError(f"the arm {folder.name} ended with exit code {code}")


@contextmanager
def carried_over() -> Iterator[None]:
    """Averages go on over RESTARTs, which runs themselves never do."""
    begin_again = WeightAverages.begin_again
    WeightAverages.begin_again = lambda self, trainable: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        WeightAverages.begin_again = begin_again  # type: ignore[method-assign]


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """For each kind of arm the means over styles and seeds of the three files."""
    kinds = sorted({(arm["method"], arm["decay"], arm["restarts"], arm["steps"]) for arm in results})
    rows = []
    for kind in kinds:
        mine = [r for r in results if (r["method"], r["decay"], r["restarts"], r["steps"]) == kind]
        for what in ("last", "best", "average"):
            figures = [cell(mine, f"{what}_loss", 4), cell(mine, f"{what}_frechet", 0)]
            figures += [cell(mine, f"{what}_{column}", 2) for column in ("style_score", "content_score")]
            better = sum(arm[f"{what}_loss"] < arm["last_loss"] for arm in mine)
            rows.append([*kind, what, len(mine), *figures, f"{better} of {len(mine)}" if what != "last" else ""])
    head = ["method", "ema_decay", "at RESTARTs", "steps", "file", "n", "held-out loss", "Fréchet", "style", "content"]
    return markdown([*head, "lower loss than last"], rows)
