"""Drivers as processes of their own: two on one ledger, and a batch with a damaged picture from start to end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.library.batch.conftest import Trying

ROOT = Path(__file__).resolve().parents[3]
# What a driver's child does here in place of training: it waits until both drivers are at work, notes the job, sleeps.
CHILD = """
import json, os, sys, time
from pathlib import Path
here = Path({folder!r})
for line in sys.stdin:
    name = json.loads(line)["name"]
    (here / f"child-{{os.getpid()}}").touch()
    patience = time.monotonic() + 60
    while len(list(here.glob("child-*"))) < 2 and time.monotonic() < patience:
        time.sleep(0.01)
    with open(here / "trained", "a") as notes:
        notes.write(f"{{name}} {{os.getpid()}}\\n")
    time.sleep(0.02)
    print("{{}}", flush=True)
"""


def start(batch: Trying, *words: str, child: Path | None = None, imports_shown: bool = False) -> subprocess.Popen[str]:
    """train_batch.py in a process of its own; with `child` its children run that program."""
    argv = ["--config_file", str(batch.base), "--jobs", str(batch.jobs), *words]
    put = f"from library.batch.engines import local; local.CHILD = Path({str(child)!r})" if child else ""
    program = f"import sys; from pathlib import Path\n{put}\nfrom train_batch import main; sys.exit(main({argv!r}))"
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | ({"PYTHONPROFILEIMPORTTIME": "1"} if imports_shown else {}),
    )


@pytest.mark.process
def test_two_drivers_on_one_ledger_train_each_of_thirty_jobs_once(batch):
    batch.write(batch=f"seeds = {list(range(1, 11))}")
    child = batch.folder / "child.py"
    child.write_text(CHILD.format(folder=str(batch.folder)), encoding="utf-8")
    drivers = [start(batch, child=child) for _ in range(2)]
    told = [driver.communicate()[0] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], "\n".join(told)
    trained = [line.split() for line in (batch.folder / "trained").read_text(encoding="utf-8").splitlines()]
    assert len(trained) == len({name for name, _ in trained}) == 30
    assert len({pid for _, pid in trained}) == 2
    records = [batch.ledger.read(name) for name in batch.states()]
    assert [(record.state, len(record.attempts)) for record in records] == [("done", 1)] * 30
    assert all("30 jobs: 30 done" in text for text in told)


@pytest.mark.process
def test_of_six_datasets_a_damaged_one_fails_alone_and_only_it_is_trained_after_the_repair(batch, styles):
    for name in ("four", "five", "six"):
        (styles / name).symlink_to(styles / "one")
    damaged = styles / "two" / "1_sks" / "3.png"
    damaged.write_bytes(damaged.read_bytes()[:100])
    batch.write(steps=1)

    first = start(batch)
    told = first.communicate()[0]
    assert first.returncode == 3, told
    states = batch.states()
    assert [name for name, state in states.items() if state != "done"] == ["two-lora-s1"]
    assert len(states) == 6
    (sentence,) = [line for line in told.splitlines() if line.startswith("batch: two-lora-s1: failed")]
    assert str(damaged) in sentence

    attempts = {name: len(batch.ledger.read(name).attempts) for name in states}
    again = start(batch, imports_shown=True)
    told = again.communicate()[0]
    assert again.returncode == 3, told
    assert str(damaged) in told
    assert {name: len(batch.ledger.read(name).attempts) for name in states} == attempts
    imported = [line.rpartition("|")[2].strip() for line in told.splitlines() if line.startswith("import time:")]
    assert "train_batch" in imported
    assert "torch" not in imported  # nothing is loaded where nothing is trained

    Image.new("RGB", (64, 64), "red").save(damaged)
    assert batch.run() == 0
    assert {name: len(batch.ledger.read(name).attempts) for name in states} == attempts | {"two-lora-s1": 2}
