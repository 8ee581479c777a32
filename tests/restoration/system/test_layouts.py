"""Restorers under DiffBIR's names: the published layout is known name by name, and files go and come back the same."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch
from accelerate import init_empty_weights
from torch import Tensor

from library.errors import UserError
from library.files import read_tensors, write_tensors
from library.models.family import Family
from library.models.load import empty_modules
from library.models.save import original_tensors
from library.models.single_file import from_original
from library.models.standard import standard_configs
from restoration.convert import main as convert
from restoration.system.conversion import schedule_numbers, unused_text_tensors
from restoration.system.layouts import (
    CLEANER,
    CONDITION_ENCODER,
    Layout,
    encoder_from,
    encoder_to,
    is_whole_restorer,
    recognise,
    under,
    unwrapped,
)
from restoration.system.load import load_restorer
from restoration.system.system import IRControlNet, System

# Names and shapes of face_full_v1.ckpt, as DiffBIR's own classes have them.
LAYOUT = json.loads(gzip.decompress((Path(__file__).parents[2] / "golden" / "diffbir_v1_layout.json.gz").read_bytes()))
CONFIGS = standard_configs(Family.SD2)


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in LAYOUT.items()}


def fits(tensors: dict[str, Tensor], module: torch.nn.Module) -> bool:
    wanted = module.state_dict()
    return tensors.keys() == wanted.keys() and all(tensors[name].shape == wanted[name].shape for name in wanted)


def test_every_name_of_the_published_checkpoint_has_its_place(published: dict[str, Tensor]):
    assert recognise(published, Path("face.ckpt")) is Layout.DIFFBIR_V1
    assert is_whole_restorer(published)
    parts = from_original(published, Family.SD2, CONFIGS)
    encoder = encoder_from(published, Layout.DIFFBIR_V1, CONFIGS["unet"])
    modules = empty_modules(Family.SD2, CONFIGS)
    with init_empty_weights(include_buffers=False):
        e = IRControlNet.for_config(CONFIGS["unet"])
    assert fits(encoder, e)
    assert all(fits(parts[name], modules[name]) for name in ("unet", "vae", "text_encoder"))
    condition, cleaner = under(published, CONDITION_ENCODER), under(published, CLEANER)
    assert condition.keys() < under(published, "first_stage_model.").keys()
    counts = [len(parts["unet"]), len(encoder), len(parts["vae"]), len(condition), len(parts["text_encoder"])]
    assert counts == [686, 324, 248, 108, 372]
    assert len(cleaner) == 732
    assert len(schedule_numbers({})) == 13
    assert schedule_numbers({}).keys() == {name for name in published if "." not in name}


def test_wrappers_of_training_programs_are_taken_off(published: dict[str, Tensor]):
    assert unwrapped({f"module.{name}": tensor for name, tensor in published.items()}).keys() == published.keys()
    alone = under(published, "control_model.")
    assert recognise(alone, Path("v1_face.pth")) is Layout.DIFFBIR_V2
    assert (
        encoder_from(alone, Layout.DIFFBIR_V2, CONFIGS["unet"]).keys()
        == encoder_from(published, Layout.DIFFBIR_V1, CONFIGS["unet"]).keys()
    )


@pytest.mark.parametrize("layout", list(Layout))
def test_an_e_comes_back_from_every_layout_bit_for_bit(layout: Layout, system: System, tmp_path: Path):
    config, mine = dict(system.unet.config), system.encoder.state_dict()
    written = encoder_to(mine, layout, config)
    write_tensors(tmp_path / "e.safetensors", written)
    read, _ = read_tensors(tmp_path / "e.safetensors")
    assert recognise(read, tmp_path) is layout
    again = encoder_from(read, layout, config)
    assert again.keys() == mine.keys()
    assert all(torch.equal(again[name], mine[name]) for name in mine)


def v1_file(system: System, path: Path) -> dict[str, Tensor]:
    """A tiny restorer as DiffBIR v1 has it, pickled, with other text than ours in the layer that is never run."""
    from library.models.save import packed_configs

    tensors = original_tensors(system.model)
    tensors |= encoder_to(system.encoder.state_dict(), Layout.DIFFBIR_V1, dict(system.unet.config))
    for name in [n for n in tensors if n.startswith(("first_stage_model.encoder.", "first_stage_model.quant_conv."))]:
        tensors["cond_encoder." + name.removeprefix("first_stage_model.")] = tensors[name]
    tensors |= {"preprocess_model.conv_first.1.weight": torch.randn(4, 4, 3, 3)}
    tensors |= schedule_numbers(system.model.scheduler_config) | unused_text_tensors(32)
    write_tensors(path, tensors, {"diffusers_config": json.dumps(packed_configs(system.model))})
    return tensors


def test_a_v1_checkpoint_becomes_a_folder_and_is_written_back_bit_for_bit(system: System, tmp_path: Path):
    tensors = v1_file(system, tmp_path / "face_full_v1.safetensors")
    there, back = tmp_path / "folder", tmp_path / "back.safetensors"
    assert convert(["--input", str(tmp_path / "face_full_v1.safetensors"), "--output", str(there)]) == 0
    assert convert(["--input", str(there), "--output", str(back), "--save_model_as", "diffbir_v1"]) == 0
    again, _ = read_tensors(back)
    assert again.keys() == tensors.keys()
    assert [name for name in tensors if not torch.equal(again[name], tensors[name])] == []
    loaded = load_restorer(there).system
    assert torch.equal(loaded.null, system.null)


def test_a_v2_controlnet_becomes_diffusers_and_is_written_back_bit_for_bit(
    system: System, restorer_folder: Path, tmp_path: Path
):
    tensors = encoder_to(system.encoder.state_dict(), Layout.DIFFBIR_V2, dict(system.unet.config))
    torch.save({f"module.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "v1_face.pth")
    there, back = tmp_path / "whole", tmp_path / "back.safetensors"
    source = ["--input", str(tmp_path / "v1_face.pth"), "--model", str(restorer_folder)]
    assert convert([*source, "--output", str(there)]) == 0
    assert convert(["--input", str(there), "--output", str(back), "--save_model_as", "diffbir_v2"]) == 0
    again, _ = read_tensors(back)
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)
    e = IRControlNet.from_pretrained(there / "controlnet", local_files_only=True)
    assert torch.equal(e.state_dict()["conv_in.weight"], system.encoder.state_dict()["conv_in.weight"])


def wrong_file(kind: str, system: System, path: Path) -> Path:
    e = encoder_to(system.encoder.state_dict(), Layout.DIFFBIR_V2, dict(system.unet.config))
    if kind == "an ordinary ControlNet":
        e["input_blocks.0.0.weight"] = e["input_blocks.0.0.weight"][:, :4].clone()
    elif kind == "does not fit the U-Net":
        e = {name: tensor for name, tensor in e.items() if "middle_block.1" not in name}
    elif kind == "without a ControlNet":
        e = original_tensors(system.model)
    elif kind == "none of them a ControlNet's":
        e = {"a.weight": torch.zeros(1)}
    write_tensors(path, e)
    return path


@pytest.mark.parametrize(
    "kind",
    ["an ordinary ControlNet", "does not fit the U-Net", "without a ControlNet", "none of them a ControlNet's"],
)
def test_a_wrong_file_is_refused_by_name_and_reason(kind: str, system: System, restorer_folder: Path, tmp_path: Path):
    path = wrong_file(kind, system, tmp_path / "wrong.safetensors")
    with pytest.raises(UserError, match=r"wrong\.safetensors") as error:
        load_restorer(restorer_folder, path)
    assert kind in str(error.value)


def test_a_stable_diffusion_alone_is_no_restorer(system: System, tmp_path: Path):
    from library.models.save import save_single_file

    save_single_file(system.model, tmp_path / "sd.safetensors")
    with pytest.raises(UserError, match="controlnet_model_name_or_path"):
        load_restorer(tmp_path / "sd.safetensors")


def test_an_sd1_model_with_an_sd2_controlnet_is_refused(restorer_folder: Path, tmp_path: Path):
    from library.models.save import save_folder
    from miniworld.tiny import build

    save_folder(build(Family.SD1), tmp_path / "sd1")
    with pytest.raises(UserError, match="does not fit the U-Net"):
        load_restorer(tmp_path / "sd1", restorer_folder / "controlnet")
