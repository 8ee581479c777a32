"""How the ledger decides what is trained, again or not at all; nothing is trained here but pretended."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace

import pytest

from library.batch.driver import Driver, Limits
from library.batch.engines.assignment import FAULT, WORKER_DIED, Outcome
from library.batch.jobs.ledger import BY_USER, RUNNING, STOPPED, Attempt
from tests.library.batch.conftest import Pretending

NAMES = ["one-lora-s1", "three-lora-s1", "two-lora-s1"]


def test_a_second_start_does_only_what_is_left(batch, trained_by):
    trained = []

    def train(assignment):
        trained.append(assignment.name)
        if len(trained) == 2:
            return Outcome(STOPPED, "asked to stop", signal=2)
        return Outcome()

    trained_by(train)
    assert batch.run() == 130
    assert batch.states() == {NAMES[0]: "done", NAMES[1]: "pending", NAMES[2]: "pending"}
    trained_by(lambda assignment: trained.append((assignment.name, assignment.resume)) or Outcome())
    assert batch.run() == 0
    assert trained == [NAMES[0], NAMES[1], (NAMES[1], True), (NAMES[2], False)]


def test_what_a_person_did_wrong_is_not_tried_again_and_the_others_are_done(batch, trained_by, styles):
    trained = []

    def train(assignment):
        trained.append(assignment.name)
        return Outcome(BY_USER, "image '4.png' is damaged") if "three" in assignment.name else Outcome()

    trained_by(train)
    assert batch.run() == 3
    assert batch.run() == 3
    assert trained == NAMES
    assert batch.run("--retry", "failed") == 3
    assert trained == [*NAMES, NAMES[1]]
    (styles / "three" / "1_sks" / "4.txt").write_text("a repaired caption", encoding="utf-8")
    trained_by(lambda assignment: trained.append(assignment.name) or Outcome())
    assert batch.run() == 0
    assert trained == [*NAMES, NAMES[1], NAMES[1]]


def test_a_worker_that_dies_is_replaced_until_the_attempts_are_used_up(batch, trained_by):
    trained = []

    def train(assignment):
        trained.append(assignment.name)
        return Outcome(WORKER_DIED, "signal 9") if "one" in assignment.name else Outcome()

    trained_by(train)
    assert batch.run() == 3
    assert batch.states()[NAMES[0]] == "gave_up"
    assert trained == [*NAMES, NAMES[0]]  # the others first, then once more
    assert batch.run() == 3
    assert len(trained) == 4


def test_retry_none_tries_nothing_twice(batch, trained_by):
    trained = []
    trained_by(lambda assignment: trained.append(assignment.name) or Outcome(FAULT, "bug"))
    assert batch.run("--retry", "none") == 3
    assert trained == NAMES


def test_fail_fast_begins_nothing_after_a_failure(batch, trained_by):
    trained_by(lambda assignment: Outcome(BY_USER, "no"))
    assert batch.run("--fail_fast") == 3
    assert batch.states() == {NAMES[0]: "failed", NAMES[1]: "pending", NAMES[2]: "pending"}


def test_a_used_up_time_budget_leaves_jobs_and_says_so(batch, trained_by):
    trained_by(lambda assignment: time.sleep(0.05) or Outcome())
    assert batch.run("--time_budget", "0.01s") == 4


def test_only_trains_what_is_named_and_leaves_the_rest(batch, trained_by):
    trained_by(lambda assignment: Outcome())
    assert batch.run("--only", "t*") == 0
    assert sorted(batch.states()) == NAMES[1:]
    assert batch.run("--only", "tow-lora-s1") == 2


def test_a_job_that_says_running_under_a_free_lock_is_taken_up_and_its_attempt_does_not_count(batch, trained_by):
    trained_by(lambda assignment: Outcome())
    batch.run()
    record = batch.ledger.read(NAMES[0])
    cut = Attempt("here", 1, "cpu", time.time())
    batch.ledger.write(replace(record, state=RUNNING, attempts=[cut]))
    seen = []
    trained_by(lambda assignment: seen.append(assignment.resume) or Outcome())
    assert batch.run() == 0
    record = batch.ledger.read(NAMES[0])
    assert seen == [True]
    assert [attempt.counts for attempt in record.attempts] == [False, False]
    assert record.failures == 0


def test_files_that_are_gone_are_made_again(batch, trained_by):
    def train(assignment):
        file = batch.output / assignment.name / "x"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"weights")
        return Outcome(outputs=[{"path": "x", "bytes": 7, "sha256": "0"}])

    trained_by(train)
    batch.run()
    (batch.output / NAMES[2] / "x").unlink()
    trained = []
    trained_by(lambda assignment: trained.append(assignment.name) or train(assignment))
    assert batch.run() == 0
    assert trained == [NAMES[2]]
    assert batch.run("--verify") == 0  # a hash that does not agree
    assert trained == [NAMES[2], *NAMES]


def test_a_record_that_names_another_job_or_files_elsewhere_moves_and_trusts_nothing(batch, trained_by, capsys):
    outside = batch.output.parent / "outside"
    outside.mkdir()
    (outside / "x").write_bytes(b"weights")
    trained_by(lambda assignment: Outcome(outputs=[{"path": "../../outside/x", "bytes": 7, "sha256": "0"}]))
    batch.run()
    trained = []
    trained_by(lambda assignment: trained.append(assignment.name) or Outcome())
    assert batch.run() == 0
    assert trained == NAMES  # none of the files is a file of its job
    record = batch.ledger.jobs / f"{NAMES[0]}.json"
    record.write_text(record.read_text(encoding="utf-8").replace(NAMES[0], "../../outside"), encoding="utf-8")
    assert batch.run() == 1
    assert f"{NAMES[0]}.json` is no record of a job (it is the record of '../../outside')" in capsys.readouterr().err
    assert (outside / "x").is_file()


@pytest.mark.parametrize("words", [(), ("--dry_run",)])
def test_a_finished_name_with_other_options_is_refused_with_the_difference(batch, trained_by, capsys, words):
    trained_by(lambda assignment: Outcome())
    batch.run()
    capsys.readouterr()
    batch.write(more='[[override]]\nmatch = { dataset = "two" }\nset = { network_dim = 8 }\n')
    assert batch.run(*words) == 2
    said = capsys.readouterr().err
    assert f"{NAMES[2]} is in the ledger as another job: network_dim was 2 and is 8" in said
    assert NAMES[0] not in said


def test_a_failed_job_with_other_options_begins_anew_beside_what_it_had_left(batch, trained_by):
    left = batch.output / NAMES[0] / "state"

    def fail(assignment):
        left.mkdir(parents=True, exist_ok=True)
        return Outcome(BY_USER, "no", steps=3)

    trained_by(fail)
    assert batch.run("--only", "one*") == 3
    batch.write(more="network_alpha = 2\n")
    seen = []
    trained_by(lambda assignment: seen.append(left.exists()) or Outcome())
    assert batch.run("--only", "one*") == 0
    assert seen == [False]
    assert (batch.ledger.folder / "replaced" / f"{NAMES[0]}.1" / "state").is_dir()


def test_a_worker_of_many_does_not_wait_for_the_others(batch, trained_by):
    trained_by(lambda assignment: Outcome())
    with batch.ledger_created().held(NAMES[0]):
        record = batch.ledger.read(NAMES[0])
        batch.ledger.write(replace(record, state=RUNNING))
        assert batch.run("--worker") == 0
        assert batch.run("--worker", "--only", "one*") == 0
    assert batch.states()[NAMES[1]] == "done"
    assert batch.states()[NAMES[0]] == RUNNING


def test_there_must_be_a_batch_to_be_stopped(batch, capsys):
    assert batch.run("--stop") == 1
    assert "to be stopped" in capsys.readouterr().err


def test_changed_pictures_of_a_finished_job_are_refused(batch, trained_by, styles, capsys):
    trained_by(lambda assignment: Outcome())
    batch.run()
    (styles / "two" / "1_sks" / "2.txt").write_text("something else", encoding="utf-8")
    assert batch.run() == 2
    assert "the content of the pictures has changed" in capsys.readouterr().err


def test_two_drivers_with_two_workers_each_train_each_job_once(batch):
    batch.write(batch="seeds = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]")
    trained, mutex = [], threading.Lock()

    def train(assignment):
        with mutex:
            trained.append(assignment.name)
        time.sleep(0.002)
        return Outcome()

    found = batch.brought_up()
    trainers = [Pretending(train) for _ in range(2)]
    drivers = [Driver(found.ledger, found.jobs, Limits()) for _ in range(2)]
    threads = [threading.Thread(target=driver.drive, args=(trainers,)) for driver in drivers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(batch.states().values()) == {"done"}
    assert len(trained) == len(set(trained)) == 30


def test_stop_asks_the_drivers_and_the_next_start_forgets_it(batch, trained_by):
    def train(assignment):
        assert batch.run("--stop") == 0
        assert any(map(os.path.exists, assignment.stop_files))
        return Outcome(STOPPED, "asked to stop")

    trained_by(train)
    assert batch.run() == 4
    trained_by(lambda assignment: Outcome())
    assert batch.run() == 0


def test_below_the_disk_that_is_asked_for_nothing_is_begun(batch, trained_by, capsys):
    batch.write()
    text = batch.jobs.read_text(encoding="utf-8")
    batch.jobs.write_text(text.replace('min_free_disk = "0"', 'min_free_disk = "900TB"'), encoding="utf-8")
    trained_by(lambda assignment: pytest.fail("begun"))
    assert batch.run("--time_budget", "0.6s") == 4
    assert "waiting for more" in capsys.readouterr().err


def test_status_and_dry_run_change_nothing(batch, capsys):
    assert batch.run("--dry_run") == 0
    assert batch.run("--status") == 0
    assert not batch.output.exists()
    assert "3 jobs: 3 pending" in capsys.readouterr().out


def test_problems_of_options_are_reported_once_for_all_jobs_that_have_them(batch, capsys):
    batch.write(base="mixed_precision = 'fp61'\nfull_bf16 = true\n")
    assert batch.run("--dry_run") == 2
    batch.write(base="full_bf16 = true\n")
    assert batch.run("--dry_run") == 2
    said = capsys.readouterr().err
    assert "must be one of no, fp16, bf16" in said
    assert "one-lora-s1 and 2 more: `full_bf16` in base.toml line 10 needs `mixed_precision` = 'bf16'" in said


@pytest.mark.parametrize("words", [(), ("--dry_run",)])
def test_an_empty_dataset_among_others_is_refused_before_anything_is_begun(batch, trained_by, styles, capsys, words):
    for file in (styles / "two" / "1_sks").iterdir():
        file.unlink()
    trained_by(lambda assignment: pytest.fail("begun"))
    assert batch.run(*words) == 2
    said = capsys.readouterr().err
    assert f"two-lora-s1: There is no image to train on. {styles}/two/1_sks" in said
    assert said.count("no image to train on") == 1
    assert not batch.output.exists()


def test_what_the_jobs_file_decides_cannot_be_given_on_the_command_line(batch, capsys):
    assert batch.run("--dry_run", "--seed", "3") == 2
    assert "`--seed` on the command line cannot be used in a batch: `seeds` is in [batch]." in capsys.readouterr().err


MISSING = '[methods.odd]\nnetwork_module = "{}"\nnetwork_dim = 2\n'


@pytest.mark.parametrize("words", [(), ("--dry_run",)])
def test_a_method_whose_module_is_not_there_is_told_before_anything_is_begun(batch, trained_by, capsys, words):
    batch.write(more=MISSING.format("not_there_at_all.kohya"))
    trained_by(lambda assignment: pytest.fail("begun"))
    assert batch.run(*words) == 2
    said = capsys.readouterr().err
    assert "odd (3 of 6 jobs): `not_there_at_all.kohya` cannot be found; put its file beside the config" in said
    assert "add `--skip_missing` to train the other methods" in said
    assert not batch.output.exists()


def test_skip_missing_trains_the_other_methods_and_says_what_is_left_out(batch, trained_by, capsys):
    batch.write(more=MISSING.format("not_there_at_all.kohya"))
    begun = []
    trained_by(lambda assignment: begun.append(assignment.name) or Outcome())
    batch.run("--skip_missing")
    assert sorted(begun) == ["one-lora-s1", "three-lora-s1", "two-lora-s1"]
    assert "left out: odd (3 of 6 jobs)" in capsys.readouterr().err


def test_a_dry_run_imports_the_modules_of_others(batch, capsys, tmp_path):
    """One that is there, and lacks something itself, is found by importing it."""
    (tmp_path / "lacks_something.py").write_text("import not_there_at_all\n", encoding="utf-8")
    batch.write(more=MISSING.format("lacks_something"))
    assert batch.run("--dry_run") == 2
    assert "imports `not_there_at_all`, which cannot be found" in capsys.readouterr().err


def test_status_and_driver_tell_how_far_a_job_is_and_a_dead_one_is_not_running(batch, capsys):
    found = batch.brought_up()
    log = found.ledger.output_dir / "one-lora-s1" / "one-lora-s1-log.jsonl"
    log.parent.mkdir(parents=True)
    steps = "".join(f'{{"step": {i}, "seconds": 2.0}}\n' for i in range(1, 121))
    log.write_text('{"event": "begin", "step": 0, "total_steps": 300}\n' + steps, encoding="utf-8")
    for name in ("one-lora-s1", "two-lora-s1"):
        found.ledger.write(replace(found.ledger.read(name), state=RUNNING))
    with found.ledger.held("one-lora-s1"):
        assert batch.run("--status") == 0
    printed = capsys.readouterr().out
    assert "one-lora-s1: step 120 of 300, " in printed
    assert "Cut off, and taken up by the next start: two-lora-s1" in printed
    assert "1 running" in printed
    driver = Driver(found.ledger, found.jobs, Limits())
    driver._busy.add("one-lora-s1")
    driver.report_progress()
    assert not capsys.readouterr().err
    driver._reported -= 61
    driver.report_progress()
    assert "one-lora-s1: step 120 of 300, " in capsys.readouterr().err
