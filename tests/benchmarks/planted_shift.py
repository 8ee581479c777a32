"""Do KID and image likeness rank two sets of pictures right, when it is known which one is off?

`python -m tests.benchmarks.planted_shift` draws sets of 32 pictures of the drawn world's held-out styles: references,
pictures of the same kind, and pictures with a planted fault. Features are those of the world's judge. A trial is right
where the faulty set has the larger KID, and where it has the smaller mean cosine with the references. 100 trials for
each fault, 10 of each style. Prints a table; exit code 1 where the fault that is asked for is ranked right less often
than 95 times.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np
from PIL import Image

from library.metrics.distances import frechet_distance, kernel_distance, likeness
from miniworld.judge import feature_network
from miniworld.scenes import draw
from miniworld.sets import stream
from miniworld.styles import HELD_OUT_STYLES

KINDS = ("object", "face", "shape")
POOL, TRIALS, N, BATCH = 80, 10, 32, 64
PHOTO_SHARES = (0.1, 0.25, 0.5)
ASKED, LEAST = "half photos", 95


def drawings(style: str, count: int, purpose: str) -> list[np.ndarray]:
    """Pictures of a style, their contents the same for every style and another for every purpose."""
    rng = stream("planted shift", purpose)
    return [draw(rng, kind=KINDS[i % len(KINDS)], style=style).image for i in range(count)]


def blurred(picture: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), 1.0)


def tinted(picture: np.ndarray) -> np.ndarray:
    """A little warmer: red up and blue down by 12 of 255."""
    return np.clip(picture + np.array([12, 0, -12]), 0, 255).astype(np.uint8)


def features(pictures: Sequence[np.ndarray]) -> np.ndarray:
    see = feature_network()
    images = [Image.fromarray(picture) for picture in pictures]
    return np.concatenate([see(images[i : i + BATCH]).double().numpy() for i in range(0, len(images), BATCH)])


@cache
def photos() -> np.ndarray:
    return features(drawings("photo", POOL, "photos"))


def trials_of(style: str, trials: int, n: int) -> dict[str, np.ndarray]:
    """By fault: (trials, 3) whether KID, the mean cosine and the Fréchet distance rank it right."""
    good = drawings(style, 2 * POOL, "pictures")
    seen, faulty = np.split(features(good), 2)
    sources = {
        "all blurred by 1 pixel": features([blurred(picture) for picture in good[POOL:]]),
        "all a little warmer": features([tinted(picture) for picture in good[POOL:]]),
    }
    photo = photos()
    rng, found = np.random.default_rng(0), {}
    for share in PHOTO_SHARES:
        found["half photos" if share == 0.5 else f"{share:.0%} photos"] = []
    found |= {name: [] for name in sources}
    for _ in range(trials):
        order = rng.permutation(POOL)
        references, same = seen[order[:n]], seen[order[n : 2 * n]]
        others = rng.permutation(POOL)[:n]
        for name, rows in sources.items():
            found[name].append(ranked(references, same, rows[others]))
        for share in PHOTO_SHARES:
            count = round(share * n)
            mixed = np.concatenate([photo[others[:count]], faulty[others[count:]]])
            found["half photos" if share == 0.5 else f"{share:.0%} photos"].append(ranked(references, same, mixed))
    return {name: np.array(rows) for name, rows in found.items()}


def ranked(references: np.ndarray, same: np.ndarray, off: np.ndarray) -> tuple[bool, bool, bool]:
    return (
        kernel_distance(same, references) < kernel_distance(off, references),
        float(likeness(same, references).mean()) > float(likeness(off, references).mean()),
        frechet_distance(same, references) < frechet_distance(off, references),
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.planted_shift", description=__doc__)
    parser.add_argument("--trials", type=int, default=TRIALS, help="of each style")
    parser.add_argument("--pictures", type=int, default=N, help="in each set")
    options = parser.parse_args()
    by_style = [trials_of(style, options.trials, options.pictures) for style in HELD_OUT_STYLES]
    total = options.trials * len(HELD_OUT_STYLES)
    print(f"| fault | of | KID right | mean cosine right | Fréchet right |\n|{'---|' * 5}")
    passed = True
    for name in by_style[0]:
        right = np.concatenate([rows[name] for rows in by_style]).sum(0)
        print(f"| {name} | {total} | {right[0]} | {right[1]} | {right[2]} |")
        if name == ASKED:
            passed = min(right[:2]) >= LEAST / 100 * total
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
