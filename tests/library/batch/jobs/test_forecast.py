"""What a dry run says of room and time: of finished jobs alike, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from library.batch.engines.assignment import Outcome
from library.batch.jobs.forecast import Forecast
from library.batch.jobs.ledger import DONE, Record
from library.batch.status import to_come
from train_network import main as train_network

NAMES = ["one-lora-s1", "three-lora-s1", "two-lora-s1"]


def told(batch, capsys, *words: str) -> dict[str, list[str]]:
    """{job: [state, disk, time, output]} of a dry run, and the lines below the table under ""."""
    capsys.readouterr()
    assert batch.run("--dry_run", *words) == 0
    table, _, below = capsys.readouterr().out.partition("\n\n")
    cells = [line.replace(" kB", "kB").replace(" bytes", "B").split() for line in table.splitlines()[1:]]
    return {line[0]: line[1:5] for line in cells} | {"": below.splitlines()}


def took(steps: int, pace: float, size: int):
    """What pretends to train a job, and says that it took so much."""
    results = {"steps": steps, "seconds_per_step": pace, "bytes": size}
    return lambda assignment: Outcome(results=results)


def with_attempts_of(batch, seconds: float) -> None:
    """Let every job that is done have taken so long."""
    for name in batch.states():
        record = batch.ledger.read(name)
        if record.state == DONE:
            record.attempts[-1].ended = record.attempts[-1].begun + seconds
            batch.ledger.write(record)


def test_before_anything_is_done_nothing_is_known_but_where_it_goes(batch, capsys):
    found = told(batch, capsys)
    output = batch.output / NAMES[0] / f"{NAMES[0]}.safetensors"
    assert found[NAMES[0]] == ["new", "-", "-", str(output)]
    assert "disk unknown" in found[""][1]
    assert "time unknown" in found[""][1]
    assert not batch.output.exists()


def test_a_finished_job_tells_what_jobs_alike_take(batch, trained_by, capsys):
    trained_by(took(steps=2, pace=40.0, size=5_000))
    assert batch.run("--only", NAMES[0]) == 0
    with_attempts_of(batch, 100.0)
    found = told(batch, capsys)
    assert found[NAMES[0]][:3] == ["done", "5.0kB", "1:40"]
    assert found[NAMES[1]][:3] == ["new", "~5.0kB", "~1:40"]  # 2 steps of 40 s, and 20 s beside them
    assert "disk 10 kB, of " in found[""][1]
    assert "time 3:20, one after another" in found[""][1]
    assert told(batch, capsys, "--only", "two*")[NAMES[2]][1:3] == ["~5.0kB", "~1:40"]


def test_with_plan_the_disk_is_counted_before_anything_is_done_and_nothing_is_trained(batch, trained_by, capsys):
    batch.write(more="[methods.base]\ntrain = false\n", base="save_state = true\nsave_every_n_steps = 1\n")
    trained_by(lambda assignment: pytest.fail("begun"))
    capsys.readouterr()
    assert batch.run("--plan", "--only", "one-*", "two-lora-s1") == 0
    table = capsys.readouterr().out
    assert not batch.output.exists()
    lines = {line.split()[0]: line.split() for line in table.splitlines() if line.startswith(("one-", "two-"))}
    assert lines["one-base-s1"][2] == "-"
    assert lines["two-lora-s1"][2:4] == lines["one-lora-s1"][2:4]
    counted = float(lines["one-lora-s1"][2].removeprefix("~")) * {"kB": 1e3, "MB": 1e6}[lines["one-lora-s1"][3]]

    folder = batch.output / "one-lora-s1"
    assert train_network(["--config_file", str(config_of(batch, "one-lora-s1"))]) == 0
    left = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file() and f.suffix != ".jsonl")
    assert counted == pytest.approx(left, rel=0.1)


def config_of(batch, name: str) -> Path:
    batch.brought_up()
    return batch.ledger.config(name)


def test_another_length_has_the_same_pace_and_unknown_files(batch, trained_by, capsys):
    batch.write(more='[[override]]\nmatch = { dataset = "two" }\nset = { max_train_steps = 10 }\n')
    trained_by(took(steps=2, pace=40.0, size=5_000))
    assert batch.run("--only", NAMES[0]) == 0
    with_attempts_of(batch, 100.0)
    assert told(batch, capsys)[NAMES[2]][1:3] == ["-", "~7:00"]


def test_epochs_are_as_long_as_there_are_pictures_times_repeats(batch, trained_by, capsys, styles):
    (styles / "two" / "1_sks").rename(styles / "two" / "6_sks")
    batch.write(base="max_train_epochs = 3\n")
    trained_by(took(steps=6, pace=10.0, size=5_000))
    assert batch.run("--only", NAMES[0]) == 0
    with_attempts_of(batch, 70.0)
    found = told(batch, capsys)
    assert found[NAMES[1]][1:3] == ["~5.0kB", "~1:10"]
    assert found[NAMES[2]][1:3] == ["~5.0kB", "~6:10"]  # six times the visits, and 10 s beside them


def test_other_options_are_another_kind_and_a_changed_job_tells_nothing(batch, trained_by, capsys):
    batch.write(more='[methods.wide]\nnetwork_module = "networks.lora"\nnetwork_dim = 64\n')
    trained_by(took(steps=2, pace=40.0, size=5_000))
    assert batch.run("--only", NAMES[0]) == 0
    assert told(batch, capsys)["one-wide-s1"][1:3] == ["-", "-"]
    batch.write(more="network_alpha = 2\n")
    assert told(batch, capsys, "--only", "two*")[NAMES[2]][1:3] == ["-", "-"]


def test_a_method_that_trains_nothing_takes_as_long_as_its_look_at_other_pictures(batch, trained_by, capsys):
    batch.write(more="[methods.base]\ntrain = false\n")
    trained_by(lambda assignment: Outcome(results={"steps": 0, "bytes": 300}))
    assert batch.run("--only", "one-base-s1") == 0
    with_attempts_of(batch, 7.0)
    assert told(batch, capsys)["two-base-s1"][:3] == ["new", "~300B", "~0:07"]


def test_the_sum_says_of_how_many_jobs_it_is(tmp_path):
    records = [Record("a"), Record("b"), Record("c", state=DONE)]
    line = to_come(records, [Forecast(2e9, 7200), Forecast(None, 60), Forecast(1e9, 1)], tmp_path).splitlines()[0]
    assert line.startswith("Still to come: disk 2.0 GB (for 1 of 2 jobs), of ")
    assert line.endswith("time 2:01:00, one after another.")
    assert to_come([records[2]], [Forecast()], tmp_path) == "Nothing is left to do."
