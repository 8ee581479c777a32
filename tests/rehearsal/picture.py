"""One picture from a trained network file, loaded back by a fresh process:

python -m tests.rehearsal.picture --model FILE --weights FILE --module networks.lora --output PNG
"""

from __future__ import annotations

import argparse
import importlib
import sys
from argparse import Namespace
from pathlib import Path

import torch

from library.models.load import load_model
from library.models.text import TextConditioner
from library.sampling.generate import generate
from library.sampling.prompts import SamplePrompt
from library.training.network import NetworkSpec, create_network
from library.training.precision import DTYPES


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--vae", type=Path)
    parser.add_argument("--tokenizer_cache_dir", type=Path)
    parser.add_argument("--v_parameterization", action="store_true")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--module", required=True, help="the network module that wrote the weights")
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
    spec = NetworkSpec(network_weights=arguments.weights, dim_from_weights=True)
    module = importlib.import_module(arguments.module)
    network = create_network(module, spec, {}, model, Namespace(), lambda line: print(line, file=sys.stderr))
    network.to(device, dtype).eval()
    prompt = SamplePrompt(
        arguments.prompt, seed=1, sample_steps=arguments.steps, width=arguments.size, height=arguments.size
    )
    (picture,) = generate(model, TextConditioner(model), [prompt], vae_dtype=dtype)
    picture.save(arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
