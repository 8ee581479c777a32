"""Which pictures of a job evaluate.py is asked about, and what its failure means."""

from __future__ import annotations

import json
import os
import subprocess

from library.batch.engines.assignment import Outcome
from library.batch.results import evaluation
from tests.library.batch.results.test_comparison import drawn


def test_the_last_pictures_of_each_finished_job_are_measured_once(batch, trained_by, monkeypatch):
    (batch.folder / "eval.toml").write_text("", encoding="utf-8")
    batch.write(batch=f'evaluate = "{batch.folder}/eval.toml"')
    asked = []

    def measure(words, **_):
        asked.append(words)
        output = words[words.index("--output") + 1]
        if "two" in output:
            return subprocess.CompletedProcess(words, 2, "", "error: no such network")
        with open(output, "w", encoding="utf-8") as file:
            json.dump({"metrics": {"clip_t": {"value": 0.25, "better": "higher"}}}, file)
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(evaluation.subprocess, "run", measure)

    def train(assignment):
        drawn(batch.output, assignment.name, {f"{assignment.name}_000002_00_now_{seed}": "a cat" for seed in (1, 2)})
        return Outcome()

    trained_by(train)
    assert batch.run() == 3  # one could not be measured
    assert len(asked) == 3
    words = dict(zip(asked[0][2::2], asked[0][3::2], strict=True))
    assert words["--only"] == "one-lora-s1_000002_*"
    assert words["--reference"] == str(batch.styles / "one" / "1_sks")
    table = json.loads((batch.ledger.folder / "table.json").read_text(encoding="utf-8"))
    assert table[0]["results"]["metrics"]["clip_t"]["value"] == 0.25
    assert batch.run() == 3
    assert len(asked) == 4  # only that one again
    later = batch.output / "one-lora-s1" / "sample" / "one-lora-s1_000002_00_now_2.png"
    os.utime(later, (4e9, 4e9))
    batch.run()
    assert len(asked) == 6


def test_a_dataset_of_several_folders_has_no_single_reference(styles):
    assert evaluation.pictures_of(styles / "one") == styles / "one" / "1_sks"
    (styles / "one" / "1_sks").rename(styles / "one" / "2_other")
    (styles / "two" / "1_sks").rename(styles / "one" / "1_sks")
    assert evaluation.pictures_of(styles / "one") is None
    assert evaluation.pictures_of(styles / "one" / "1_sks") == styles / "one" / "1_sks"
    assert evaluation.pictures_of(styles / "description.toml") is None
