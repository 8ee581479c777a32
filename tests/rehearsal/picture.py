"""One picture with trained files, loaded back by a fresh process:

python -m tests.rehearsal.picture --model FILE --weights FILE --module networks.lora --output PNG
python -m tests.rehearsal.picture --model FILE --embedding FILE --token zwx_face --output PNG
"""

from __future__ import annotations

import argparse
import importlib
import sys
from argparse import Namespace
from pathlib import Path

import torch

from library.models.embedding_files import read_embedding, vectors_for
from library.models.family import StableDiffusion
from library.models.load import load_model
from library.models.placeholders import ExpandingConditioner, Placeholders
from library.models.text import TextConditioner
from library.sampling.generate import generate
from library.sampling.prompts import SamplePrompt
from library.training.runtime.mixed_precision import DTYPES
from library.training.trained.network import NetworkSpec, create_network


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--vae", type=Path)
    parser.add_argument("--tokenizer_cache_dir", type=Path)
    parser.add_argument("--v_parameterization", action="store_true")
    parser.add_argument("--weights", type=Path, help="a network's file")
    parser.add_argument("--module", default="networks.lora", help="the network module that wrote it")
    parser.add_argument("--embedding", type=Path, help="an embedding's file")
    parser.add_argument("--token", default="zwx_rehearsed", help="the word for it in the prompt")
    parser.add_argument("--precision", choices=sorted(DTYPES), default="no")
    parser.add_argument("--prompt", default="a photo of a cat")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = DTYPES[arguments.precision]
    model = load_model(
        arguments.model,
        dtype=dtype,
        vae=arguments.vae,
        tokenizer_cache_dir=arguments.tokenizer_cache_dir,
        prediction_type="v_prediction" if arguments.v_parameterization else None,
    ).to(device)
    conditioner = TextConditioner(model)
    words = arguments.prompt
    if arguments.embedding is not None:
        conditioner = with_embedding(model, arguments.embedding, arguments.token)
        words = f"{words} of {arguments.token}"
    if arguments.weights is not None:
        spec = NetworkSpec(network_weights=arguments.weights, dim_from_weights=True)
        module = importlib.import_module(arguments.module)
        network = create_network(module, spec, {}, model, Namespace())
        network.to(device, dtype).eval()
    prompt = SamplePrompt(words, seed=1, sample_steps=arguments.steps, width=arguments.size, height=arguments.size)
    (picture,) = generate(model, conditioner, [prompt], vae_dtype=dtype)
    picture.save(arguments.output)
    return 0


def with_embedding(model: StableDiffusion, file: Path, token: str) -> ExpandingConditioner:
    """A conditioner that knows the file's vectors as `token`."""
    embedding = read_embedding(file)
    placeholders = Placeholders(model, token, embedding.count)
    widths = {name: rows.rows.shape[1] for name, rows in zip(placeholders.names, placeholders.rows, strict=True)}
    for rows, vectors in zip(placeholders.rows, vectors_for(embedding, widths, file), strict=True):
        rows.rows = vectors
    return ExpandingConditioner(model, placeholders)


if __name__ == "__main__":
    sys.exit(main())
