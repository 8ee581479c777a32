"""A full-size model with random weights as one file: python -m tests.rehearsal.full_size {sd1,sd2,sdxl} --output DIR

Names, shapes, types and layout are those of the published files (float16; 2.1, 2.6 and 6.9 GB), the weights are noise
of a trained model's order of magnitude, the same for the same seed. Tensors are made and written one after the other:
the whole is never in memory. A tokenizer goes beside the file, so that nothing else is needed to train on it; it is the
mini model's, because CLIP's own is not part of this project. Pictures from such a model are noise: what it shows is
that everything fits, how long it takes and how much memory it needs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from library.atomic import atomic
from library.files import write_text
from library.models.family import Family
from library.models.load import empty_modules
from library.models.single_file import to_original
from library.models.standard import standard_configs
from library.models.tokenizers import load_tokenizer, packed_vocabulary

ROOT = Path(__file__).resolve().parents[2]
EMBEDDING_STD = 0.02


def write_random_model(family: Family, path: Path, *, seed: int = 0, hollow: bool = False) -> None:
    """Write a random model of the family in the original layout, in float16, and a tokenizer beside it.

    `hollow`: the weights are a hole in the file, which takes no room: for what reads the header alone.
    """
    tensors = outline(family)
    header: dict[str, Any] = {}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + 2 * tensor.numel()
        header[name] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with atomic(path) as temporary, open(temporary, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        if hollow:
            file.truncate(8 + len(text) + offset)
        for name, tensor in () if hollow else tensors.items():
            file.write(random_weights(name, tensor.shape, seed).numpy().data)
    tokenizer = load_tokenizer(ROOT / "miniworld" / "model" / "tokenizer")
    for name, content in packed_vocabulary(tokenizer).items():
        write_text(path.parent / "tokenizer" / name, content)


def outline(family: Family) -> dict[str, Tensor]:
    """Names and shapes of the family's single file; the tensors hold nothing."""
    configs = standard_configs(family)
    modules = empty_modules(family, configs)
    return to_original({name: module.state_dict() for name, module in modules.items()}, family, configs)


def random_weights(name: str, shape: torch.Size, seed: int) -> Tensor:
    """float16 values for one tensor; a layer's output is about as large as its input, as after training."""
    if len(shape) <= 1:
        is_gain = name.endswith("weight")
        return torch.full(shape, 1.0 if is_gain else 0.0, dtype=torch.float16)
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
    std = EMBEDDING_STD if "embedding" in name else 1 / math.sqrt(math.prod(shape[1:]))
    return torch.randn(shape, generator=generator).mul_(std).half()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("family", choices=[family.value for family in Family])
    parser.add_argument("--output", type=Path, required=True, help="the folder for the file")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    path = arguments.output / f"random-{arguments.family}.safetensors"
    write_random_model(Family(arguments.family), path, seed=arguments.seed)
    print(f"{path}  {path.stat().st_size / 1e9:.2f} GB", file=sys.stderr)


if __name__ == "__main__":
    main()
