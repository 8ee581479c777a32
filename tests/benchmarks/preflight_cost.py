"""What a look at 3,000 pictures costs: python -m tests.benchmarks.preflight_cost

Makes the pictures first (two thirds JPEG, one third PNG, each with a caption; a double, a near double and a cut file
are planted) and looks at them as a person would, by the command.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def make(folder: Path, count: int, side: int) -> None:
    """Soft spots under a grain, different in each picture."""
    folder.mkdir(parents=True)
    grain = np.random.default_rng(0).integers(-6, 7, (side, side, 3), dtype=np.int16)
    for i in range(count):
        spots = np.random.default_rng(i + 1).integers(0, 255, (9, 9, 3), dtype=np.uint8)
        soft = cv2.resize(spots, (side, side), interpolation=cv2.INTER_LINEAR).astype(np.int16)
        image = Image.fromarray((soft + np.roll(grain, i, axis=0)).clip(0, 255).astype(np.uint8))
        if i % 3:
            image.save(folder / f"{i:05}.jpg", quality=92)
        else:
            image.save(folder / f"{i:05}.png", compress_level=1)
        (folder / f"{i:05}.txt").write_text(f"spots, number {i}", encoding="utf-8")
    plant(folder)


def plant(folder: Path) -> None:
    shutil.copy(folder / "00001.jpg", folder / "a_double.jpg")
    Image.open(folder / "00002.jpg").resize((500, 500)).save(folder / "a_near_double.png")
    content = (folder / "00003.png").read_bytes()
    (folder / "a_cut_one.png").write_bytes(content[: len(content) // 2])
    for name in ("a_double", "a_near_double", "a_cut_one"):
        (folder / f"{name}.txt").write_text("planted", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--side", type=int, default=1024, help="pixels of the pictures, on a side")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder, found = Path(place) / "1_spots", Path(place) / "found.json"
        make(folder, arguments.images, arguments.side)
        size = sum(file.stat().st_size for file in folder.iterdir())
        words = [str(place), "--caption_extension=.txt", "--resolution=512", f"--json={found}"]
        begun = time.perf_counter(), os.times()
        done = subprocess.run(
            [sys.executable, "-m", "library.data.preflight", *words], cwd=ROOT, stdout=subprocess.PIPE
        )
        seconds, times = time.perf_counter() - begun[0], os.times()
        spent = times.children_user + times.children_system - begun[1].children_user - begun[1].children_system
        counts = json.loads(found.read_text(encoding="utf-8"))["counts"]
        print(f"{arguments.images + 3} pictures of {arguments.side} x {arguments.side}, {size / 1e6:.0f} MB")
        print(
            f"{seconds:.1f} s on {os.cpu_count()} cores, {spent:.1f} s of processor time; exit code {done.returncode}"
        )
        print(f"found: {counts}")


if __name__ == "__main__":
    main()
