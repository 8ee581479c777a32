"""What a short run of a full-size model needs on this machine: python -m tests.rehearsal.peak {sd1,sdxl} [--model FILE]

64 pixels, batch 1, rank 4, on the CPU: SD1 in float32, 5 steps; SDXL with full_bf16 and gradient checkpointing,
3 steps. Prints the peak of the resident set (weights, activations, Python and the pages of the mapped file together)
and the seconds for a step. Without --model a random model is written to --output first (2 or 7 GB).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.rehearsal.measured import run_measured, seconds_per_step
from tests.rehearsal.photographs import write_photographs

RUNS = {
    "sd1": ["--max_train_steps", "5"],
    "sdxl": [
        *("--max_train_steps", "3", "--mixed_precision", "bf16", "--full_bf16", "--gradient_checkpointing"),
        *("--network_train_unet_only", "--cache_text_encoder_outputs"),
    ],
}
COMMON = [
    *("--network_module", "networks.lora", "--network_dim", "4", "--network_alpha", "4", "--learning_rate", "1e-4"),
    *("--resolution", "64,64", "--train_batch_size", "1", "--cache_latents", "--caption_extension", ".txt"),
    *("--seed", "1", "--output_name", "peak"),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("family", choices=sorted(RUNS))
    parser.add_argument("--model", type=Path, help="a single file; left out, one is made of random weights")
    parser.add_argument("--output", type=Path, default=Path("output/rehearsal"), help="where the random file goes")
    arguments, more = parser.parse_known_args()
    model = arguments.model or arguments.output / f"random-{arguments.family}.safetensors"
    if not model.is_file():
        run_measured(["-m", "tests.rehearsal.full_size", arguments.family, "--output", model.parent])
    with tempfile.TemporaryDirectory() as folder:
        pictures = write_photographs(Path(folder, "pictures"))
        paths = ["--pretrained_model_name_or_path", model, "--train_data_dir", pictures, "--output_dir", folder]
        measured = run_measured(["train_network.py", *paths, *COMMON, *RUNS[arguments.family], *more])
        if measured.exit_code:
            print(measured.output, file=sys.stderr)
            return measured.exit_code
        print(f"{arguments.family}: {measured}, {seconds_per_step(Path(folder, 'peak-log.jsonl')):.1f} s a step")
    return 0


if __name__ == "__main__":
    sys.exit(main())
