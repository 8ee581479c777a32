"""The recipes for contributors name files that there are, and what these files hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FOLDERS = "library|networks|embeddings|restoration|miniworld|tests|configs|docs"
NAMED = re.compile(rf"`((?:{FOLDERS})/[\w/.-]*)`")
STEPS = [step for step in re.split(r"\d\. |\n\n", GUIDE.partition("## Recipes")[2]) if NAMED.search(step)]
TERMS = re.compile(r"`([A-Z][A-Z_]{3,}|[A-Z][a-z]+Spec)`")


@pytest.mark.parametrize("path", sorted({name for name in NAMED.findall(GUIDE) if "NAME" not in name}))
def test_each_path_that_the_guide_names_is_there(path: str):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("step", STEPS, ids=range(len(STEPS)))
def test_what_a_step_of_a_recipe_names_is_in_a_file_that_it_names(step: str):
    files = [ROOT / path for path in NAMED.findall(step) if path.endswith(".py") and "NAME" not in path]
    texts = "".join(file.read_text(encoding="utf-8") for file in files)
    assert [term for term in TERMS.findall(step) if files and term not in texts] == []
