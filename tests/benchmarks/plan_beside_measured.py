"""What `--plan` expects beside what a run takes, on this machine: python -m tests.benchmarks.plan_beside_measured

Each row is planned, then trained for three steps in a process of its own, of which the peak of the resident set is
taken (`ru_maxrss`); on a GPU the peak of what PyTorch allocated there. With --write the table of docs/memory.md is put
in place. The mini model, and Stable Diffusion 1 at half its width with random weights. The two full-size rows are plans
of a file's header alone, beside the peaks of `tests.rehearsal.peak` that stand in docs/memory.md.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from library.models.family import Family
from tests.benchmarks.memory_switches import TRAIN, medium_model, put
from tests.rehearsal.full_size import write_random_model
from tests.rehearsal.measured import GIB, ROOT, run_measured
from tests.rehearsal.photographs import write_photographs

PLANNED = re.compile(r"(?:here, without|on the) a? ?GPU: ([\d.]+) GiB")
COMMON = ("--network_module", "networks.lora", "--learning_rate", "1e-4", "--caption_extension", ".txt", "--seed", "1")


@dataclass(frozen=True)
class Row:
    model: str
    side: int
    batch: int
    rank: int
    switches: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        size = (f"--resolution={self.side}", f"--train_batch_size={self.batch}", f"--network_dim={self.rank}")
        return (*size, *(word for switch in self.switches for word in switch.split()))

    def __str__(self) -> str:
        return ", ".join(switch.replace("--", "") for switch in self.switches) or "none"


BF16, CACHED = "--mixed_precision bf16", "--cache_latents"
UNET_ONLY = "--network_train_unet_only"
ROWS = (
    Row("mini", 128, 4, 16, (CACHED,)),
    Row("half", 256, 1, 32),
    Row("half", 256, 4, 32, (BF16, CACHED)),
    Row("half", 256, 4, 32, (BF16, CACHED, "--gradient_checkpointing")),
    Row("half", 256, 1, 128, (BF16, CACHED, UNET_ONLY, "--full_bf16", "--optimizer_type AdamW8bit")),
)
LESS = ("--full_bf16", "--gradient_checkpointing", UNET_ONLY)
FULL_SIZE = {Row("sd1", 64, 1, 4, (CACHED,)): 4.75, Row("sdxl", 64, 1, 4, (CACHED, BF16, *LESS)): 7.42}
"""Planned here, and measured by `tests.rehearsal.peak`, GiB."""


def table(models: dict[str, Path]) -> Iterator[str]:
    yield "| model | pixels | batch | rank | switches | planned, GiB | measured, GiB | difference |"
    yield "|---|--:|--:|--:|---|--:|--:|--:|"
    for row in (*ROWS, *FULL_SIZE):
        with tempfile.TemporaryDirectory() as folder:
            pictures = write_photographs(Path(folder, "pictures"))
            words = ["--pretrained_model_name_or_path", models[row.model], "--train_data_dir", pictures]
            words += ["--output_dir", Path(folder, "out"), "--max_train_steps", "3", *COMMON, *row.words]
            plan = run_measured(["train_network.py", *words, "--plan"])
            found = PLANNED.search(plan.output)
            if plan.exit_code or found is None:
                raise SystemExit(f"{plan.output}\n{row} failed")
            planned, peak = float(found[1]), FULL_SIZE.get(row) or measured(words)
        cells = (row.model, row.side, row.batch, row.rank, row)
        yield f"| {' | '.join(map(str, cells))} | {planned:.2f} | {peak:.2f} | {100 * (planned / peak - 1):+.0f} % |"


def measured(words: list[str | Path]) -> float:
    """The peak of a run, GiB."""
    run = run_measured(["-c", TRAIN, *map(str, words)])
    if run.exit_code:
        raise SystemExit(run.output)
    return (int(re.findall(r"on the GPU: (\d+)", run.output)[-1]) or run.peak) / GIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into docs/memory.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = {"mini": ROOT / "miniworld" / "model", "half": medium_model(Path(folder, "half"))}
        for family in (Family.SD1, Family.SDXL):
            models[family.value] = Path(folder, f"{family.value}.safetensors")
            write_random_model(family, models[family.value], hollow=True)
        lines = []
        for line in table(models):
            print(line, flush=True)
            lines.append(line)
    if arguments.write:
        put("planned", "\n".join(lines))


if __name__ == "__main__":
    main()
