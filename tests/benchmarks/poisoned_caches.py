"""Caches on disk that something else wrote into: python -m tests.benchmarks.poisoned_caches [--tries 300]

Fills the caches of latents and captions of a few pictures, damages one file at random (bits, zeros, another entry's
content, another shape, a cut, other bytes, nothing), starts again, and compares what a run would train on with what was
there before. Prints how many were tried and survived, and what a checksum costs for each entry.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load, save_file

from library.config.datasets import plan_datasets
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse
from library.data.augmentation.image_augmentation import View
from library.data.caches.cache_entry import checksum, read_entry, write_entry
from library.data.caches.latents_cache import DiskLatents
from library.data.caches.text_encoder_cache import TextCache
from library.data.dataset import Dataset, build
from library.models.text import TextEmbeddings

CAPTIONS = [f"a red circle, number {i}" for i in range(6)]


class Means:
    """Stands in for the VAE: 8x smaller, the means of blocks of pixels."""

    def encode_posterior(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        blocks = torch.nn.functional.avg_pool2d(images, 8)
        mean = torch.cat([blocks, blocks.mean(1, keepdim=True)], dim=1)
        return mean, torch.full_like(mean, 0.1)


def encode_text(captions: Sequence[str]) -> TextEmbeddings:
    """Stands in for the text encoder."""
    rows = [torch.randn(77, 32, generator=torch.Generator().manual_seed(len(c) + ord(c[-1]))) for c in captions]
    return TextEmbeddings(torch.stack(rows))


def flip_bits(content: bytearray, draw: random.Random) -> None:
    for _ in range(draw.randint(1, 3)):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)


def zero_a_range(content: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(content))
    end = min(len(content), start + draw.randint(1, 4096))
    content[start:end] = bytes(end - start)


def zero_all(content: bytearray, draw: random.Random) -> None:
    content[:] = bytes(len(content))


def zero_the_numbers(content: bytearray, draw: random.Random) -> None:
    start = 8 + int.from_bytes(content[:8], "little")
    content[start:] = bytes(max(0, len(content) - start))


def cut(content: bytearray, draw: random.Random) -> None:
    del content[draw.randrange(len(content)) :]


def other_bytes(content: bytearray, draw: random.Random) -> None:
    content[:] = draw.randbytes(len(content))


def append(content: bytearray, draw: random.Random) -> None:
    content += draw.randbytes(draw.randint(1, 100))


DAMAGES: list[Callable[[bytearray, random.Random], None]] = [
    *(flip_bits, zero_a_range, zero_all, zero_the_numbers, cut, other_bytes, append)
]


def damage(path: Path, draw: random.Random) -> str:
    """Do something to the file; what it was."""
    others = [other for other in path.parent.glob(f"*{path.suffix}") if other != path]
    kind = draw.choice([*DAMAGES, "another's", "another shape", "gone"])
    if kind == "gone":
        path.unlink()
    elif kind == "another's" and others:
        path.write_bytes(draw.choice(others).read_bytes())
    elif kind == "another shape" and path.suffix == ".safetensors":
        tensors = {name: tensor[..., :-1].contiguous() for name, tensor in load(path.read_bytes()).items()}
        write_entry(path, tensors) if draw.random() < 0.5 else save_file(tensors, path)
    else:
        kind = kind if callable(kind) else flip_bits
        content = bytearray(path.read_bytes())
        kind(content, draw)
        path.write_bytes(content)
    return kind if isinstance(kind, str) else kind.__name__.replace("_", " ")


def start(dataset: Dataset, folder: Path) -> torch.Tensor:
    """What a run that starts now would train on."""
    latents = DiskLatents(dataset, 1.0, vae_hash="v", fallback=None)
    latents.fill(Means(), progress=False)
    text = TextCache(encode_text, folder=folder, shape=(77, 32))
    text.fill(CAPTIONS, progress=False)
    posteriors = [latents.fetch(p, View(p.choice, False)).tensor.flatten() for p in dataset.pictures]
    return torch.cat([*posteriors, text.embeddings(CAPTIONS).hidden.flatten()])


def microseconds(work: Callable[[], object], times: int = 200) -> float:
    """The quickest of many."""
    quickest = float("inf")
    for _ in range(times):
        begun = time.perf_counter()
        work()
        quickest = min(quickest, time.perf_counter() - begun)
    return quickest * 1e6


def cost(path: Path, side: int) -> None:
    tensors, shapes = {"posterior": torch.randn(2, 4, side, side)}, {"posterior": (2, 4, side, side)}
    write_entry(path, tensors)
    numbers = [
        microseconds(lambda: load(path.read_bytes())),
        microseconds(lambda: checksum(path.name, tensors)),
        microseconds(lambda: read_entry(path, shapes)),
        microseconds(lambda: write_entry(path, tensors), 50),
    ]
    text = "reading alone {:.0f} us, the checksum {:.0f}, reading and checking {:.0f}, writing and flushing {:.0f}"
    print(f"posterior of {8 * side}x{8 * side} pixels: {text.format(*numbers)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args()
    draw = random.Random(told.seed)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        pictures = root / "pictures" / "1_sks"
        pictures.mkdir(parents=True)
        rng = np.random.default_rng(0)
        for i, caption in enumerate(CAPTIONS):
            Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(pictures / f"{i}.png")
            (pictures / f"{i}.txt").write_text(caption, encoding="utf-8")
        argv = [f"--train_data_dir={root / 'pictures'}", "--resolution=64", "--caption_extension=.txt"]
        plan = plan_datasets(parse(argv, *ALL_TRAIN_NETWORK, prog="", description=""))
        expected = start(build(plan), root / "text")
        tried, survived = Counter[str](), Counter[str]()
        for _ in range(told.tries):
            files = sorted([*(pictures / ".pivot_cache").iterdir(), *(root / "text").iterdir()])
            kind = damage(draw.choice(files), draw)
            tried[kind] += 1
            survived[kind] += torch.equal(start(build(plan), root / "text"), expected)
        for kind, count in sorted(tried.items()):
            print(f"{kind}: {survived[kind]} of {count}")
        print(f"tried {tried.total()}, survived {survived.total()}: what is trained on is bit for bit what it was")
        for side in (64, 128):
            cost(root / "entry.safetensors", side)
        if survived != tried:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
