"""The steps of the Dockerfile, as far as they show without Docker: what it copies and starts is there, and starts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
STEPS = [
    line.partition(" ")[::2] for line in re.sub(r"\\\n\s*", "", TEXT).splitlines() if line and not line.startswith("#")
]
INSIDE = "/pivot-scripts/"


def test_it_is_short_and_begins_with_the_python_that_is_supported():
    assert len(TEXT.splitlines()) <= 25
    assert STEPS[0][0] == "FROM"
    major, minor = map(int, re.findall(r"python:(\d+)\.(\d+)", STEPS[0][1])[0])
    assert (3, 11) <= (major, minor) <= (3, 13)


def test_what_it_copies_is_there_and_what_it_needs_is_not_ignored():
    sources = [word for name, rest in STEPS if name == "COPY" for word in rest.split()[:-1]]
    assert sources == ["requirements.txt", "."]
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    needed = ["train_network.py", "library", "networks", "embeddings", "restoration", "miniworld", "configs"]
    for name in needed:
        assert (ROOT / name).exists()
        assert not any(fnmatch(name, pattern) for pattern in ignored), name


def test_its_torch_is_the_one_that_the_readme_names():
    cuda = dict(rest.split("=") for name, rest in STEPS if name == "ARG")["CUDA"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"download.pytorch.org/whl/{cuda}" in readme
    assert any("--requirement requirements.txt" in rest for name, rest in STEPS if name == "RUN")


@pytest.mark.process
def test_its_entry_point_starts_from_another_folder(tmp_path: Path):
    (entry,) = [json.loads(rest) for name, rest in STEPS if name == "ENTRYPOINT"]
    assert entry[0] == "python"
    script = ROOT / entry[1].removeprefix(INSIDE)
    ended = subprocess.run([sys.executable, script, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "usage: train_network.py" in ended.stdout
