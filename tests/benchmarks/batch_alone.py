"""Whether jobs of a batch reach each other: python -m tests.benchmarks.batch_alone

Twelve jobs (3 datasets, 2 methods, 2 seeds) by a child that keeps the model; then each job again, alone, by
train_network.py in a process of its own on the config that the batch kept. The weights must be the same bit for bit.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.batch_world import ROOT, World, records, weights


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    from safetensors.numpy import load_file

    with tempfile.TemporaryDirectory() as name:
        world, output = World(Path(name), datasets=3, seeds=(1, 2), steps=8), Path(name, "out")
        assert world.run(output) == 0, output.with_suffix(".log").read_text()
        ours = weights(output)
        workers = {attempt["log"] for record in records(output).values() for attempt in record["attempts"]}
        print(f"{len(ours)} jobs done in {len(workers)} attempts", flush=True)
        for job in ours:
            alone = Path(name, "alone", job)
            words = ["--config_file", str(output / "_batch" / "configs" / f"{job}.toml"), "--output_dir", str(alone)]
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            subprocess.run(
                [sys.executable, "train_network.py", *words], cwd=ROOT, check=True, capture_output=True, env=environment
            )
            theirs = {k: t.tobytes() for k, t in load_file(alone / f"{job}.safetensors").items()}
            assert ours[job] == theirs, f"{job} differs from the job run alone"
            print(f"{job}: {len(theirs)} tensors, the same bytes alone", flush=True)


if __name__ == "__main__":
    main()
