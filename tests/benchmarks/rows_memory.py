"""What training a few rows saves over the whole table of token embeddings: python -m tests.benchmarks.rows_memory

For the tables of CLIP-L, OpenCLIP-H and bigG, two new tokens each: memory of a process that has taken three AdamW steps
on the rows beside the table, and of one that trained the whole table and put its other rows back after each step, as
textual inversion is usually done. Both in a process of its own; prints MiB above the table itself, and the difference.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

TABLES = {"CLIP-L (SD1, SDXL)": 768, "OpenCLIP-H (SD2)": 1024, "bigG (SDXL)": 1280}
VOCABULARY, VECTORS, STEPS, MIB = 49408, 2, 3, 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs=2, metavar=("WAY", "WIDTH"), help="measure one and print its MiB")
    only = parser.parse_args().only
    if only:
        print(measure(only[0], int(only[1])))
        return 0
    for name, width in TABLES.items():
        rows, matrix = (in_own_process(way, width) for way in ("rows", "matrix"))
        print(f"{name:20} rows {rows:7.1f} MiB  whole table {matrix:7.1f} MiB  saved {matrix - rows:7.1f} MiB")
    return 0


def in_own_process(way: str, width: int) -> float:
    words = [sys.executable, "-m", "tests.benchmarks.rows_memory", "--only", way, str(width)]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[-1])


def measure(way: str, width: int) -> float:
    """MiB that stay allocated after three steps, above what the table itself takes."""
    import torch
    from torch import nn

    from library.models.placeholders import TokenRows

    torch.set_num_threads(1)
    ids = torch.tensor([[1, 2, VOCABULARY, VOCABULARY + 1, 3]])
    size = VOCABULARY + (VECTORS if way == "matrix" else 0)
    table = nn.Embedding(size, width).requires_grad_(way == "matrix")
    begun = resident()
    if way == "rows":
        trained = nn.Parameter(torch.ones(VECTORS, width))
        encoder: Any = SimpleNamespace(get_input_embeddings=lambda: table)
        TokenRows(encoder, VOCABULARY, trained)
    else:
        trained, kept = table.weight, table.weight.detach().clone()
    optimizer = torch.optim.AdamW([trained])
    for _ in range(STEPS):
        table(ids).square().sum().backward()
        optimizer.step()
        if way == "matrix":
            with torch.no_grad():
                table.weight[:VOCABULARY] = kept[:VOCABULARY]
    used = resident() - begun
    optimizer.zero_grad()
    return round(used / MIB, 1)


def resident() -> int:
    """Bytes of this process that lie in memory now (Linux)."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


if __name__ == "__main__":
    sys.exit(main())
