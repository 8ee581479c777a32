"""Children of the driver: one that dies costs an attempt, all end with their driver, and the driver needs no torch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from library.batch.engines import local
from library.batch.engines.assignment import WORKER_DIED, Assignment
from tests.benchmarks.batch_world import is_alive

ROOT = Path(__file__).resolve().parents[3]
# A child that trains nothing: it answers, sleeps or dies as the job's name says.
CHILD = """
import json, os, sys, time
sys.path.insert(0, {root!r})
from library.batch.engines.child import die_with
die_with(int(sys.argv[1]))
for line in sys.stdin:
    name = json.loads(line)["name"]
    if name == "dies":
        os.kill(os.getpid(), 9)
    if name == "leaves":
        sys.exit(7)
    if name == "sleeps":
        time.sleep(60)
    error = "fault" if name == "faulty" else ""
    print(json.dumps(dict(error_class=error, message=str(os.getpid()))), flush=True)
"""


@pytest.fixture
def child(tmp_path, monkeypatch):
    """A trainer whose child trains nothing."""
    (tmp_path / "child.py").write_text(CHILD.format(root=str(ROOT)), encoding="utf-8")
    monkeypatch.setattr(local, "CHILD", tmp_path / "child.py")
    trainer = local.Child("cpu")
    yield trainer
    trainer.close()


def named(name: str) -> Assignment:
    return Assignment(name, "config.toml")


@pytest.mark.process
def test_a_child_goes_on_to_the_next_job_and_is_replaced_after_a_death_or_a_fault(child):
    first, second = (child.train(named("fine")).message for _ in range(2))
    assert first == second
    died = child.train(named("dies"))
    assert died.error_class == WORKER_DIED
    assert "signal 9 (SIGKILL)" in died.message
    third = child.train(named("faulty")).message
    assert third != second
    assert child.train(named("leaves")).message == "the process that trained it ended with exit code 7"
    assert child.train(named("fine")).message not in (first, third)


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="the parent's death signal is Linux'")
def test_a_child_ends_with_its_driver_in_the_middle_of_a_job(tmp_path):
    (tmp_path / "child.py").write_text(CHILD.format(root=str(ROOT)), encoding="utf-8")
    program = (
        f"import sys, threading, time; sys.path.insert(0, {str(ROOT)!r}); from library.batch.engines import local; "
        "from library.batch.engines.assignment import Assignment; from pathlib import Path; "
        f"local.CHILD = Path({str(tmp_path / 'child.py')!r}); child = local.Child('cpu'); "
        "child.train(Assignment('fine', 'x')); print(child.pid, flush=True); child.train(Assignment('sleeps', 'x'))"
    )
    driver = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    pid = int(driver.stdout.readline())
    assert is_alive(pid)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    begun = time.monotonic()
    while is_alive(pid) and time.monotonic() - begun < 10:
        time.sleep(0.01)
    assert not is_alive(pid)


@pytest.mark.process
def test_two_hundred_jobs_are_checked_without_torch(batch):
    batch.write(batch=f"seeds = {list(range(1, 68))}")
    program = (
        "import sys; from train_batch import main; "
        f"code = main(['--config_file', {str(batch.base)!r}, '--jobs', {str(batch.jobs)!r}, '--dry_run']); "
        "sys.exit(code or 'torch' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "201 jobs: 201 pending" in ended.stdout
