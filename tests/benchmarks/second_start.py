"""How long a second start on cached images takes: python -m tests.benchmarks.second_start [--images 3000]

Makes pictures of 64 px, trains one step to fill the cache on disk, then starts again and prints the seconds from the
end of the imports to the end of the first step.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import train_network
from library.models.family import Family
from library.models.save import save_folder
from miniworld.tiny import build as build_tiny


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3000)
    count = parser.parse_args().images
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        pictures = root / "pictures" / "1_sks"
        pictures.mkdir(parents=True)
        rng = np.random.default_rng(0)
        for i in range(count):
            Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(pictures / f"{i}.png")
            (pictures / f"{i}.txt").write_text(f"a red circle, number {i}", encoding="utf-8")
        save_folder(build_tiny(Family.SD1), root / "model")
        words = ["--pretrained_model_name_or_path", root / "model", "--train_data_dir", root / "pictures"]
        words += [
            "--output_dir",
            root / "out",
            "--resolution",
            "64,64",
            "--caption_extension",
            ".txt",
            "--output_name",
            "t",
        ]
        words += ["--network_module", "networks.lora", "--network_dim", 4, "--learning_rate", 1e-3, "--seed", 1]
        words += [
            "--train_batch_size",
            4,
            "--max_train_steps",
            1,
            "--cache_latents_to_disk",
            "--network_train_unet_only",
        ]
        argv = [str(word) for word in words]
        times = []
        for _ in range(2):
            begun = time.perf_counter()
            assert train_network.main(argv) == 0
            times.append(time.perf_counter() - begun)
    print(f"{count} images: first start {times[0]:.1f} s, second start to the end of step 1 {times[1]:.1f} s")


if __name__ == "__main__":
    main()
