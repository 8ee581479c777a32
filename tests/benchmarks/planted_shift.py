"""Do KID and image likeness rank two sets of pictures right, when it is known which one is off?

`python -m tests.benchmarks.planted_shift` draws the drawn world's held-out people and styles: 32 references, 32 others
of the same kind, and 32 with a planted fault, of the same contents for styles. Features are those of the world's judge.
A trial is right where the faulty set has the larger KID, and where it has the smaller mean cosine with the references:
100 trials for each fault, 10 of each person or style. Prints a table; exit code 1 where one that is asked for is right
less often than 95 times.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np
from PIL import Image

from library.metrics.distances import kernel_distance, likeness
from miniworld.identities import HELD_OUT
from miniworld.judge import feature_network
from miniworld.scenes import draw, imagine, paint
from miniworld.sets import stream
from miniworld.styles import HELD_OUT_STYLES

N, TRIALS, POOL, BATCH = 32, 10, 80, 64
SHARES = {"a quarter": 0.25, "half": 0.5, "all": 1.0}
KINDS = ("object", "face", "shape")
LEAST = 95
ASKED = {
    **{"half another person": (0, 1), "all another person": (0, 1)},
    **{"half in the style of photos": (0,), "all in the style of photos": (0,)},
}
"""Faults, and what must rank them right: KID (0), the mean cosine (1)."""
Right = dict[str, list[tuple[bool, bool]]]


def features(pictures: Sequence[np.ndarray]) -> np.ndarray:
    see = feature_network()
    images = [Image.fromarray(picture) for picture in pictures]
    return np.concatenate([see(images[i : i + BATCH]).double().numpy() for i in range(0, len(images), BATCH)])


def ranked(references: np.ndarray, same: np.ndarray, off: np.ndarray) -> tuple[bool, bool]:
    return (
        kernel_distance(same, references) < kernel_distance(off, references),
        bool(likeness(same, references).mean() > likeness(off, references).mean()),
    )


def of_people() -> Right:
    """Pictures of a person, of which some show another one of the same gender."""
    names = list(HELD_OUT)
    seen = {
        name: features(
            [draw(stream("planted person", name, i), kind="face", identity=HELD_OUT[name]).image for i in range(3 * N)]
        )
        for name in names
    }
    right: Right = {}
    for name in names[:10]:
        others = [other for other in names if other != name and HELD_OUT[other].gender == HELD_OUT[name].gender]
        rng = np.random.default_rng(0)
        for trial in range(TRIALS):
            references, same, rest = np.split(seen[name][rng.permutation(3 * N)], 3)
            stranger = seen[others[trial % len(others)]][rng.permutation(3 * N)]
            for word, share in SHARES.items():
                off = np.concatenate([stranger[: round(share * N)], rest[round(share * N) :]])
                right.setdefault(f"{word} another person", []).append(ranked(references, same, off))
    return right


def blurred(picture: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), 1.0)


def warmer(picture: np.ndarray) -> np.ndarray:
    """Red up and blue down by 12 of 255."""
    return np.clip(picture + np.array([12, 0, -12]), 0, 255).astype(np.uint8)


DAMAGE: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "all blurred by 1 pixel": blurred,
    "all a little warmer": warmer,
}


def of_styles() -> Right:
    """Pictures in a style, of which some are in the style of photos, or damaged; of the same contents as those."""
    rng = stream("planted style", "contents")
    scenes = [imagine(rng, KINDS[i % len(KINDS)]) for i in range(2 * POOL)]

    def painted(style: str, numbers: range) -> list[np.ndarray]:
        return [paint(stream("planted style", i), scenes[i], style).image for i in numbers]

    first, second = range(POOL), range(POOL, 2 * POOL)
    photos, right = features(painted("photo", second)), Right()
    for style in HELD_OUT_STYLES:
        drawn = painted(style, second)
        known, good = features(painted(style, first)), features(drawn)
        damaged = {name: features([damage(picture) for picture in drawn]) for name, damage in DAMAGE.items()}
        order = np.random.default_rng(0)
        for _ in range(TRIALS):
            references, chosen = known[order.permutation(POOL)[:N]], order.permutation(POOL)[:N]
            same = good[chosen]
            for word, share in SHARES.items():
                count = round(share * N)
                off = np.concatenate([photos[chosen[:count]], same[count:]])
                right.setdefault(f"{word} in the style of photos", []).append(ranked(references, same, off))
            for name, rows in damaged.items():
                right.setdefault(name, []).append(ranked(references, same, rows[chosen]))
    return right


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    found = {**of_people(), **of_styles()}
    print("| fault | trials | KID right | mean cosine right |\n|---|---|---|---|")
    passed = True
    for name, trials in found.items():
        counts = np.sum(trials, axis=0)
        print(f"| {name} | {len(trials)} | {counts[0]} | {counts[1]} |")
        passed &= all(counts[column] >= LEAST / 100 * len(trials) for column in ASKED.get(name, ()))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
