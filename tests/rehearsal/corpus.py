"""Configs that people have, put through `--explain`: python -m tests.rehearsal.corpus FOLDER

Every .toml, .json, .sh and .bat below FOLDER that starts the training of a Stable Diffusion network is read as the
trainer would read it: training configs, dataset descriptions, presets of the kohya_ss GUI, and the commands of scripts.
The table says of each whether it is accepted, and if not, why; "would stop" is a config that is understood and cannot
run on any machine. Files for other models, for other trainers, and those that sd-scripts cannot read either, are left
out. Exit code 1 if any other file is refused.

`--explain` stops at no missing file and opens no picture, so that configs of other machines can be read here.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import train_network
from tests.rehearsal.corpus_files import Found, NotOurs, commands_of, kind_of

ACCEPTED, STOPS, REFUSED, LEFT_OUT = "accepted", "would stop", "refused", "left out"
WOULD_STOP = "Would stop a run"
NOT_HERE = re.compile(r"does not exist")  # what a machine lacks is nothing that a config does wrong
LEFT_OPEN = re.compile(r"`(\w+)` is not set|(No images) are given|has no `(image_dir)`")
DATASET_ONLY = (
    *("--pretrained_model_name_or_path", "model.safetensors", "--output_dir", "out"),
    *("--network_module", "networks.lora", "--masked_loss"),
)


@dataclass(frozen=True)
class Verdict:
    """What became of one file, or of one command of a script; `sentence` says why."""

    file: str
    kind: str
    what: str
    sentence: str = ""

    def row(self) -> str:
        return f"| {self.file} | {self.kind} | {self.what} | {self.sentence} |"


def verdicts(folder: Path) -> Iterator[Verdict]:
    """One for each file, in the order of names; one for each command of a script."""
    for file in sorted(file for file in folder.rglob("*") if file.suffix in (".toml", ".json", ".sh", ".bat")):
        name = file.relative_to(folder).as_posix()
        kind = kind_of(file)
        if isinstance(kind, NotOurs):
            yield Verdict(name, kind.kind, LEFT_OUT, kind.why)
        elif kind is Found.SCRIPT:
            yield from script_verdicts(file, name)
        else:
            argv = ["--dataset_config", str(file), *DATASET_ONLY]
            yield explained(name, kind, argv if kind is Found.DATASET else ["--config_file", str(file)])


def script_verdicts(file: Path, name: str) -> Iterator[Verdict]:
    commands = commands_of(file)
    for number, command in enumerate(commands, 1):
        place = name if len(commands) == 1 else f"{name} ({number})"
        if isinstance(command, NotOurs):
            yield Verdict(place, command.kind, LEFT_OUT, command.why)
        else:
            yield explained(place, Found.SCRIPT, without_config_file(command))
    if not commands:
        yield Verdict(name, Found.SCRIPT.value, LEFT_OUT, "starts no training of a network")


def without_config_file(argv: list[str]) -> list[str]:
    """A script's config lies on its own machine; what it has on its command line can be read without."""
    kept, words = [], iter(argv)
    for word in words:
        if word == "--config_file":
            next(words, None)
        elif not word.startswith("--config_file="):
            kept.append(word)
    return kept


def explained(name: str, kind: Found, argv: Sequence[str]) -> Verdict:
    """Run `--explain`, and say in a line what it said."""
    said, complaint = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complaint):
        code = train_network.main([*argv, "--explain"])
    if code:
        return Verdict(name, kind.value, REFUSED, one_line(complaint.getvalue().partition("Also noticed:")[0]))
    _, _, stops = said.getvalue().partition(WOULD_STOP)
    lines = [line.strip().removeprefix("- ") for line in stops.strip().splitlines() if not NOT_HERE.search(line)]
    left_open = [found for line in lines if (found := LEFT_OPEN.search(line))]
    if len(left_open) < len(lines):
        return Verdict(name, kind.value, STOPS, one_line(" ".join(lines)))
    names = ", ".join(next(filter(None, found.groups())).lower() for found in left_open)
    return Verdict(name, kind.value, ACCEPTED, f"leaves open: {names}" if names else "")


def one_line(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split()).removeprefix("error: ")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(argv).folder
    counted: Counter[str] = Counter()
    print("| file | kind | verdict | sentence |\n|---|---|---|---|")
    for verdict in verdicts(folder):
        counted[verdict.what] += 1
        print(verdict.row(), flush=True)
    print("\n" + ", ".join(f"{number} {what}" for what, number in counted.items()) if counted else "\nno files")
    return 1 if counted[REFUSED] else 0


if __name__ == "__main__":
    sys.exit(main())
