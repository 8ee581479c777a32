"""What a file of a person may decide by itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from library.errors import UserError
from library.files import write_tensors
from restoration.pivots.person import give_weights


@pytest.mark.parametrize("name", ["stranger", "networks.stranger", "os", "networks.../stranger", "sd_scripts.stranger"])
def test_a_header_names_no_module_that_is_then_run(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "networks").mkdir()
    for file in ("stranger.py", "networks/stranger.py"):
        (tmp_path / file).write_text("open('ran', 'w').close()\n", encoding="utf-8")
    tensors = {"lora_unet_x.lora_down.weight": torch.zeros(1, 4)}
    write_tensors(tmp_path / "ana_G.safetensors", tensors, {"ss_network_module": name})
    model: Any = SimpleNamespace(unet=nn.Linear(2, 2))
    with pytest.raises(UserError, match="if you trust it, say so by the option `network_module`"):
        give_weights(model, tmp_path / "ana_G.safetensors")
    assert not (tmp_path / "ran").exists()
