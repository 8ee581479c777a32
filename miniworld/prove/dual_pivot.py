"""`python -m miniworld.prove dual_pivot`: what each pivot of Dual-Pivot Tuning does to people who were held out.

Every arm restores a person's ten damaged test pictures, in one of the ways of B1 to B9, after tuning on their ten
references by restoration/train.py; the noise that restoring starts from is the same in every arm. Weights are trained
once and shared by the arms that need them. Arms are kept as lines of JSON, keyed by their settings: a second call goes
on where the first stopped, and `--minutes` stops in time. Prints the table of the finished arms, writes it and a sheet
of pictures for each person; `--write-docs FILE` puts the table there between its marks.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from library.errors import UserError
from library.files import write_text
from library.image_files import open_image
from miniworld.identities import HELD_OUT
from miniworld.picture_rows import labelled_rows
from miniworld.pretrain_restorer.__main__ import RESTORER
from miniworld.pretrain_restorer.faces import RANGES_OF
from miniworld.prove.likeness import Likeness
from miniworld.prove.pivot_arms import Lengths, PivotArm
from miniworld.prove.results import UNET, Results, add_options, measure_what_is_missing
from miniworld.prove.tables import markdown, write_between_marks

OUTPUT = Path("output/prove/dual_pivot")
MEASURES = {"psnr": "PSNR", "ssim": "SSIM", "attributes": "attributes", "similarity": "similarity"}
DIGITS = {"psnr": 2, "ssim": 3, "attributes": 3, "similarity": 3}
SHEET = {
    "input": "damaged",
    "B1": "B1: blind, nothing tuned",
    "B2": "B2: text pivot out of context",
    "B3": "B3: text pivot in context",
    "B4": "B4: both pivots",
    "truth": "truth",
}
"""The rows of a person's sheet, with their labels."""
SHARES = (0.125, 0.25, 0.5)
"""Of step 2's steps, where B8 looks."""

BLIND = PivotArm("B1", "blind (eq. 4)", unet="pretrained", gamma=1.0)
BOTH = PivotArm("B4", "both pivots (eq. 6, 7)", encoder="in context")
FIRST = (
    BLIND,
    PivotArm("B2", "text pivot out of context (eq. 5)", unet="out of context"),
    PivotArm("B3", "text pivot in context (eq. 6)"),
    BOTH,
)
"""The table's heart, for everybody before the rest."""
REST = (
    PivotArm("B1 class", "nothing tuned, the class prompt", unet="pretrained", names_the_person=False),
    replace(BOTH, row="B4n", told="both, step 2 with the null text at high noise", high_noise_text="null"),
    PivotArm("B5", "model pivot alone", unet="pretrained", encoder="pretrained G"),
    replace(BOTH, row="B6", told="both, E of the next person", of_another=True),
    *(replace(BOTH, row=f"B9 gamma {g:g}", told=f"both, gamma = {g:g}", gamma=g) for g in (0.0, 0.3, 1.0)),
    *(replace(BOTH, row=f"B7 w {w}", told=f"both, guidance {w}", w=float(w)) for w in (2, 3, 4, 5)),
    *(
        replace(BOTH, row=f"B8 {context} {share:g}", told=f"step 1 {context}, {share:g} of step 2", share=share, **gs)
        for context in ("in context", "out of context")
        for share in (*SHARES, *((1.0,) if context == "out of context" else ()))
        for gs in ({"unet": context, "encoder": context},)
    ),
)
ARMS = (*FIRST, *REST)


def prove(argv: Sequence[str]) -> None:
    arguments = parse(argv)
    torch.set_num_threads(1)
    lengths = Lengths(arguments.text_steps, arguments.model_steps, arguments.text_rate, arguments.model_rate)
    lengths = replace(lengths, damage=arguments.damage)
    from miniworld.prove.pivots import PivotTrainer  # after the options: it imports the engine

    results = Results(arguments.output / "arms.jsonl", (UNET, RESTORER / UNET.name))
    studio = lru_cache(maxsize=1)(lambda seed: PivotTrainer(arguments.output / "weights", lengths, seed))
    likeness = lru_cache(maxsize=2)(Likeness)
    by_row = {arm.row: arm for arm in ARMS}

    def measure(key: dict[str, Any]) -> dict[str, float]:
        person, arm = key["person"], by_row.get(key["row"])
        exam = likeness(person, lengths.damage)
        if arm is None:
            pictures = studio(key["seed"]).bound(key["row"], exam)
        else:
            pictures = studio(key["seed"]).restore(arm, person, key.get("encoder_of", person), exam)
        save_strip(pictures, strip_file(arguments.output, person, key["row"]))
        return exam.measure(pictures)

    keys = arm_keys(arguments.people, by_row, arguments.rows, arguments.seeds, lengths)
    measure_what_is_missing(results, keys, measure, arguments.minutes)
    for person in arguments.people:
        write_sheet(arguments.output, person)
    text = results.signed(table(results.arms, lengths))
    write_text(arguments.output / "table.md", text)
    if arguments.write_docs:
        mark = "prove dual_pivot" if lengths.damage == "hard" else f"prove dual_pivot {lengths.damage}"
        write_between_marks(arguments.write_docs, mark, text)
    print(text)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m miniworld.prove dual_pivot", description=__doc__)
    parser.add_argument("--people", nargs="*", default=list(HELD_OUT), help="which held-out people (all)")
    parser.add_argument("--rows", nargs="*", help="which rows (all): B1 B2 ..., a prefix takes all that begin so")
    for name, default, what in (
        ("text_steps", Lengths.text_steps, "optimizer steps of step 1"),
        ("model_steps", Lengths.model_steps, "optimizer steps of step 2"),
        ("text_rate", Lengths.text_rate, "learning rate of step 1"),
        ("model_rate", Lengths.model_rate, "learning rate of step 2"),
    ):
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"{what} ({default:g})")
    parser.add_argument("--damage", choices=tuple(RANGES_OF), default="hard", help="face: milder than was pretrained")
    parser.add_argument("--write-docs", type=Path, metavar="FILE", help="put the table between its marks in this file")
    add_options(parser, OUTPUT)
    arguments = parser.parse_args(argv)
    unknown = [person for person in arguments.people if person not in HELD_OUT]
    if unknown:
        raise UserError(f"{unknown[0]} is not a held-out person; they are {', '.join(HELD_OUT)}")
    return arguments


