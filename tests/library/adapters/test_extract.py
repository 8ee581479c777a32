"""LoRA files out of two models: a planted one comes back, and of any other the best of its rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from library.adapters.extract import Extraction, extract, find_facts, is_trained, open_model, report
from library.adapters.factors import leading
from library.adapters.layers import read_network, update_of
from library.adapters.merge_commands import merge_into_model
from library.adapters.merge_model import MergePrecision
from library.adapters.merge_networks import Weighted
from library.adapters.names import to_file_names
from library.errors import UserError
from library.files import read_metadata, save_network
from library.models.family import Family
from library.models.save import save_folder, save_single_file
from miniworld.tiny import build
from networks import lora
from tests.golden_table.comparison import read_golden


def random_matrix(rows: int, columns: int, spectrum: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    size = len(spectrum)
    left, right = (torch.randn(n, size, generator=generator, dtype=torch.float64) for n in (rows, columns))
    return torch.linalg.qr(left)[0] * spectrum @ torch.linalg.qr(right)[0].mT


SPECTRA = {
    "flat": torch.ones(300, dtype=torch.float64),
    "noise": torch.linspace(2, 0.01, 300, dtype=torch.float64),
    "slow": torch.arange(1, 301, dtype=torch.float64) ** -0.7,
    "quick": torch.arange(1, 301, dtype=torch.float64) ** -3.0,
}


@pytest.mark.parametrize("rank", [1, 40, 200])
@pytest.mark.parametrize("kind", SPECTRA)
def test_no_other_matrix_of_the_rank_is_closer(rank: int, kind: str) -> None:
    matrix = random_matrix(300, 500, SPECTRA[kind])
    up, down = leading(matrix, rank).cut(rank)
    least = SPECTRA[kind][rank:].square().sum().sqrt()
    assert (matrix - up @ down).norm() <= least * (1 + 1e-5)


def test_a_matrix_of_low_rank_comes_back() -> None:
    matrix = random_matrix(300, 200, torch.linspace(1, 0.1, 5, dtype=torch.float64))
    up, down = leading(matrix, 8).cut(8)
    assert (matrix - up @ down).norm() <= 1e-12 * matrix.norm()


@pytest.mark.parametrize("name", ["sd1", "sd2_diffusers", "sdxl"])
def test_layers_are_those_that_sd_scripts_trains(name: str) -> None:
    variants = read_golden(f"lora_keys_{name}.json.gz")["variants"]
    plain, conv = variants["dim4_alpha1"]["modules"], variants["dim4_alpha1_conv4_alpha1"]["modules"]
    others = ["lora_unet_conv_in", "lora_unet_time_embedding_linear_1", "lora_unet_label_emb_0_0", "lora_unet_out_2"]
    every = {**plain, **conv, **dict.fromkeys(others)}
    assert {layer for layer in every if is_trained(layer, Extraction(4))} == set(plain)
    assert {layer for layer in every if is_trained(layer, Extraction(4, 4))} == {*plain, *conv}


@pytest.fixture(scope="module", params=[Family.SD2, Family.SDXL])
def planted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same model in both layouts, and `tuned.safetensors` with `lora.safetensors` merged into it."""
    model: Any = build(request.param)
    folder = tmp_path_factory.mktemp("planted")
    save_single_file(model, folder / "model.safetensors")
    if request.param is Family.SDXL:
        save_folder(model, folder / "model")
    encoders = model.text_encoders if len(model.text_encoders) > 1 else model.text_encoders[0]
    network: Any = lora.create_network(1.0, 3, 3, None, encoders, model.unet, conv_dim="2", conv_alpha="2")
    network.apply_to(encoders, model.unet, True, True)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    save_network(network, folder / "lora.safetensors", torch.float32, {}, lambda t: to_file_names(t, model))
    weighted = [Weighted(read_network(folder / "lora.safetensors"), 1.0)]
    for _ in merge_into_model(weighted, folder / "model.safetensors", folder / "tuned.safetensors", MergePrecision()):
        pass
    return folder


