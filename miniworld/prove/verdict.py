"""What the arms of `prove ac_lora` say: the tables, whoever wins, and sentences with the figures that they rest on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from miniworld.prove.tables import cell, markdown

Arm = Mapping[str, Any]
Label = tuple[str, int]
"""A method and its rank."""

FIXED = "LoRA"
SWEEP = (1, 4, 16, 64)
"""The ranks that a search tries, at the least: where one is not measured yet, nothing is compared with the best."""
ORDER = ("base model", FIXED, "DyLoRA", "LoKr", "AC-LoRA paper", "AC-LoRA product")


def report(results: Sequence[Arm], steps: int) -> str:
    """The table of every style, the one over all styles, and the verdict."""
    arms = [arm for arm in results if arm.get("steps", steps) == steps]
    styles = sorted({arm["style"] for arm in arms if arm["method"] != "base model"})
    parts = [*verdict(arms), over_styles(arms), winners(arms)]
    parts += [f"**{style}**\n\n{of_style(arms, style)}" for style in styles]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def label(arm: Arm) -> Label:
    return arm["method"], arm.get("dim", 0)


def place(name: Label) -> tuple[int, int]:
    return (ORDER.index(name[0]) if name[0] in ORDER else len(ORDER), name[1])


def of_style(arms: Iterable[Arm], style: str) -> str:
    """One row for each method: means over its seeds, with the standard deviation where there is more than one."""
    here = [arm for arm in arms if arm["style"] == style]
    head = ["method", "n", "held-out, end", "best (step)", "prior", "Fréchet", "similarity", "style", "content"]
    head += ["rank found", "kB", "CPU s"]
    rows: list[list[str]] = []
    for name in sorted({label(arm) for arm in here}, key=place):
        same = [arm for arm in here if label(arm) == name]
        if name[0] == "base model":
            rows.append(_ceiling(same[0]))
        steps = "/".join(str(arm["best_step"]) for arm in same)
        row = [_title(name), str(len(same)), cell(same, "end", 4), f"{_mean(same, 'best'):.4f} ({steps})"]
        row += [cell(same, "prior", 3), cell(same, "frechet", 0), cell(same, "similarity", 3)]
        row += [cell(same, "style_score", 2), cell(same, "content_score", 2)]
        rows.append([*row, cell(same, "rank_found", 1), cell(same, "kilobytes", 0), cell(same, "cpu_seconds", 0)])
    return markdown(head, rows)


def _ceiling(base: Arm) -> list[str]:
    values = [base[f"ceiling_{name}"] for name in ("frechet", "similarity", "style_score", "content_score")]
    seen = [f"{value:.{digits}f}" for value, digits in zip(values, (0, 3, 2, 2), strict=True)]
    return ["*the test drawings, through the VAE*", "", "", "", "", *seen, "", "", ""]


def _title(name: Label) -> str:
    return name[0] if not name[1] else f"{name[0]} {name[1]}"


def _mean(arms: Sequence[Arm], column: str) -> float:
    return float(np.mean([arm[column] for arm in arms]))


def over_styles(arms: Sequence[Arm]) -> str:
    """Every method against the best fixed rank of the same style and seed, at the end: mean (from - to) of ratios."""
    head = ["method", "arms", "end / best fixed rank", "best / best fixed", "end / LoRA 64", "prior / LoRA 64"]
    head += ["Fréchet / best fixed", "style", "content", "rank found", "kB", "CPU s"]
    rows = []
    trained = [arm for arm in arms if arm["method"] != "base model"]
    for name in sorted({label(arm) for arm in trained}, key=place):
        same = [arm for arm in trained if label(arm) == name]
        row = [_title(name), str(len(same)), ratio_cell(ratios(trained, name, "end", best_fixed))]
        row += [ratio_cell(ratios(trained, name, "best", best_fixed))]
        row += [ratio_cell(ratios(trained, name, column, largest_fixed)) for column in ("end", "prior")]
        row += [ratio_cell(ratios(trained, name, "frechet", best_fixed))]
        row += [f"{_mean(same, column):.2f}" for column in ("style_score", "content_score")]
        found = [arm["rank_found"] for arm in same if "rank_found" in arm]
        row += [f"{np.mean(found):.1f}" if found else ""]
        rows.append(row + [f"{_mean(same, column):.0f}" for column in ("kilobytes", "cpu_seconds")])
    return markdown(head, rows)


def best_fixed(arms: Sequence[Arm], column: str) -> float | None:
    """The lowest value among the ranks of the sweep: what it would have chosen. None while it is not complete."""
    fixed = {arm["dim"]: arm[column] for arm in arms if arm["method"] == FIXED and arm["dim"] in SWEEP}
    return min(fixed.values()) if set(SWEEP) <= set(fixed) else None


def largest_fixed(arms: Sequence[Arm], column: str) -> float | None:
    return next((arm[column] for arm in arms if label(arm) == (FIXED, 64)), None)


def beside(arms: Iterable[Arm], arm: Arm) -> list[Arm]:
    """The arms of the same style and seed."""
    return [other for other in arms if (other["style"], other["seed"]) == (arm["style"], arm["seed"])]


def ratios(
    arms: Sequence[Arm], name: Label, column: str, reference: Callable[[Sequence[Arm], str], float | None]
) -> list[float]:
    """Of each arm of a method, its figure over the reference's of the same style and seed, where there is one."""
    found = []
    for arm in arms:
        if label(arm) == name:
            value = reference(beside(arms, arm), column)
            if value is not None:
                found.append(arm[column] / value)
    return found


