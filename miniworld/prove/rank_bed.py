"""`python -m miniworld.prove rank_bed`: tasks that want different ranks, fixed ranks on them, and rules that choose.

Every arm is a task, a method at a maximum rank, a learning rate and a seed. Fixed ranks are tried at three rates, so
that a rank is not taken for a speed: the table has each rank at its own best rate and its own best step, and at the
common budget (the middle rate, the last step), which is what a user runs. Arms are kept as lines of JSON, keyed by
their settings: a second call goes on where the first stopped, and `--minutes` stops in time. They come in the order of
what they say: every task's ends of the curve first, the other rates and ranks later.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from library.errors import UserError
from library.files import write_text
from library.models.load import load_model
from miniworld.prove.arms import LEARNING_RATE, Method, lora
from miniworld.prove.bed_arms import distance_to_planted, ranks_found, train
from miniworld.prove.bed_table import report
from miniworld.prove.bed_tasks import TASKS, prepare
from miniworld.prove.exam import MODEL, StyleExam
from miniworld.prove.results import Results, add_options, measure_what_is_missing
from miniworld.prove.tables import write_between_marks

OUTPUT = Path("output/prove/rank_bed")
RANKS = (16, 1, 64, 4, 2, 8, 32)  # the ends and the middle of the curve first
RATES = (LEARNING_RATE, LEARNING_RATE * 3, LEARNING_RATE / 3)
FIRST_RANKS = (16, 1, 64, 4)
FIRST_TASKS = ("teacher 16", "teacher 1", "teacher 1, 4, 16", "woodcut", "oil", "8 styles")
"""What is tried before all the rest: tasks that ought to want a high, a low and a mixed rank."""


def product(rank: int) -> Method:
    return Method("AC-LoRA product", rank, "networks.ac_lora", ("ac_mode=product",))


def paper(rank: int) -> Method:
    return Method("AC-LoRA paper", rank, "networks.ac_lora", ("ac_mode=paper",))


RULES = (product(32), paper(32))


def prove(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m miniworld.prove rank_bed", description=__doc__)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), help="which tasks (all)")
    parser.add_argument("--steps", type=int, default=300, help="optimizer steps of an arm")
    parser.add_argument("--write-docs", type=Path, metavar="FILE", help="put the table between its marks in this file")
    add_options(parser, OUTPUT)
    arguments = parser.parse_args(argv)
    for name in arguments.tasks:
        if name not in TASKS:
            raise UserError(f"{name} is not a task of the bed; they are {', '.join(TASKS)}")
    torch.set_num_threads(1)
    results = Results(arguments.output / "arms.jsonl")
    measure = _measurer(arguments.output, results.weights)
    keys = arms(arguments.tasks, arguments.steps, arguments.seeds)
    measure_what_is_missing(results, keys, measure, arguments.minutes)
    text = results.signed(report(results.arms, arguments.steps))
    write_text(arguments.output / "table_rank_bed.md", text)
    if arguments.write_docs:
        write_between_marks(arguments.write_docs, "prove rank_bed", text)
    print(text)


def arm_key(task: str, method: Method, rate: float, steps: int, seed: int) -> dict[str, Any]:
    return {
        "task": task,
        "method": method.name,
        "dim": method.dim,
        "arguments": " ".join(method.arguments),
        "rate": rate,
        "steps": steps,
        "seed": seed,
    }


def arms(tasks: Sequence[str], steps: int, seeds: int) -> Iterator[dict[str, Any]]:
    """The keys of all arms, in the order of what they say; each once."""
    first = [task for task in FIRST_TASKS if task in tasks]
    rest = [task for task in tasks if task not in first]
    common, faster, slower = RATES
    budget = [*((lora(rank), common) for rank in FIRST_RANKS), (RULES[0], common)]
    own = [(lora(1), faster), (lora(64), slower), (lora(4), faster), (lora(16), slower)]
    other = [(lora(16), faster), (lora(4), slower), (lora(1), slower), (lora(64), faster)]
    other += [(rule, common) for rule in RULES[1:]]
    other += [(lora(rank), rate) for rate in RATES for rank in RANKS if rank not in FIRST_RANKS]
    order = ((first, budget), (first, own), (rest, budget), (rest, own), (first + rest, other))
    for seed in range(seeds):
        for some, plan in order:
            yield from (arm_key(task, method, rate, steps, seed) for task in some for method, rate in plan)


def _measurer(output: Path, weights: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Trains and measures the arm of a key; tasks, and what the judge needs, are made once."""
    base = load_model(MODEL)
    data_of = lru_cache(maxsize=None)(lambda task: prepare(TASKS[task], base, output / "tasks", weights))
    exam_of = lru_cache(maxsize=None)(StyleExam)
    methods = [*(lora(rank) for rank in RANKS), *RULES]

    def measure(key: Mapping[str, Any]) -> dict[str, Any]:
        task, data = TASKS[key["task"]], data_of(key["task"])
        method = next(m for m in methods if (m.name, m.dim) == (key["method"], key["dim"]))
        losses: dict[int, float] = {}
        drawn: dict[str, Any] = {}

        def at(step: int, model: Any) -> None:
            losses[step] = data.held_out.loss(model)
            if step == key["steps"] and len(task.styles) == 1 and key["rate"] == LEARNING_RATE:
                name = f"{task.name}-{method.label}-{key['seed']}".replace(" ", "-")
                drawn.update(exam_of(task.styles[0]).measure(model, output / "pictures" / f"{name}.png"))

        network, seconds = train(method, data, base, key["rate"], key["steps"], key["seed"], at)
        best = min(losses, key=lambda step: losses[step])
        ranks = ranks_found(network)
        return {
            "held_out": {str(step): round(loss, 5) for step, loss in losses.items()},
            "base": data.base_loss,
            "end": losses[key["steps"]],
            "best": losses[best],
            "best_step": best,
            **({"floor": data.floor} if data.floor is not None else {}),
            "mean_rank": round(sum(ranks.values()) / len(ranks), 2),
            **(distance_to_planted(ranks, data.planted) if data.planted else {}),
            **drawn,
            "cpu_seconds": round(seconds, 1),
        }

    return measure