def next_person(person: str, people: Sequence[str]) -> str:
    """Whose E row B6 takes."""
    return people[(list(people).index(person) + 1) % len(people)]


BOUNDS = {"input": "the damaged picture itself", "truth": "the truth, through the VAE"}


def arm_keys(
    people: Sequence[str], by_row: Mapping[str, PivotArm], rows: Sequence[str] | None, seeds: int, lengths: Lengths
) -> Iterator[dict[str, Any]]:
    """The heart of the table for everybody, then the rest for everybody; then the next seed."""

    def wanted(row: str) -> bool:
        return not rows or any(row == one or row.startswith(f"{one} ") for one in rows)

    heart = [*BOUNDS, *(arm.row for arm in FIRST)]
    for seed in range(seeds):
        for part in (heart, [row for row in by_row if row not in heart]):
            for person in people:
                for row in filter(wanted, part):
                    arm = by_row.get(row)
                    other = {"encoder_of": next_person(person, people)} if arm and arm.of_another else {}
                    yield {"row": row, "person": person, "seed": seed, **other, **settings_of(arm, lengths)}


def settings_of(arm: PivotArm | None, lengths: Lengths) -> dict[str, Any]:
    """What an arm depends on: a blind restorer is the same whatever the pivots' lengths are."""
    settings: dict[str, Any] = {"damage": None if lengths.damage == "hard" else lengths.damage}
    if arm is not None and arm.unet != "pretrained":
        settings |= {"text_steps": lengths.text_steps, "text_rate": lengths.text_rate}
    if arm is not None and arm.encoder != "pretrained":
        settings |= {"model_steps": lengths.model_steps, "model_rate": lengths.model_rate}
    return settings


# --- what is shown


def strip_file(output: Path, person: str, row: str) -> Path:
    return output / "pictures" / person / f"{row.replace(' ', '-')}.png"


def save_strip(pictures: np.ndarray, file: Path) -> None:
    """Pictures (n, height, width, 3) uint8, side by side."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(list(pictures), axis=1)).save(file)


def write_sheet(output: Path, person: str) -> None:
    """Input, B1 to B4 and truth, a labelled row each, as far as they are there."""
    files = {label: strip_file(output, person, row) for row, label in SHEET.items()}
    strips = {label: np.asarray(open_image(file)) for label, file in files.items() if file.exists()}
    if strips:
        labelled_rows(strips).save(output / f"sheet-{person}.png")


def table(results: Sequence[Mapping[str, Any]], lengths: Lengths) -> str:
    """Mean and standard error over people, and of each person's difference to their own blind restoration."""
    lines = []
    results = [arm for arm in results if (arm.get("damage") or "hard") == lengths.damage]
    blind = {(arm["person"], arm["seed"]): arm for arm in results if arm["row"] == BLIND.row}
    told = BOUNDS | {arm.row: arm.told for arm in ARMS}
    by_row = {arm.row: arm for arm in ARMS}
    for row in sorted(told, key=lambda row: (row in BOUNDS, row)):
        settings = settings_of(by_row.get(row), lengths)
        same = [r for r in results if r["row"] == row and all(r.get(k) == v for k, v in settings.items())]
        if not same:
            continue
        pairs = [(r, blind[r["person"], r["seed"]]) for r in same if (r["person"], r["seed"]) in blind]
        cells = [with_error([r[name] for r in same], DIGITS[name]) for name in MEASURES]
        if row == BLIND.row or row in BOUNDS:
            pairs = []
        gains = [
            with_error([r[n] - b[n] for r, b in pairs], DIGITS[n], sign=True)
            for n in ("psnr", "attributes", "similarity")
        ]
        lines.append([row, told[row], len(same), *cells, *gains])
    head = ["", "restored by", "n", *MEASURES.values(), "PSNR - B1", "attributes - B1", "similarity - B1"]
    return (
        f"Step 1: {lengths.text_steps} steps at {lengths.text_rate:g}; step 2: {lengths.model_steps} at "
        f"{lengths.model_rate:g}. Mean ± standard error over the people.\n\n{markdown(head, lines)}"
    )


def with_error(values: Sequence[float], digits: int, sign: bool = False) -> str:
    """Mean ± standard error; one value has no error, and none is an empty cell."""
    if not values:
        return ""
    mean = f"{np.mean(values):{'+' if sign else ''}.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {np.std(values, ddof=1) / len(values) ** 0.5:.{digits}f}"