def ratio_cell(values: Sequence[float], digits: int = 2) -> str:
    """Mean (smallest-largest); empty for none."""
    if not values:
        return ""
    spread = f" ({min(values):.{digits}f}-{max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


COLUMNS = {
    "held-out loss at the end": ("end", min),
    "at its best step": ("best", min),
    "prior": ("prior", min),
    "Fréchet distance": ("frechet", min),
    "similarity": ("similarity", max),
    "style": ("style_score", max),
    "content": ("content_score", max),
}
"""Title -> the figure, and which of two values is the better one."""


def winners(arms: Sequence[Arm]) -> str:
    """The method with the best mean of each figure, among those that have every style and seed of the sweep."""
    trained = [arm for arm in arms if arm["method"] != "base model"]
    swept: list[Arm] = [arm for arm in trained if best_fixed(beside(trained, arm), "end") is not None]
    whole = {(arm["style"], arm["seed"]) for arm in swept}
    measured: dict[Label, list[Arm]] = {}
    for arm in swept:
        measured.setdefault(label(arm), []).append(arm)
    complete = {name: same for name, same in measured.items() if len(same) == len(whole)}
    if not complete:
        return ""
    best = {}
    for title, (column, better) in COLUMNS.items():
        best[title] = better(complete, key=lambda name, column=column: _mean(complete[name], column))
    return "Best by " + "; ".join(f"{title}: {_title(name)}" for title, name in best.items()) + "."


def verdict(arms: Sequence[Arm]) -> list[str]:
    """What the figures mean for someone who trains: sentences about AC-LoRA at R = 32, as far as it was measured."""
    trained = [arm for arm in arms if arm["method"] != "base model"]
    sentences = []
    for preset, tell in {"product": about_product, "paper": about_paper}.items():
        name = (f"AC-LoRA {preset}", 32)
        mine = [arm for arm in trained if label(arm) == name]
        if mine and ratios(trained, name, "end", best_fixed):
            sentences += tell(trained, name, mine)
    return [" ".join(sentences)] if sentences else []


def about_product(trained: Sequence[Arm], name: Label, mine: Sequence[Arm]) -> list[str]:
    sweep = sum(_mean([arm for arm in trained if label(arm) == (FIXED, rank)], "cpu_seconds") for rank in SWEEP)
    sentences = [
        f"One run of `ac_mode=product` at R = 32 ended at {ratio_cell(ratios(trained, name, 'end', best_fixed))} times "
        f"the held-out loss of the best fixed rank, in {_mean(mine, 'cpu_seconds') / sweep:.2f} of the time of "
        f"training at ranks {', '.join(map(str, SWEEP))}; the mean rank that it found was "
        f"{ratio_cell([arm['rank_found'] for arm in mine], 1)}."
    ]
    largest = [arm for arm in trained if label(arm) == (FIXED, 64)]
    if largest:
        smaller = _mean(largest, "kilobytes") / _mean(mine, "kilobytes")
        to_largest = ratio_cell(ratios(trained, name, "end", largest_fixed))
        sentences.append(
            f"Against a plain LoRA of rank 64 it ended at {to_largest} times the loss, with a file {smaller:.1f} times "
            f"smaller; its style score is {_mean(mine, 'style_score'):.2f}, that of rank 64 "
            f"{_mean(largest, 'style_score'):.2f}."
        )
    chosen = [
        arm for arm in trained if label(arm)[0] == FIXED and arm["end"] == best_fixed(beside(trained, arm), "end")
    ]
    ranks = ", ".join(f"{rank} in {times}" for rank, times in sorted(Counter(arm["dim"] for arm in chosen).items()))
    return [
        *sentences,
        f"The best fixed rank was {ranks} of {len(chosen)} arms, with a file of {_mean(chosen, 'kilobytes'):.0f} kB "
        f"({_mean(mine, 'kilobytes'):.0f} kB for `product`).",
    ]


def about_paper(trained: Sequence[Arm], name: Label, mine: Sequence[Arm]) -> list[str]:
    to_best = ratio_cell(ratios(trained, name, "end", best_fixed))
    to_largest = ratio_cell(ratios(trained, name, "end", largest_fixed))
    found = ratio_cell([arm["rank_found"] for arm in mine], 1)
    beside = f" and {to_largest} times that of rank 64" if to_largest else ""
    return [
        f"`ac_mode=paper` at R = 32 ended at {to_best} times the loss of the best fixed rank{beside}; the mean rank "
        f"that it found was {found} of 32."
    ]
