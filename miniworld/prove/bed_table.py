"""What the arms of the rank bed say: which tasks tell ranks apart, and how close each rule comes to the best rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from miniworld.prove.arms import LEARNING_RATE
from miniworld.prove.tables import markdown

Arm = Mapping[str, Any]
FIXED = "LoRA"
APART = 1.03
"""A task tells ranks apart where, each at its own rate and step, the worst is this much above the best."""
SWEEP = {1, 4, 16, 64}


def report(results: Sequence[Arm], steps: int) -> str:
    """The curve of every task over the fixed ranks, then the rules beside it."""
    arms = [arm for arm in results if arm["steps"] == steps]
    tasks = list(dict.fromkeys(arm["task"] for arm in arms))
    parts = [sentence(arms, tasks), curves(arms, tasks), rules(arms, tasks)]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def fixed(arms: Sequence[Arm], task: str, seed: int) -> dict[int, list[Arm]]:
    """The arms of a task with fixed ranks, by rank."""
    found: dict[int, list[Arm]] = {}
    for arm in arms:
        if (arm["task"], arm["seed"], arm["method"]) == (task, seed, FIXED):
            found.setdefault(arm["dim"], []).append(arm)
    return dict(sorted(found.items()))


def at_common_budget(arms: Sequence[Arm]) -> Arm | None:
    """Of the arms of one rank, the one at the middle rate."""
    return next((arm for arm in arms if arm["rate"] == LEARNING_RATE), None)


def at_its_best(arms: Sequence[Arm]) -> Arm:
    """Of the arms of one rank, the one with the lowest loss at its best step, whatever its rate."""
    return min(arms, key=lambda arm: arm["best"])


def spread(ranks: Mapping[int, Sequence[Arm]]) -> float:
    """The worst rank's loss over the best one's, each at its own rate and step."""
    best = [at_its_best(arms)["best"] for arms in ranks.values()]
    return max(best) / min(best)


def sentence(arms: Sequence[Arm], tasks: Sequence[str]) -> str:
    """Which tasks tell ranks apart, as far as their ends of the curve were measured."""
    swept = {task: fixed(arms, task, 0) for task in tasks}
    swept = {task: ranks for task, ranks in swept.items() if set(ranks) >= SWEEP}
    apart = [task for task, ranks in swept.items() if spread(ranks) >= APART]
    if not swept:
        return ""
    return (
        f"Of {len(swept)} tasks with the ranks {', '.join(map(str, sorted(SWEEP)))}, {len(apart)} tell ranks apart "
        f"(worst over best at least {APART}, each at the best of its rates and steps that were run): "
        f"{'; '.join(apart) or 'none'}."
    )


def curves(arms: Sequence[Arm], tasks: Sequence[str]) -> str:
    """A row for each task and rank, of the first seed."""
    rows = []
    for task in tasks:
        for rank, same in fixed(arms, task, 0).items():
            common, best = at_common_budget(same), at_its_best(same)
            rates = ", ".join(f"{arm['rate']:.2g}" for arm in sorted(same, key=lambda arm: arm["rate"]))
            row = [task, rank, f"{best['base']:.4f}", f"{best['floor']:.4f}" if "floor" in best else ""]
            row += [
                f"{common['end']:.4f}" if common else "",
                f"{best['best']:.4f} ({best['rate']:.2g}, {best['best_step']})",
            ]
            row += [rates, *(_figure(common, name, digits) for name, digits in PICTURES)]
            rows.append(row)
    head = ["task", "rank", "base", "teacher", "common budget", "own best (rate, step)", "rates run"]
    return markdown([*head, "Fréchet", "style", "content", "prior"], rows)


PICTURES = (("frechet", 0), ("style_score", 2), ("content_score", 2), ("prior", 3))


def _figure(arm: Arm | None, name: str, digits: int) -> str:
    return f"{arm[name]:.{digits}f}" if arm and name in arm else ""


def rules(arms: Sequence[Arm], tasks: Sequence[str]) -> str:
    """A row for each rule and task: its losses over those of the fixed ranks that were run."""
    rows = []
    for arm in arms:
        ranks = fixed(arms, arm["task"], arm["seed"])
        if arm["method"] == FIXED or not set(ranks) >= SWEEP:
            continue
        ends = {rank: common["end"] for rank, same in ranks.items() if (common := at_common_budget(same))}
        bests = {rank: at_its_best(same)["best"] for rank, same in ranks.items()}
        best_end, best_own = min(ends, key=ends.__getitem__), min(bests, key=bests.__getitem__)
        row = [arm["task"], f"{arm['method']} {arm['dim']}", arm["seed"], f"{arm['end']:.4f}"]
        row += [f"{arm['end'] / ends[best_end]:.3f} ({best_end})", f"{arm['best'] / bests[best_own]:.3f} ({best_own})"]
        row += [arm["mean_rank"], arm.get("octaves", ""), arm.get("rho", "")]
        rows.append([*row, *(_figure(arm, name, digits) for name, digits in PICTURES)])
    if not rows:
        return ""
    head = ["task", "rule", "seed", "end", "end / best fixed end (its rank)", "best step / best of all (its rank)"]
    head += ["mean rank", "octaves", "rho", "Fréchet", "style", "content", "prior"]
    ratios = [float(row[4].split()[0]) for row in rows]
    over = f"{np.mean(ratios):.3f} on average, {max(ratios):.3f} at most"
    text = f"Rules over the best fixed rank at the common budget: {over}."
    return f"{text}\n\n{markdown(head, rows)}"
