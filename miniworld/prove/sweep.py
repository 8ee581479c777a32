"""Several methods over held-out styles and seeds: what `prove lora` and `prove ac_lora` have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from library.errors import UserError
from library.files import write_text
from miniworld.prove.arms import Method, arm_key, base_key, train_and_measure
from miniworld.prove.exam import StyleExam
from miniworld.prove.results import Results, add_options, measure_what_is_missing
from miniworld.prove.tables import write_between_marks
from miniworld.styles import HELD_OUT_STYLES

OUTPUT = Path("output/prove/styles")


def add_style_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--styles", nargs="*", default=list(HELD_OUT_STYLES), help="which styles (all)")
    parser.add_argument("--steps", type=int, default=600, help="optimizer steps of an arm")
    parser.add_argument("--write-docs", type=Path, metavar="FILE", help="put the table between its marks in this file")
    add_options(parser, OUTPUT)


def prove_on_styles(
    methods: Sequence[Method],
    arguments: argparse.Namespace,
    name: str,
    table: Callable[[Sequence[Mapping[str, Any]], int], str],
) -> None:
    """Measure the arms that are missing, then print and write the table of all that there are."""
    unknown = [style for style in arguments.styles if style not in HELD_OUT_STYLES]
    if unknown:
        raise UserError(f"{unknown[0]} is not a held-out style; they are {', '.join(HELD_OUT_STYLES)}")
    torch.set_num_threads(1)
    results = Results(arguments.output / "arms.jsonl")
    exams = lru_cache(maxsize=None)(StyleExam)

    def measure(key: dict[str, Any]) -> dict[str, Any]:
        style = key["style"]
        if key == base_key(style):
            return exams(style).measure_base(arguments.output / f"{style}-base.png")
        method = next(m for m in methods if arm_key(style, m, key["steps"], key["seed"]) == key)
        folder = arguments.output / f"{style}-{method.label.replace(' ', '-')}-{key['seed']}"
        return train_and_measure(style, method, key["steps"], key["seed"], exams(style), folder)

    keys = arms(methods, arguments.styles, arguments.steps, arguments.seeds)
    measure_what_is_missing(results, keys, measure, arguments.minutes)
    text = results.signed(table(results.arms, arguments.steps))
    write_text(arguments.output / f"table_{name}.md", text)
    if arguments.write_docs:
        write_between_marks(arguments.write_docs, f"prove {name}", text)
    print(text)


def arms(methods: Sequence[Method], styles: Sequence[str], steps: int, seeds: int) -> Iterator[dict[str, Any]]:
    """The keys of all arms: the base models, then one seed of everything, then the next."""
    yield from (base_key(style) for style in styles)
    for seed in range(seeds):
        for method in methods:
            yield from (arm_key(style, method, steps, seed) for style in styles)
