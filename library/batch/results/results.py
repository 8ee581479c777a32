"""What a finished job left: its files with their hashes, and the figures of its log and its network."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import median
from typing import Any

from safetensors import SafetensorError, safe_open

from library.batch.results.logs import log_lines
from library.files import file_hash
from library.training.saving.file_names import SavingSpec


def outputs_of(saving: SavingSpec) -> list[dict[str, Any]]:
    """What the job was for: path within its folder, bytes, sha256 of the files that its end wrote.

    Where nothing was trained these are the pictures. Files from on the way may be deleted; the job stays done.
    """
    named = [path for path in sorted(saving.output_dir.glob("*")) if path.is_file() and _is_last(path, saving)]
    named = named or sorted((saving.output_dir / "sample").glob("*.png"))
    return [
        {
            "path": path.relative_to(saving.output_dir).as_posix(),
            "bytes": path.stat().st_size,
            "sha256": file_hash(path),
        }
        for path in named
    ]


def results_of(saving: SavingSpec) -> dict[str, Any]:
    """Seconds per step (median), validation loss (lowest and last), average loss, the network's median rank, and the
    bytes of everything that the job leaves in its folder."""
    lines = list(log_lines(saving.log))
    steps = [line for line in lines if "loss" in line and "event" not in line]
    validations = [line["validation_loss"] for line in lines if line.get("event") == "validation"]
    figures: dict[str, Any] = {
        "steps": len(steps),
        "seconds_per_step": round(median(line["seconds"] for line in steps), 4) if steps else None,
        "loss": steps[-1]["avr_loss"] if steps else None,
        "validation_loss": validations[-1] if validations else None,
        "best_validation_loss": min(validations) if validations else None,
        "median_rank": median_rank(saving.file(saving.last_stem)),
        "bytes": sum(path.stat().st_size for path in saving.output_dir.rglob("*") if path.is_file()),
    }
    return {name: value for name, value in figures.items() if value is not None}


def steps_in(log: Path) -> int:
    """The last step that a log tells of."""
    return max((line.get("step", 0) for line in log_lines(log)), default=0)


def median_rank(file: Path) -> float | None:
    """The median over modules of the rank in a network's file; None where it has none that is written so."""
    try:
        with safe_open(str(file), framework="np") as stored:
            names = [name for name in stored.keys() if name.endswith(".lora_down.weight")]  # noqa: SIM118
            ranks = [stored.get_slice(name).get_shape()[0] for name in names]
    except (OSError, SafetensorError):
        return None
    return median(ranks) if ranks else None


def _is_last(path: Path, saving: SavingSpec) -> bool:
    on_the_way = re.match(r"-(step\d{8,}|\d{6,})", path.stem.removeprefix(saving.last_stem))
    return path.suffix == saving.extension and path.name.startswith(saving.last_stem) and not on_the_way
