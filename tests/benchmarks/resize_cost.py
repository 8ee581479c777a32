"""What resizing a LoRA of all of SDXL costs: python -m tests.benchmarks.resize_cost [--rank N] [--device D]

All 986 modules in their real shapes with random factors. The peer multiplies the factors and decomposes the full matrix
with torch.linalg.svd in float32, once as sd-scripts calls it (U and V square) and once in the thin form. It runs on one
module of each shape and is counted as often as the shape occurs. Both run in one process on one thread; CPU seconds are
counted (on a GPU wall seconds after a synchronisation). The error is that of the resized update to the best
approximation of that rank by float64 on the full matrix, relative in the Frobenius norm, the worst of all shapes.
"""

from __future__ import annotations

import argparse

import torch

from library.adapters.layers import Layer, update_of
from library.adapters.ranks import RankChoice
from library.adapters.resize import resize_layer
from tests.benchmarks.restart_cost import most_bytes, seconds, shapes

BOUND = 1e-5


def drawn(inputs: int, outputs: int, rank: int, device: str, seed: int) -> Layer:
    """As after some training: A near its start, B of a falling spectrum."""
    generator = torch.Generator().manual_seed(seed)
    down = (torch.rand(rank, inputs, generator=generator) * 2 - 1) / inputs**0.5
    up = torch.randn(outputs, rank, generator=generator) * torch.linspace(1, 0.1, rank) * 1e-3
    tensors = {"lora_down.weight": down.to(device), "lora_up.weight": up.to(device), "alpha": torch.tensor(rank / 2)}
    return Layer(f"lora_unet_{seed}", tensors)


def full_matrix(layer: Layer, dtype: torch.dtype) -> torch.Tensor:
    return update_of(layer).to(layer.tensors["lora_up.weight"].device, dtype).dense()


def error(layer: Layer, choice: RankChoice) -> float:
    """Of the resized update to the best approximation in float64, relative."""
    resized = resize_layer(layer, choice, layer.tensors["lora_up.weight"].device)
    left, values, right = torch.linalg.svd(full_matrix(layer, torch.float64), full_matrices=False)
    best = left[:, : resized.rank] * values[: resized.rank] @ right[: resized.rank]
    written = {name: tensor.float().to(best.device) for name, tensor in resized.tensors.items()}
    found = full_matrix(Layer(layer.name, written), torch.float64)
    return float((found - best).norm() / best.norm())


def main() -> None:
    parser = argparse.ArgumentParser(description="What resizing a LoRA of all of SDXL costs")
    parser.add_argument("--rank", type=int, default=128)
    parser.add_argument("--new_rank", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device, choice = options.device, RankChoice(options.new_rank, options.new_rank)
    number = sum(shapes().values())
    print(f"{number} modules of {len(shapes())} shapes, rank {options.rank} to {options.new_rank}, on {device}")
    resize_layer(drawn(64, 64, 8, device, 0), choice, device)  # the first decomposition loads its library
    before, ours = most_bytes(device), 0.0
    for (inputs, outputs), count in shapes().items():
        layers = [drawn(inputs, outputs, options.rank, device, seed) for seed in range(min(count, 8))]
        work = [layers[i % len(layers)] for i in range(count)]
        ours += seconds(lambda work=work: [resize_layer(layer, choice, device) for layer in work], device)
    extra = (most_bytes(device) - before) / 1e6
    print(f"through the factors: {ours:.1f} s for all; at most {extra:.0f} MB, the factors included", flush=True)
    square, thin, worst = 0.0, 0.0, 0.0
    for (inputs, outputs), count in shapes().items():
        layer = drawn(inputs, outputs, options.rank, device, 0)
        took = [
            seconds(
                lambda full=full, layer=layer: torch.linalg.svd(full_matrix(layer, torch.float32), full_matrices=full),
                device,
            )
            for full in (True, False)
        ]
        off = error(layer, choice)
        square, thin, worst = square + took[0] * count, thin + took[1] * count, max(worst, off)
        print(f"  {inputs:5} -> {outputs:5} x {count:3}: {took[0]:6.2f} s each, thin {took[1]:6.2f} s, error {off:.1e}")
    print(f"full matrices as sd-scripts: {square:.0f} s for all, extrapolated; {square / ours:.0f} times as long")
    print(f"full matrices, thin: {thin:.0f} s for all, extrapolated; {thin / ours:.0f} times as long")
    print(f"largest error to float64: {worst:.1e} (bound {BOUND:.0e}){'' if worst <= BOUND else ': TOO LARGE'}")
    if worst > BOUND:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
