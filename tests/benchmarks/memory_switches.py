"""What each memory switch saves, alone and together: python -m tests.benchmarks.memory_switches {counted,here}

counted  counts the bytes of a full-size step on fake tensors (any machine, about ten minutes): the tables of
         docs/memory.md, and with --write the tables are put there
here     trains two steps for each row on the device at hand and measures: on a GPU torch.cuda.max_memory_allocated, on
         a CPU the peak of the resident set. Give --model, or a random model of medium size stands in
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.rehearsal.__main__ import flat, shipped
from tests.rehearsal.measured import GIB, ROOT, run_measured, seconds_per_step
from tests.rehearsal.photographs import write_photographs

PAGE = ROOT / "docs" / "memory.md"
SWITCHES: dict[str, tuple[str, ...]] = {
    "cache_latents": ("--cache_latents",),
    "network_train_unet_only, cache_text_encoder_outputs": (
        "--network_train_unet_only",
        "--cache_text_encoder_outputs",
    ),
    "optimizer_type = AdamW8bit": ("--optimizer_type", "AdamW8bit"),
    "full_bf16": ("--full_bf16",),
    "fp8_base": ("--fp8_base",),
    "gradient_checkpointing": ("--gradient_checkpointing",),
}
NOTHING, ALL, ALL_BUT_EIGHT_BITS = "none of them", "all of them", "all of them but fp8_base"


def rows() -> dict[str, list[str]]:
    """{name of a row: its switches}: each alone, and together."""
    alone = {name: [name] for name in SWITCHES}
    without = [name for name in SWITCHES if name != "fp8_base"]
    return {NOTHING: [], **alone, ALL_BUT_EIGHT_BITS: without, ALL: list(SWITCHES)}


# --- counted


def counted_case(family: str, side: int, rank: int, switches: list[str]) -> Any:
    from library.models.family import Family
    from library.training.runtime.memory import MemorySpec
    from tests.benchmarks.counted_memory import Step

    on = " ".join(switches)
    return Step(
        Family(family),
        side,
        rank,
        cache_latents="cache_latents" in on,
        network_train_unet_only="network_train_unet_only" in on,
        adamw_8bit="AdamW8bit" in on,
        full_bf16="full_bf16" in on,
        memory=MemorySpec(fp8_base="fp8_base" in on, gradient_checkpointing="gradient_checkpointing" in on),
    )


def counted_switches(family: str, side: int) -> Iterator[str]:
    from tests.benchmarks.counted_memory import count

    yield "| switches | rank 32, GiB | saved | rank 128, GiB | saved |"
    yield "|---|---|---|---|---|"
    most: dict[int, float] = {}
    for name, switches in rows().items():
        cells = []
        for rank in (32, 128):
            peak = count(counted_case(family, side, rank, switches)).peak / GIB
            cells += [f"{peak:.2f}", f"{most.setdefault(rank, peak) - peak:.2f}"]
        yield f"| {name} | {' | '.join(cells)} |"


def counted_configs() -> Iterator[str]:
    """The shipped configs at their own size, batch and rank, by what lies on the GPU."""
    from tests.benchmarks.counted_memory import count

    yield "| config | model | network | optimizer | a step | together, GiB |"
    yield "|---|---|---|---|---|---|"
    for name, family in shipped(ROOT / "configs").items():
        path = ROOT / "configs" / name
        if "network_module" not in flat(path):
            continue
        held = count(config_case(path, family))
        parts = (held.model, held.network, held.optimizer, max(held.step, held.encode), held.peak)
        yield f"| {name} | {' | '.join(f'{part / GIB:.2f}' for part in parts)} |"


def config_case(path: Path, family: str) -> Any:
    keys = flat(path)
    on = [key for key, value in keys.items() if value is True] + [str(keys.get("optimizer_type"))]
    if keys.get("cache_latents_to_disk"):
        on.append("cache_latents")
    side = int(str(keys["resolution"]).split(",")[0])
    case = counted_case(family, side, keys["network_dim"], on)
    unet_alone = keys.get("fp8_base_unet", False)
    memory = replace(case.memory, fp8_base=keys.get("fp8_base", False), fp8_base_unet=unet_alone)
    return replace(case, batch=keys.get("train_batch_size", 1), memory=memory)


def write_tables(write: bool) -> None:
    tables = {
        "sdxl": lambda: counted_switches("sdxl", 1024),
        "sd1": lambda: counted_switches("sd1", 512),
        "configs": counted_configs,
    }
    for name, lines in tables.items():
        print(f"\n{name}", flush=True)
        table = []
        for line in lines():
            print(line, flush=True)
            table.append(line)
        if write:
            put(name, "\n".join(table))


def put(name: str, table: str) -> None:
    """Replace the table between the page's two marks of that name."""
    page = PAGE.read_text(encoding="utf-8")
    marks = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    pattern = re.compile(re.escape(marks[0]) + ".*?" + re.escape(marks[1]), re.DOTALL)
    if not pattern.search(page):
        raise SystemExit(f"{PAGE} has no place for the table {name}")
    page = pattern.sub(lambda _: f"{marks[0]}\n{table}\n{marks[1]}", page)
    PAGE.write_text(page, encoding="utf-8", newline="\n")


