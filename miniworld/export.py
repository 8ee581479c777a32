"""`python -m miniworld.export --output mini.safetensors`: the mini model as one file, laid out as Stable Diffusion's.

The file's metadata carries the configs of its parts and its tokenizer under `diffusers_config`, because no program can
guess the sizes of so small a model. `load_model` reads it alone; diffusers' `from_single_file` wants `config=FOLDER`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from library.models.load import load_model
from library.models.save import save_single_file

MODEL = Path(__file__).with_name("model")


def export(model: Path, output: Path) -> None:
    """Write `output` from the diffusers folder `model`, in fp16 as it is stored there."""
    output.parent.mkdir(parents=True, exist_ok=True)
    save_single_file(load_model(model, dtype=torch.float16), output, metadata={"modelspec.title": "miniworld"})


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m miniworld.export", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(argv)
    export(options.model, options.output)
    print(f"{options.output}: {options.output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
