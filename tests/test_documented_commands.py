"""Every command that README, docs/ and configs/ name is there and explains itself: each is started with --help."""

from __future__ import annotations

import os
import re
import runpy
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.benchmarks.step_overhead import measure

ROOT = Path(__file__).parent.parent
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "Dockerfile",
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "miniworld").rglob("*.md"),
    *(ROOT / "configs").rglob("*.toml"),
    *(ROOT / "configs" / "slurm").iterdir(),
)
COMMAND = re.compile(r"(?:\bpython3?|\baccelerate\s+launch)\s+(?:-m\s+(?P<module>[\w.]+\w)|(?P<script>[\w/]+\.py))")
MAKE = re.compile(r"(?:^|`)make ([a-z][\w-]*)(?=\s*?(?:$|#|`)| [A-Z]+=)", re.MULTILINE)
NOT_OURS = {
    "pip",
    "venv",
    "networks.NAME",
    "flux_train_network.py",
    "src/musubi_tuner/wan_train_network.py",
}
"""Modules of Python, what stands for any name, and commands of other trainers that a page names."""


@cache
def commands() -> dict[str, str]:
    """{command: the first page that names it}"""
    found: dict[str, str] = {}
    for page in PAGES:
        for match in COMMAND.finditer(page.read_text(encoding="utf-8")):
            name = match["module"] or match["script"]
            if name not in NOT_OURS:
                found.setdefault(name, page.name)
    return found


def start(command: str) -> None:
    if command.endswith(".py"):
        runpy.run_path(os.fspath(ROOT / command), run_name="__main__")
    else:
        runpy.run_module(command, run_name="__main__", alter_sys=True)


@pytest.mark.parametrize("command", sorted(commands()))
def test_a_documented_command_explains_itself(command: str, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [command, "--help"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as ended:
        start(command)
    shown = capsys.readouterr()
    assert not ended.value.code, f"{commands()[command]} names it: {shown.err}"
    assert "usage" in shown.out


def test_pages_name_commands():
    assert {"train_network.py", "library.report", "tests.benchmarks.step_overhead"} <= commands().keys()


def test_each_target_of_make_that_a_page_names_is_in_the_makefile():
    named = {name for page in PAGES for name in MAKE.findall(page.read_text(encoding="utf-8"))}
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"quickstart", "test"} <= named
    assert named <= targets


def test_the_overhead_of_the_loop_is_measured_on_both_sides():
    turns = measure(steps=1, rounds=1, only=None)
    assert len(turns.ours) == len(turns.bare) == 1