# --- measured

TRAIN = "import sys, torch, train_network; code = train_network.main(sys.argv[1:]); "
TRAIN += "print('on the GPU:', torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0); sys.exit(code)"


def measure(model: Path, side: int, rank: int, batch: int, more: list[str], write: bool) -> None:
    print(f"{model.name}, {side} pixels, batch {batch}, rank {rank}", flush=True)
    table = ["| switches | peak, GiB | saved | a step, s |", "|---|---|---|---|"]
    print("\n".join(table), flush=True)
    most = None
    with tempfile.TemporaryDirectory() as folder:
        pictures = write_photographs(Path(folder, "pictures"))
        for name, switches in rows().items():
            run = [
                *("--pretrained_model_name_or_path", model, "--train_data_dir", pictures, "--output_dir", folder),
                *("--output_name", "row", "--network_module", "networks.lora", "--network_dim", rank),
                *("--resolution", f"{side},{side}", "--train_batch_size", batch, "--caption_extension", ".txt"),
                *("--mixed_precision", "bf16", "--max_train_steps", 3, "--seed", 1, "--learning_rate", "1e-4", *more),
                *(word for switch in switches for word in SWITCHES[switch]),
            ]
            measured = run_measured(["-c", TRAIN, *map(str, run)])
            if measured.exit_code:
                raise SystemExit(f"{measured.output}\n{name} failed")
            on_gpu = int(re.findall(r"on the GPU: (\d+)", measured.output)[-1])
            peak = (on_gpu or measured.peak) / GIB
            most = peak if most is None else most
            # Time on a CPU is that of whatever else runs there; three steps are too few to say anything.
            seconds = f"{seconds_per_step(Path(folder, 'row-log.jsonl')):.1f}" if on_gpu else ""
            table.append(f"| {name} | {peak:.2f} | {most - peak:.2f} | {seconds} |")
            print(table[-1], flush=True)
    if write:
        put("measured", "\n".join(table))


def medium_model(folder: Path) -> Path:
    """SD1 at half its width (a quarter of its weights), random, as a diffusers folder."""
    words = f"from tests.benchmarks.medium_model import write; write({str(folder)!r})"
    subprocess.run([sys.executable, "-c", words], cwd=ROOT, check=True)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("how", choices=("counted", "here"))
    parser.add_argument("--write", action="store_true", help="put the tables into docs/memory.md")
    parser.add_argument("--model", type=Path, help="a model to measure on")
    parser.add_argument("--side", type=int, default=256, help="pixels")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--batch", type=int, default=1)
    arguments, more = parser.parse_known_args()
    if arguments.how == "counted":
        write_tables(arguments.write)
        return
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or medium_model(Path(folder, "medium"))
        measure(model.resolve(), arguments.side, arguments.rank, arguments.batch, more, arguments.write)


if __name__ == "__main__":
    main()
