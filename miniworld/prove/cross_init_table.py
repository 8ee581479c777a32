"""The tables of `python -m miniworld.prove cross_init`, and what its thresholds say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from miniworld.prove.tables import cell, markdown

WORD, CROSS, FAST, START = "word", "cross init", "cross init, fast", "cross init, start"
FURTHER = ("cross init, twice the rate", "cross init, three times the rate", "cross init, longer")
COLUMNS = {
    "held-out": ("held_out", 4),
    "train": ("train", 4),
    "identity": ("identity", 2),
    "background": ("background", 2),
    "prompt": ("prompt", 2),
    "norm ratio": ("norm_ratio", 2),
    "cosine": ("cosine", 2),
    "CPU s": ("cpu_seconds", 0),
}
Results = Sequence[Mapping[str, Any]]


def table(results: Results) -> str:
    """Mean and standard deviation over the people of every arm; per person the two arms that are compared; verdicts."""
    names = list(dict.fromkeys(f"{arm['arm']} ({arm['steps']})" for arm in results))
    rows = []
    for name in names:
        same = [arm for arm in results if f"{arm['arm']} ({arm['steps']})" == name]
        rows.append([name, len(same), *(cell(same, column, digits) for column, digits in COLUMNS.values())])
    ceiling = [arm["ceiling"] for arm in results if "ceiling" in arm]
    lines = ["Mean ± standard deviation over people, one picture each; drawn faces are not faces.\n"]
    lines.append(markdown(["arm (steps)", "n", *COLUMNS], rows))
    if ceiling:
        lines.append(f"Identity score of drawings of these people: {np.mean(ceiling):.2f}.\n")
    lines += ["Per person, word / Cross Init at 320 steps:\n", markdown(*per_person(results)), "Thresholds:\n"]
    return "\n".join([*lines, "".join(f"- {verdict}\n" for verdict in [*verdicts(results), *further(results)])])


def further(results: Results) -> list[str]:
    """What P4 asks, of the arms that go further: not a threshold, but whether that closes the gap."""
    said = []
    for arm in FURTHER:
        if pairs := paired(results, WORD, arm):
            word, cross = (float(np.mean([pair[side]["identity"] for pair in pairs])) for side in (0, 1))
            said.append(f"not a threshold: identity of {arm} {cross:.2f}, of word {word:.2f} ({len(pairs)} people)")
    return said


def per_person(results: Results) -> tuple[list[str], list[list[str]]]:
    pairs = paired(results, WORD, CROSS)
    columns = {name: column for name, column in COLUMNS.items() if name != "CPU s"}
    rows = [
        [word["person"], *(f"{word[c]:.{d}f} / {cross[c]:.{d}f}" for c, d in columns.values())] for word, cross in pairs
    ]
    return ["person", *columns], rows


def paired(results: Results, first: str, second: str) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """The arms of those people (and seeds) for whom both are done."""
    of = {(arm["arm"], arm["person"], arm["seed"]): arm for arm in results}
    people = [(person, seed) for arm, person, seed in of if arm == first]
    return [(of[first, *p], of[second, *p]) for p in people if (second, *p) in of]


def verdicts(results: Results) -> list[str]:
    """P1 to P5, each with its figures; what lacks arms is said to be open."""
    both, fast, begun = paired(results, WORD, CROSS), paired(results, CROSS, FAST), paired(results, CROSS, START)
    if not (both and fast and begun):
        return ["open: not enough arms are done"]

    def mean(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], side: int, column: str) -> float:
        return float(np.mean([pair[side][column] for pair in pairs]))

    word = {c: mean(both, 0, c) for c, _ in COLUMNS.values()}
    cross = {c: mean(both, 1, c) for c, _ in COLUMNS.values()}
    lower = sum(c["held_out"] < w["held_out"] for w, c in both)
    quick, slow = ({c: mean(fast, side, c) for c, _ in COLUMNS.values()} for side in (1, 0))
    rise = mean(begun, 0, "identity") - mean(begun, 1, "identity")
    said = [
        (
            "P1, diagnosis: word's norm ratio at least 2.2 and cosine at most .4; Cross Init's .9 to 1.15 and at "
            "least .75",
            word["norm_ratio"] >= 2.2
            and word["cosine"] <= 0.4
            and 0.9 <= cross["norm_ratio"] <= 1.15
            and cross["cosine"] >= 0.75,
            f"{word['norm_ratio']:.2f}, {word['cosine']:.2f}; {cross['norm_ratio']:.2f}, {cross['cosine']:.2f}",
        ),
        (
            "P2, held-out loss: Cross Init at most .99 of word's, and lower for 4 of 6 people",
            cross["held_out"] <= 0.99 * word["held_out"] and lower >= len(both) * 4 / 6,
            f"{cross['held_out'] / word['held_out']:.3f}, lower for {lower} of {len(both)}",
        ),
        (
            "P3, asked backgrounds: Cross Init at least .95, and .15 above word",
            cross["background"] >= 0.95 and cross["background"] >= word["background"] + 0.15,
            f"{cross['background']:.2f} against {word['background']:.2f}",
        ),
        (
            "P4, identity: Cross Init at least word's less .07, and .3 above its start",
            cross["identity"] >= word["identity"] - 0.07 and rise >= 0.3,
            f"{cross['identity']:.2f} against {word['identity']:.2f}, {rise:+.2f} from the start",
        ),
        (
            "P5, fast: held-out at most 1.04 of the slow one's, backgrounds at least .95, identity at most .18 below, "
            "norm ratio at most 1.4, cosine at least .6",
            quick["held_out"] <= 1.04 * slow["held_out"]
            and quick["background"] >= 0.95
            and quick["identity"] >= slow["identity"] - 0.18
            and quick["norm_ratio"] <= 1.4
            and quick["cosine"] >= 0.6,
            f"{quick['held_out'] / slow['held_out']:.3f}, {quick['background']:.2f}, "
            f"{quick['identity'] - slow['identity']:+.2f}, {quick['norm_ratio']:.2f}, {quick['cosine']:.2f}",
        ),
    ]
    return [
        f"{'holds' if holds else '**does not hold**'}: {what} (measured {figures})" for what, holds, figures in said
    ]
