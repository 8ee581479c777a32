"""The pages of a batch and of a look at a dataset, in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from library.batch.jobs.ledger import Ledger
from library.batch.results.page import write_batch_page
from library.command import run_command
from library.data.preflight.__main__ import preflight
from tests.library.batch.results.test_comparison import RECORDS
from tests.library.report.a_run import make_run, picture

pytestmark = pytest.mark.browser


def test_everyone_can_read_the_page_of_a_batch(tmp_path: Path, readable):
    for name in ("a-base-s1", "a-lora-s1"):
        make_run(tmp_path / name, name=name, steps=5, samples_at=(0, 5))
    readable(write_batch_page(Ledger(tmp_path), RECORDS, "styles"))


def test_everyone_can_read_what_a_look_at_a_dataset_found(tmp_path: Path, readable):
    for number in range(4):
        picture(tmp_path / "train" / "3_spots" / f"{number}.png", number % 3, side=96)
    run_command(preflight, [str(tmp_path / "train"), "--resolution=128", f"--html={tmp_path / 'page.html'}"])
    readable(tmp_path / "page.html")
