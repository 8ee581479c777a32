"""The rehearsal of other people's network modules, short: what it finds of two algorithms is what its table says."""

from __future__ import annotations

import pytest

from tests.rehearsal.modules import LYCORIS, live

pytest.importorskip("lycoris")


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("LoCon, attn-only", {"loaded": "exact", "dim from file": "exact", "resumed": "exact"}),
        ("DyLoRA", {"loaded": "fails", "dim from file": "fails", "resumed": "exact", "diffusers": "fails"}),
    ],
)
def test_an_algorithm_of_lycoris_lives_as_its_row_says(name, cells, tmp_path):
    (listed,) = [listed for listed in LYCORIS if listed.name == name]
    life = live(listed, tmp_path, steps=2)
    assert {column: life.cells[column] for column in cells} == cells
    if name == "DyLoRA":
        assert "lycoris.kohya took nothing of it" in life.failures["loaded"]
    else:
        assert float(life.cells["diffusers"]) < 1e-4
        assert float(life.cells["merged"]) < 1e-4
