"""The commands on network files as a person calls them: what they write, what they refuse, from wherever."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from library.adapters.layers import read_network, update_of
from library.files import read_tensors, tensor_hashes
from library.models.family import Family
from library.models.load import load_model
from library.models.save import save_folder
from miniworld.tiny import build
from networks import (
    check_lora_weights,
    extract_lora_from_models,
    merge_lora,
    resize_lora,
    sdxl_merge_lora,
    show_metadata,
    svd_merge_lora,
)

COMMANDS = [
    *("resize_lora", "merge_lora", "sdxl_merge_lora", "svd_merge_lora", "extract_lora_from_models"),
    *("check_lora_weights", "show_metadata"),
]
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


def dense(path: Path) -> dict[str, torch.Tensor]:
    return {name: update_of(layer).dense().double() for name, layer in read_network(path).layers.items()}


def test_a_network_of_eight_bits_is_resized(tmp_path: Path) -> None:
    tensors = load_file(lora(tmp_path / "in.safetensors"))
    small = {key: tensor.to(torch.float8_e4m3fn) if tensor.ndim else tensor for key, tensor in tensors.items()}
    save_file(small, str(tmp_path / "in.safetensors"))
    options = {"model": tmp_path / "in.safetensors", "save_to": tmp_path / "out.safetensors", "new_rank": 8}
    assert resize_lora.main(words(**options)) == 0
    old, new = (read_network(tmp_path / f"{name}.safetensors").layers for name in ("in", "out"))
    assert all(torch.allclose(update_of(old[name]).dense(), update_of(new[name]).dense(), atol=1e-4) for name in old)


def test_networks_side_by_side_are_their_sum_with_a_header_that_says_so(tmp_path: Path) -> None:
    one, other = lora(tmp_path / "one.safetensors", 3, seed=1), lora(tmp_path / "other.safetensors", 5, seed=2)
    target = tmp_path / "out.safetensors"
    argv = words(models=[one, other], ratios=[0.5, -2], save_to=target, concat=True, shuffle=True)
    assert merge_lora.main(argv) == 0
    found, first, second = dense(target), dense(one), dense(other)
    for name in first:
        wanted = 0.5 * first[name] - 2 * second[name]
        assert (found[name] - wanted).norm() <= 1e-5 * wanted.norm()
    metadata = read_tensors(target)[1]
    assert metadata["ss_network_dim"] == "8"
    assert metadata["ss_base_model_version"] == "sd_v1"
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert metadata["modelspec.merged_from"] == "one, other"
    assert metadata["sshs_model_hash"] == tensor_hashes(*read_tensors(target))["sshs_model_hash"]


def test_adding_factors_of_strangers_says_what_it_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = lora(tmp_path / "one.safetensors", seed=1), lora(tmp_path / "other.safetensors", seed=2)
    argv = words(models=[one, other], ratios=[1, 1], save_to=tmp_path / "out.safetensors", no_metadata=True)
    assert merge_lora.main(argv) == 0
    assert "of the norm off from the sum" in capsys.readouterr().out
    metadata = read_tensors(tmp_path / "out.safetensors")[1]
    assert not any(name.startswith("modelspec") for name in metadata)
    assert metadata["ss_network_dim"] == "8"
    same = words(models=[one, one], ratios=[0.5, 0.5], save_to=tmp_path / "same.safetensors")
    assert merge_lora.main(same) == 0
    assert "off from the sum" not in capsys.readouterr().out


def test_networks_of_different_ranks_merge_to_a_new_one(tmp_path: Path) -> None:
    one, other = lora(tmp_path / "one.safetensors", 3, seed=1), lora(tmp_path / "other.safetensors", 5, seed=2)
    target = tmp_path / "out.safetensors"
    options = {"models": [one, other], "ratios": [1, 0.5], "save_to": target}
    assert svd_merge_lora.main(words(**options, new_rank=8, new_conv_rank=2)) == 0
    found, first, second = dense(target), dense(one), dense(other)
    for name, layer in read_network(target).layers.items():
        wanted = first[name] + 0.5 * second[name]
        left, values, right = torch.linalg.svd(wanted, full_matrices=False)
        rank = 2 if "conv1" in name else 8
        assert layer.tensors["lora_down.weight"].shape[0] == rank
        best = left[:, :rank] * values[:rank] @ right[:rank]
        assert (found[name] - best).norm() <= 1e-5 * best.norm()
    assert read_tensors(target)[1]["ss_network_args"] == '{"conv_dim": "2", "conv_alpha": "2"}'


def test_weights_by_block_are_part_of_the_ratio(tmp_path: Path) -> None:
    one = lora(tmp_path / "one.safetensors", seed=1)
    target = tmp_path / "out.safetensors"
    blocks = [1.0] * 26
    blocks[2] = 0.25  # IN01: down_blocks_0, the first resnet and attention
    argv = words(models=[one], ratios=[2], lbws=[str(blocks)], new_rank=8, save_to=target)
    assert svd_merge_lora.main(argv) == 0
    found, before = dense(target), dense(one)
    for name in before:
        assert (found[name] - 0.5 * before[name]).norm() <= 1e-5 * before[name].norm()


def test_weights_by_block_of_another_family_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = lora(tmp_path / "one.safetensors")
    argv = words(models=[one], ratios=[1], lbws=[str([0.0] * 12)], new_rank=8, save_to=tmp_path / "out.safetensors")
    assert svd_merge_lora.main(argv) == 1
    assert "for no layer of the U-Net" in capsys.readouterr().err


def test_a_file_with_nan_is_refused_by_the_name_of_its_layer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = lora(tmp_path / "in.safetensors")
    tensors = load_file(file)
    key = next(key for key in tensors if key.endswith("lora_up.weight"))
    tensors[key][0] = float("nan")
    save_file(tensors, str(file))
    assert resize_lora.main(words(model=file, save_to=tmp_path / "out.safetensors", new_rank=2)) == 1
    said = capsys.readouterr().err
    assert key.removesuffix(".lora_up.weight") in said
    assert "not finite" in said


def test_a_folder_that_holds_anything_is_never_replaced_by_a_model(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "01.png").write_text("precious", encoding="utf-8")
    source = lora(tmp_path / "in.safetensors")
    for options in ({}, {"overwrite": True}):
        argv = words(models=[source], ratios=[1], save_to=pictures, sd_model=tiny_model, **options)
        assert merge_lora.main(argv) == 1
        assert "is there already; give the name of a new folder" in capsys.readouterr().err
    assert [path.name for path in pictures.iterdir()] == ["01.png"]


@pytest.mark.parametrize(
    ("command", "options", "said"),
    [
        (merge_lora, {"ratios": [1, 2]}, "`models` has 1"),
        (merge_lora, {"ratios": None}, "`ratios` is not set"),
        (merge_lora, {"sd_model": "absent.safetensors"}, "absent.safetensors"),
        (merge_lora, {"sd_model": "in.safetensors", "concat": True}, "no effect with `sd_model`"),
        (merge_lora, {"sd_model": "in.safetensors"}, "looks like a LoRA"),
        (merge_lora, {"save_to": "in.safetensors"}, "--overwrite"),
        (sdxl_merge_lora, {"lbws": ["[1]"]}, "`lbws` has"),
        (svd_merge_lora, {"models": ["absent.safetensors"]}, "does not exist"),
    ],
)
def test_what_cannot_be_merged_is_refused_and_nothing_is_written(
    command: Any, options: dict[str, object], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    before = lora(Path("in.safetensors")).read_bytes()
    asked = {"models": ["in.safetensors"], "ratios": [1], "save_to": "out.safetensors", **options}
    assert command.main(words(**{name: value for name, value in asked.items() if value is not None})) != 0
    assert said in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["in.safetensors"]
    assert Path("in.safetensors").read_bytes() == before


def test_a_model_is_merged_only_by_its_own_command(tmp_path: Path, tiny_model: Path, capsys: Any) -> None:
    source, target = lora(tmp_path / "in.safetensors"), tmp_path / "out"
    options = {"models": [source], "ratios": [1], "save_to": target, "sd_model": tiny_model}
    assert sdxl_merge_lora.main(words(**options)) == 1
    assert "is a Stable Diffusion 1 model and not SDXL; use networks/merge_lora.py" in capsys.readouterr().err
    assert merge_lora.main(words(**options, v2=True)) == 1
    assert "leave `--v2` out" in capsys.readouterr().err
    assert not target.exists()


def test_a_folder_merged_to_the_name_of_a_file_is_a_file(tmp_path: Path, tiny_model: Path, capsys: Any) -> None:
    source, target = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    factors = {f"{name}.lora_down.weight": torch.ones(1, 16), f"{name}.lora_up.weight": torch.ones(16, 1)}
    save_file(factors, str(source))
    options = {"models": [source], "ratios": [0.5], "save_to": target, "sd_model": tiny_model}
    assert merge_lora.main(words(**options)) == 0
    assert target.is_file()
    before, after = load_model(tiny_model).unet.state_dict(), load_model(target).unet.state_dict()
    changed = [key for key, tensor in before.items() if not torch.equal(after[key], tensor)]
    assert changed == ["down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"]
    assert merge_lora.main(words(**options | {"save_to": tmp_path / "out.ckpt"})) == 1
    assert "written as .safetensors" in capsys.readouterr().err
    (tmp_path / "folder.safetensors").mkdir()
    assert merge_lora.main(words(**options | {"save_to": tmp_path / "folder.safetensors"})) == 1
    assert "is the folder" in capsys.readouterr().err


def test_the_difference_of_two_models_is_written_as_kohyas_trainer_would(tmp_path: Path, tiny_model: Path) -> None:
    save_folder(build(Family.SD1, seed=1), tmp_path / "tuned")
    target = tmp_path / "out.safetensors"
    models = {"model_org": tiny_model, "model_tuned": tmp_path / "tuned", "save_to": target}
    assert extract_lora_from_models.main(words(**models, dim=2, conv_dim=1, save_precision="fp16")) == 0
    tensors, metadata = read_tensors(target)
    assert {tensor.dtype for key, tensor in tensors.items() if not key.endswith("alpha")} == {torch.float16}
    assert metadata["ss_network_dim"] == "2"
    assert metadata["ss_network_args"] == '{"conv_dim": "1", "conv_alpha": "1.0"}'
    assert metadata["ss_base_model_version"] == "sd_v1"
    assert metadata["modelspec.title"] == "out"
    ranks = {layer.tensors["lora_down.weight"].shape[0] for layer in read_network(target).layers.values()}
    assert ranks == {1, 2}
    one = words(**models, dim=2, v2=True, sdxl=True)
    assert extract_lora_from_models.main(one) != 0


def test_a_network_can_be_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = lora(tmp_path / "in.safetensors", ss_network_args='{"conv_dim": "4"}')
    assert check_lora_weights.main([str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "number of LoRA modules: 4"
    values = load_file(file)["lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight"].abs()
    assert f"conv1.lora_down.weight,(8-10-3-3),{float(values.mean())},{float(values.min())}" in "".join(lines)
    assert check_lora_weights.main([str(file), "-s"]) == 0
    assert "alpha,(),4.0,4.0" in capsys.readouterr().out
    assert show_metadata.main(["--model", str(file)]) == 0
    assert json.loads(capsys.readouterr().out)["ss_network_args"] == '{"conv_dim": "4"}'
    assert show_metadata.main(["--model", str(file), "--unpack"]) == 0
    assert json.loads(capsys.readouterr().out)["ss_network_args"] == {"conv_dim": "4"}
    torch.save({"a": torch.ones(1)}, tmp_path / "old.ckpt")
    assert show_metadata.main(["--model", str(tmp_path / "old.ckpt")]) == 1
