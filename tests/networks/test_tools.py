"""The commands on network files as a person calls them: what they write, what they refuse, from wherever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from library.adapters.layers import read_network, update_of
from library.files import read_tensors, tensor_hashes
from networks import resize_lora

COMMANDS = ["resize_lora"]
ROOT = Path(__file__).parents[2]


def lora(path: Path, rank: int = 8, alpha: float = 4.0, seed: int = 0, **metadata: str) -> Path:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, out, inputs, kernel in (
        ("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", 24, 20, ()),
        ("lora_unet_down_blocks_0_resnets_0_conv1", 24, 10, (3, 3)),
    ):
        tensors[f"{name}.lora_down.weight"] = torch.randn(rank, inputs, *kernel, generator=generator)
        tensors[f"{name}.lora_up.weight"] = torch.randn(out, rank, *[1] * len(kernel), generator=generator)
        tensors[f"{name}.alpha"] = torch.tensor(alpha)
    save_file(tensors, str(path), {"ss_network_dim": str(rank), "ss_base_model_version": "sd_v1", **metadata})
    return path


def words(**options: object) -> list[str]:
    argv = []
    for name, value in options.items():
        values = value if isinstance(value, list) else [] if value is True else [value]
        argv += [f"--{name}", *map(str, values)]
    return argv


@pytest.mark.process
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_starts_by_its_path_from_another_folder(command: str, tmp_path: Path) -> None:
    file = ROOT / "networks" / f"{command}.py"
    run = subprocess.run([sys.executable, file, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "usage" in run.stdout


def test_resizing_writes_a_whole_file_with_a_true_header(tmp_path: Path) -> None:
    source = lora(tmp_path / "in.safetensors")
    target = tmp_path / "new" / "out.safetensors"
    assert resize_lora.main(words(model=source, save_to=target, new_rank=3, save_precision="fp16")) == 0
    tensors, metadata = read_tensors(target)
    assert {name: tensor.dtype for name, tensor in tensors.items()} == {
        name: torch.float32 if name.endswith("alpha") else torch.float16 for name in load_file(source)
    }
    assert metadata["ss_network_dim"] == "3"
    assert metadata["ss_base_model_version"] == "sd_v1"
    assert {name: metadata[name] for name in ("sshs_model_hash", "sshs_legacy_hash")} == tensor_hashes(
        tensors, metadata
    )
    assert sorted(path.name for path in target.parent.iterdir()) == ["out.safetensors"]


def test_resizing_to_the_rank_that_is_there_changes_nothing_but_the_factors(tmp_path: Path) -> None:
    source, target = lora(tmp_path / "in.safetensors"), tmp_path / "out.safetensors"
    assert resize_lora.main(words(model=source, save_to=target, new_rank=8)) == 0
    before, after = read_network(source), read_network(target)
    for name, layer in before.layers.items():
        wanted = update_of(layer).dense().double()
        assert (update_of(after.layers[name]).dense() - wanted).norm() <= 1e-5 * wanted.norm()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dynamic_method": "sv_fro"}, "`dynamic_param`"),
        ({"dynamic_param": 0.9}, "`dynamic_method`"),
        ({"dynamic_method": "sv_fro", "dynamic_param": 1.2}, "at most 1"),
        ({"dynamic_method": "sv_ratio", "dynamic_param": 0.5}, "1 or more"),
        ({"new_rank": 0}, "`--new_rank`"),
        ({"save_to": "out.png"}, ".safetensors"),
        ({"save_to": "in.safetensors"}, "--overwrite"),
        ({"model": "absent.safetensors"}, "does not exist"),
        ({"device": "gpu"}, "`device` is `gpu`"),
    ],
)
def test_what_cannot_be_resized_is_refused_and_nothing_is_written(
    options: dict[str, object],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = lora(Path("in.safetensors")).read_bytes()
    assert resize_lora.main(words(**{"model": "in.safetensors", "save_to": "out.safetensors", **options})) != 0
    assert said in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["in.safetensors"]
    assert Path("in.safetensors").read_bytes() == before


def test_values_that_a_precision_cannot_hold_leave_the_old_file_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = load_file(lora(tmp_path / "in.safetensors"))
    save_file(
        {k: t * 1e4 if "lora" in k and k.endswith("weight") else t for k, t in tensors.items()},
        str(tmp_path / "in.safetensors"),
    )
    (tmp_path / "out.safetensors").write_text("precious", encoding="utf-8")
    options = {"model": tmp_path / "in.safetensors", "save_to": tmp_path / "out.safetensors"}
    assert resize_lora.main(words(**options, save_precision="fp16")) == 1
    assert "not finite in float16" in capsys.readouterr().err
    assert (tmp_path / "out.safetensors").read_text(encoding="utf-8") == "precious"
    assert resize_lora.main(words(**options, save_precision="bf16")) == 0
