"""What a RESTART of all of SDXL costs: python -m tests.benchmarks.restart_cost [--rank N] [--modules N] [--device D]

All 986 LoRA modules of SDXL (U-Net 722, text encoders 264) in their real shapes. The peer decomposes A and B of each
module with torch.linalg.svd, puts them together again without the discarded part and adds noise. Both run in one
process on one thread, on the same modules in turn, so that a busy machine slows both; CPU seconds are counted (on a GPU
wall seconds after a synchronisation). Then the peak memory that a RESTART takes beside the weights.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import torch

from networks.ac_lora_restart import Choices, Module, restart_modules

# The text encoders have 12 and 32 layers of width 768 and 1280; the U-Net has transformer blocks of
# width 640 and 1280, a context of 2048, and a feed-forward part that is gated (8 w out, 4 w in).
BLOCKS = {640: 10, 1280: 60}  # transformer blocks of each width
TRANSFORMERS = {640: 5, 1280: 6}  # with a linear projection in and out of each


def shapes() -> dict[tuple[int, int], int]:
    """(in, out) of every module and how many there are."""
    count: dict[tuple[int, int], int] = {}

    def add(shape: tuple[int, int], number: int) -> None:
        count[shape] = count.get(shape, 0) + number

    for width, layers in ((768, 12), (1280, 32)):
        add((width, width), 4 * layers)
        add((width, 4 * width), layers)
        add((4 * width, width), layers)
    for width, blocks in BLOCKS.items():
        add((width, width), 6 * blocks + 2 * TRANSFORMERS[width])  # q k v out, q out, and the two projections
        add((2048, width), 2 * blocks)
        add((width, 8 * width), blocks)
        add((4 * width, width), blocks)
    return count


def make_modules(rank: int, number: int, device: str) -> list[Module]:
    """As after some training: A near its start, B of a falling spectrum."""
    generator = torch.Generator().manual_seed(0)
    modules = []
    for (inputs, outputs), count in shapes().items():
        fall = torch.linspace(1, 0.1, rank)
        for _ in range(max(1, round(count * number / 986))):
            down = (torch.rand(rank, inputs, generator=generator) * 2 - 1) / inputs**0.5
            up = torch.randn(outputs, rank, generator=generator) * fall * 1e-3
            modules.append(Module(f"m{len(modules)}", down.to(device), up.to(device)))
    return modules


def naive_restart(modules: list[Module], p: float) -> None:
    """RESTART as one would write it down first."""
    for module in modules:
        decomposed = [torch.linalg.svd(matrix, full_matrices=False) for matrix in (module.down, module.up)]
        rank = max(int(((d**2).cumsum(0) < (d**2).sum() * p).sum()) for _, d, _ in decomposed)
        for matrix, (u, d, v) in zip((module.down, module.up), decomposed, strict=True):
            signal = (u[:, :rank] * d[:rank]) @ v[:rank]
            matrix.copy_(signal + torch.randn_like(matrix) * (matrix - signal).std())


def seconds(work: Callable[[], object], device: str) -> float:
    if device == "cpu":
        start = time.process_time()
        work()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def most_bytes(device: str) -> int:
    """The most memory that this process has had so far."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="What a RESTART of all of SDXL costs")
    parser.add_argument("--rank", type=int, default=128)
    parser.add_argument("--modules", type=int, default=986)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    modules = make_modules(options.rank, options.modules, options.device)
    bytes_of_weights = sum(4 * (m.down.numel() + m.up.numel()) for m in modules)
    print(f"{len(modules)} modules of {len(shapes())} shapes at rank {options.rank}: {bytes_of_weights / 1e6:.0f} MB")
    product = Choices(of_product=True, noise="tail", noise_scale=0.1)
    restart_modules(modules[:1], 0.9, product)  # the first call of a decomposition loads its library
    took: dict[str, float] = {}
    before = most_bytes(options.device)
    for name, choices in (("product", product), ("paper", Choices())):
        took[name] = seconds(lambda choices=choices: restart_modules(modules, 0.9, choices), options.device)
        extra = (most_bytes(options.device) - before) / 1e6
        print(f"{name}: {took[name]:.2f} s; by now at most {extra:.0f} MB beside the weights", flush=True)
    took["svd"] = seconds(lambda: naive_restart(modules, 0.9), options.device)
    print(f"torch.linalg.svd of A and B: {took['svd']:.2f} s")
    print(f"times faster: paper {took['svd'] / took['paper']:.1f}, product {took['svd'] / took['product']:.1f}")


if __name__ == "__main__":
    main()
