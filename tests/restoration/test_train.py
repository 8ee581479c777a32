"""Both pivots through the house's loop: what changes, what does not, what is given to whom."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file


def test_one_command_trains_both_pivots_and_their_files_say_whose_they_are(person: Callable[..., int], tmp_path: Path):
    assert person() == 0
    out = tmp_path / "out"
    g, e = load_file(out / "ana_G.safetensors"), load_file(out / "ana_E.safetensors")
    assert "conv_out.weight" in g
    assert "controlnet_mid_block.weight" in e
    with safe_open(out / "ana_G.safetensors", "pt") as file:
        header = file.metadata()
    assert header["pivot_prompt"] == "a photo of a sks woman"
    assert header["pivot_class_prompt"] == "a photo of a woman"
    assert header["ss_steps"] == "2"
