"""Every shipped config on a full-size model, before anybody's night depends on it: make rehearsal

Each config of configs/ that names a family trains three steps at 64 pixels on a file of that family, saves, and a fresh
process loads what was saved and draws one picture. Without files of your own, random weights of the same size and
layout stand in (11.7 GB in --output): then the pictures are noise, and what counts is that everything fits, how long it
takes, and how much memory it needs. With your own:

    make rehearsal REHEARSE="--sdxl models/sdxl_base.safetensors --only sdxl"

What has been rehearsed is kept in --output and not done again, unless --again says so.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.rehearsal.measured import GIB, ROOT, Measured, run_measured, seconds_per_step
from tests.rehearsal.photographs import write_photographs

FAMILIES = {"sdxl": "xl", "sd2": r"sd2|v2-", "sd1": r"sd1|v1-"}  # what names or model paths of configs hold
STEPS = 3
HEAD = "| config | training, s | a step, s | peak, GiB | picture, s | peak, GiB | file, MB |\n" + "|---" * 7 + "|"
# What a rehearsal changes in a config: the size and length of the run. Everything else is the config's own.
SHORTENED = [
    *("--resolution", "64,64", "--min_bucket_reso", "64", "--max_bucket_reso", "64", "--train_batch_size", "1"),
    *("--max_train_epochs", "", "--max_train_steps", str(STEPS), "--lr_warmup_steps", "0"),
    *("--save_every_n_epochs", "", "--save_every_n_steps", "", "--caption_extension", ".txt"),
]
TINY_PROMPT = "a photo of a cat --w 64 --h 64 --s 2 --d 1\n"


@dataclass(frozen=True)
class Rehearsed:
    """What a config took: seconds for the whole training command and for a step, peak memory, and the picture's."""

    config: str
    model: str
    train_seconds: float
    step_seconds: float
    train_gib: float
    picture_seconds: float
    picture_gib: float
    file_mb: float

    def row(self) -> str:
        figures = f"{self.train_seconds:.0f} | {self.step_seconds:.1f} | {self.train_gib:.2f}"
        return (
            f"| {self.config} | {figures} | {self.picture_seconds:.0f} | {self.picture_gib:.2f} | {self.file_mb:.1f} |"
        )


class Failed(Exception):
    """A command of a rehearsal did not end well; its output is the message."""


def shipped(configs: Path) -> dict[str, str]:
    """{name of a config of the trainer: its family}, of those that are for a person's own full-size model."""
    found = {}
    for path in sorted(configs.glob("*.toml")):
        keys = flat(path)
        model = str(keys.get("pretrained_model_name_or_path", ""))
        is_ours = not model or (ROOT / model).exists()
        family = next((family for family, marks in FAMILIES.items() if re.search(marks, f"{path.stem} {model}")), None)
        if family and not is_ours and ("network_module" in keys or "token_string" in keys):
            found[path.name] = family
    return found


def flat(config: Path) -> dict[str, Any]:
    """The options of a config, without its tables' names."""
    tables = tomllib.loads(config.read_text(encoding="utf-8"))
    return {key: value for table in tables.values() if isinstance(table, dict) for key, value in table.items()}


def rehearse(config: str, model: Path, pictures: Path, output: Path, common: Sequence[str]) -> Rehearsed:
    """Train, save, load back, draw. Raises `Failed`."""
    stem = Path(config).stem
    folder = output / stem
    prompts = output / "prompts.txt"
    prompts.write_text(TINY_PROMPT, encoding="utf-8")
    paths = ["--pretrained_model_name_or_path", model, "--train_data_dir", pictures, "--sample_prompts", prompts]
    places = ["--output_dir", folder, "--output_name", stem]
    file = ["train_network.py", "--config_file", f"configs/{config}"]
    trained = run_measured([*file, *paths, *places, *SHORTENED, *common])
    check(trained)
    keys = flat(ROOT / "configs" / config)
    weights = folder / f"{stem}.safetensors"
    drawing = ["--model", model, "--output", folder / "picture.png", "--precision", keys.get("mixed_precision", "no")]
    if "network_module" in keys:
        drawing += ["--weights", weights, "--module", keys["network_module"]]
        embedding = folder / f"{stem}_emb.safetensors"
    else:
        embedding = weights
    if "token_string" in keys:
        drawing += ["--embedding", embedding]
    if keys.get("v_parameterization"):
        drawing.append("--v_parameterization")
    drawn = run_measured(["-m", "tests.rehearsal.picture", *drawing])
    check(drawn)
    return Rehearsed(
        config=config,
        model=model.name,
        train_seconds=trained.seconds,
        step_seconds=seconds_per_step(folder / f"{stem}-log.jsonl"),
        train_gib=trained.peak / GIB,
        picture_seconds=drawn.seconds,
        picture_gib=drawn.peak / GIB,
        file_mb=weights.stat().st_size / 1e6,
    )


def check(measured: Measured) -> None:
    if measured.exit_code:
        raise Failed(f"{measured.output}\nended with exit code {measured.exit_code} after {measured}")


def model_of(family: str, given: Path | None, output: Path) -> Path:
    """The person's own file, or the random one, which is made once."""
    if given is not None:
        return given.resolve()
    path = output / f"random-{family}.safetensors"
    if not path.is_file():
        print(f"writing {path} (random weights of full size)", flush=True)
        check(run_measured(["-m", "tests.rehearsal.full_size", family, "--output", output]))
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for family in FAMILIES:
        parser.add_argument(f"--{family}", type=Path, help="a model of yours in place of the random one")
    parser.add_argument("--only", nargs="*", default=[], help="rehearse the configs whose names contain one of these")
    parser.add_argument("--pictures", type=Path, help="a train_data_dir of yours in place of the photographs")
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "rehearsal")
    parser.add_argument("--again", action="store_true", help="also rehearse what is done already")
    arguments, common = parser.parse_known_args()
    output: Path = arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    pictures = arguments.pictures or write_photographs(
        output / "photographs", count=2
    )  # a third step is a second epoch
    kept = output / "rehearsed.json"
    done = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() and not arguments.again else {}
    failures = 0
    print(HEAD, flush=True)
    for config, family in shipped(ROOT / "configs").items():
        if arguments.only and not any(part in config for part in arguments.only):
            continue
        model = model_of(family, getattr(arguments, family), output)
        if done.get(config, {}).get("model") != model.name:
            try:
                done[config] = asdict(rehearse(config, model, pictures, output, common))
            except Failed as failure:
                failures += 1
                print(f"{config} on {model}:\n{failure}", file=sys.stderr, flush=True)
                continue
            kept.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
        print(Rehearsed(**done[config]).row(), flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