def test_a_lora_that_was_merged_comes_back(planted: Path) -> None:
    file = planted / "model"
    original = open_model(file if file.is_dir() else planted / "model.safetensors")  # either layout, against a file
    found = extract(original, open_model(planted / "tuned.safetensors"), Extraction(3, 2))
    before = read_network(planted / "lora.safetensors").layers
    assert {layer.name for layer in found.layers} == set(before)
    assert found.with_text
    assert found.kept == pytest.approx(1, abs=1e-6)
    for layer in found.layers:
        wanted = update_of(before[layer.name])
        dense = wanted.scale * wanted.up.double() @ wanted.down.double()
        assert (layer.up @ layer.down - dense).norm() <= 1e-5 * dense.norm(), layer.name
        shapes = {key.rpartition(f"{layer.name}.")[2]: tuple(t.shape) for key, t in layer.tensors().items()}
        assert shapes["lora_up.weight"][:1] + shapes["lora_down.weight"][1:2] == (
            before[layer.name].tensors["lora_up.weight"].shape[0],
            before[layer.name].tensors["lora_down.weight"].shape[1],
        )


def test_text_encoders_that_hardly_differ_and_equal_layers_are_left_out(tmp_path: Path) -> None:
    model = build(Family.SD1)
    save_single_file(model, tmp_path / "model.safetensors")
    tensors = load_file(tmp_path / "model.safetensors")
    key = "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight"
    tensors[key] = tensors[key] + 0.005
    tuned = "model.diffusion_model.input_blocks.1.1.proj_in.weight"
    tensors[tuned] = tensors[tuned] + 1
    metadata = read_metadata(tmp_path / "model.safetensors")
    save_file(tensors, str(tmp_path / "tuned.safetensors"), metadata)
    original, other = (open_model(tmp_path / f"{name}.safetensors") for name in ("model", "tuned"))
    found = extract(original, other, Extraction(2))
    assert [layer.name for layer in found.layers] == ["lora_unet_down_blocks_0_attentions_0_proj_in"]
    assert not found.with_text
    lines = list(report(found, Extraction(2), Path("out")))
    assert "differ by at most 0.005" in lines[1]
    assert "same in both models" in lines[2]
    found = extract(original, other, Extraction(2, least=0.001))
    assert "lora_te_text_model_encoder_layers_0_mlp_fc1" in {layer.name for layer in found.layers}
    with pytest.raises(UserError, match="nothing to extract"):
        extract(original, original, Extraction(2))
    with pytest.raises(UserError, match="leave `--sdxl` out"):
        find_facts(original, other, False, True, None)
    assert find_facts(original, other, False, False, None).version == "sd_v1"
    assert find_facts(original, other, False, False, True).version == "sd_v1_v"


def test_factors_are_cut_on_both_sides_at_the_quantile_of_their_values(tmp_path: Path) -> None:
    save_single_file(build(Family.SD1), tmp_path / "model.safetensors")
    tensors = load_file(tmp_path / "model.safetensors")
    key = "model.diffusion_model.input_blocks.1.1.proj_in.weight"
    generator = torch.Generator().manual_seed(1)
    tensors[key] = tensors[key] + torch.randn(tensors[key].shape, generator=generator)
    save_file(tensors, str(tmp_path / "tuned.safetensors"), read_metadata(tmp_path / "model.safetensors"))
    original, tuned = (open_model(tmp_path / f"{name}.safetensors") for name in ("model", "tuned"))
    (whole,), (cut,) = (extract(original, tuned, Extraction(2, clamp=clamp)).layers for clamp in (1.0, 0.8))
    values = torch.cat([whole.up.flatten(), whole.down.flatten()])
    most = torch.quantile(values, 0.8)
    assert values.max() > most
    assert values.min() < -most
    for before, after in ((whole.up, cut.up), (whole.down, cut.down)):
        assert torch.equal(after, before.clamp(-most, most))


def test_models_of_two_kinds_have_no_difference(tmp_path: Path) -> None:
    for family in (Family.SD1, Family.SD2):
        save_single_file(build(family), tmp_path / f"{family.value}.safetensors")
    with pytest.raises(UserError, match="two models of one kind"):
        extract(open_model(tmp_path / "sd1.safetensors"), open_model(tmp_path / "sd2.safetensors"), Extraction(2))
