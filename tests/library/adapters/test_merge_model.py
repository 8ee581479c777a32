"""Networks merged into whole models of every family and layout, against the definition in float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from library.adapters.layers import read_network, update_of
from library.adapters.merge_commands import merge_into_model
from library.adapters.merge_model import MergePrecision
from library.adapters.merge_networks import Weighted
from library.adapters.names import from_file_names, to_file_names
from library.errors import UserError
from library.files import read_metadata, save_network
from library.models.family import Family
from library.models.load import load_model
from library.models.save import save_folder, save_single_file
from library.models.single_file import VAE
from miniworld.tiny import build
from networks import lora


def encoders_of(model: Any) -> Any:
    return model.text_encoders if len(model.text_encoders) > 1 else model.text_encoders[0]


def make_network(model: Any, path: Path, rank: int = 3, **arguments: str) -> Any:
    """A LoRA file with random weights for every layer, k x k convolutions too."""
    network = lora.create_network(1.0, rank, 2.0, None, encoders_of(model), model.unet, conv_dim="2", **arguments)
    network.apply_to(encoders_of(model), model.unet, True, True)
    with torch.random.fork_rng():
        torch.manual_seed(len(path.name))
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    save_network(network, path, torch.float32, {}, lambda tensors: to_file_names(tensors, model))
    return network


@pytest.fixture(scope="module")
def sd1(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, int]:
    """A model; the folder of its file `model.safetensors` and its network `a.safetensors`; how many layers that has."""
    model, folder = build(Family.SD1), tmp_path_factory.mktemp("sd1")
    save_single_file(model, folder / "model.safetensors")
    network = make_network(model, folder / "a.safetensors")
    return model, folder, len(network.unet_loras) + len(network.text_encoder_loras)


def run(
    networks: list[Weighted], model: Path, target: Path, precision: MergePrecision | None = None, **options: Any
) -> str:
    return "\n".join(merge_into_model(networks, model, target, precision or MergePrecision(), **options))


def updates_by_module(path: Path, model: Any) -> dict[str, Tensor]:
    """{name of the model's module with underscores: update in float64}, by the definition."""
    layers = {f"{name}.x": layer for name, layer in read_network(path).layers.items()}
    found = {}
    for name, layer in from_file_names(layers, model).items():
        update = update_of(layer)
        found[name.removesuffix(".x")] = update.scale * (update.up.double() @ update.down.double())
    return found


@pytest.mark.parametrize(
    ("family", "layout"),
    [(Family.SD1, "file"), (Family.SD2, "file"), (Family.SDXL, "file"), (Family.SDXL, "folder")],
)
def test_every_layer_finds_its_weight_and_nothing_else_changes(family: Family, layout: str, tmp_path: Path) -> None:
    model = build(family)
    source = tmp_path / ("model.safetensors" if layout == "file" else "model")
    (save_single_file if layout == "file" else save_folder)(model, source)
    make_network(model, tmp_path / "a.safetensors")
    target = source.with_name("merged" + source.suffix)
    said = run([Weighted(read_network(tmp_path / "a.safetensors"), -0.7)], source, target)
    assert "note" not in said

    merged, updates, changed = load_model(target), updates_by_module(tmp_path / "a.safetensors", model), 0
    prefixes = ["lora_te_"] if len(model.text_encoders) == 1 else ["lora_te1_", "lora_te2_"]
    roots = [("lora_unet_", model.unet, merged.unet)]
    roots += list(zip(prefixes, model.text_encoders, merged.text_encoders, strict=True))
    for prefix, before, after in roots:
        now = after.state_dict()
        for key, weight in before.state_dict().items():
            name = prefix + key.removesuffix(".weight").replace(".", "_")
            update = updates.get(name) if key.endswith(".weight") else None
            if update is None:
                assert torch.equal(now[key], weight), key
                continue
            changed += 1
            wanted = weight.double() - 0.7 * update.reshape(weight.shape)
            assert (now[key] - wanted).norm() <= 1e-6 * wanted.norm(), key
    assert changed == len(updates)
    for key, weight in model.vae.state_dict().items():
        assert torch.equal(merged.vae.state_dict()[key], weight)


def test_a_half_precision_model_keeps_names_types_and_untouched_bytes(sd1: Any, tmp_path: Path) -> None:
    _, folder, layers = sd1
    full = load_file(folder / "model.safetensors")
    tensors = {key: tensor if key.startswith(VAE) else tensor.half() for key, tensor in full.items()}
    tensors["model_ema.decay"] = torch.tensor(0.9)
    tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    metadata = {**read_metadata(folder / "model.safetensors"), "modelspec.title": "Base", "mine": "stays"}
    save_file(tensors, str(tmp_path / "half.safetensors"), {**metadata, "modelspec.hash_sha256": "0x00"})
    network = Weighted(read_network(folder / "a.safetensors"), 1.0)
    run([network], tmp_path / "half.safetensors", tmp_path / "m.safetensors")
    merged = load_file(tmp_path / "m.safetensors")
    assert {k: (t.dtype, t.shape) for k, t in merged.items()} == {k: (t.dtype, t.shape) for k, t in tensors.items()}
    different = [key for key, tensor in tensors.items() if not torch.equal(merged[key], tensor)]
    assert len(different) == layers
    assert not any(key.startswith(VAE) for key in different)
    header = read_metadata(tmp_path / "m.safetensors")
    assert header["mine"] == "stays"
    assert header["modelspec.title"] == "m"
    assert header["modelspec.merged_from"] == "Base, a"
    assert "modelspec.hash_sha256" not in header


def test_another_precision_is_for_what_networks_change_and_not_for_the_vae(sd1: Any, tmp_path: Path) -> None:
    _, folder, _ = sd1
    precision = MergePrecision(save=torch.bfloat16)
    network = Weighted(read_network(folder / "a.safetensors"), 1.0)
    run([network], folder / "model.safetensors", tmp_path / "m.safetensors", precision, brief=True)
    types = {key.startswith(VAE): tensor.dtype for key, tensor in load_file(tmp_path / "m.safetensors").items()}
    assert types == {True: torch.float32, False: torch.bfloat16}
    assert read_metadata(tmp_path / "m.safetensors") == read_metadata(folder / "model.safetensors")


def test_names_of_diffusers_and_peft_find_their_place_too(tmp_path: Path) -> None:
    model = build(Family.SDXL)
    save_single_file(model, tmp_path / "model.safetensors")
    module = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    weight = model.unet.state_dict()[f"{module}.weight"]
    down, up = torch.randn(2, weight.shape[1]), torch.randn(weight.shape[0], 2)
    inner = "encoder.layers.0.mlp.fc1"
    out, inputs = model.text_encoders[0].state_dict()[f"{inner}.weight"].shape
    tensors = {
        f"unet.{module}.lora_A.weight": down,
        f"unet.{module}.lora_B.weight": up,
        f"text_encoder.text_model.{inner}.lora_A.weight": torch.ones(1, inputs),
        f"text_encoder.text_model.{inner}.lora_B.weight": torch.ones(out, 1),
    }
    save_file(tensors, str(tmp_path / "peft.safetensors"))
    network = Weighted(read_network(tmp_path / "peft.safetensors"), 1.0)
    assert "note" not in run([network], tmp_path / "model.safetensors", tmp_path / "m.safetensors")
    merged = load_model(tmp_path / "m.safetensors")
    assert torch.allclose(merged.unet.state_dict()[f"{module}.weight"], weight + up @ down, atol=1e-6)


def test_a_network_of_another_model_is_refused_before_anything_is_written(sd1: Any, tmp_path: Path) -> None:
    _, folder, _ = sd1
    names = {"lora_unet_input_blocks_4_1_proj_in": (4, 4), "lora_unet_down_blocks_0_attentions_0_proj_in": (999, 7)}
    for name, (out, inputs) in names.items():
        tensors = {f"{name}.lora_down.weight": torch.ones(2, inputs), f"{name}.lora_up.weight": torch.ones(out, 2)}
        save_file(tensors, str(tmp_path / "a.safetensors"))
        with pytest.raises(UserError, match=r"fits no layer|is for a weight of 999 x 7"):
            run(
                [Weighted(read_network(tmp_path / "a.safetensors"), 1.0)],
                folder / "model.safetensors",
                tmp_path / "m.safetensors",
            )
    assert not (tmp_path / "m.safetensors").exists()


def test_values_that_are_not_finite_leave_no_file(sd1: Any, tmp_path: Path) -> None:
    _, folder, _ = sd1
    network = Weighted(read_network(folder / "a.safetensors"), 1e9)
    with pytest.raises(UserError, match="not finite in float16"):
        run([network], folder / "model.safetensors", tmp_path / "m.safetensors", MergePrecision(save=torch.float16))
    assert not list(tmp_path.iterdir())


def test_an_old_format_is_read_and_written_as_safetensors(sd1: Any, tmp_path: Path) -> None:
    _, folder, layers = sd1
    tensors = load_file(folder / "model.safetensors")
    torch.save({"state_dict": tensors, "global_step": 3}, tmp_path / "model.ckpt")
    network = Weighted(read_network(folder / "a.safetensors"), 1.0)
    with pytest.raises(UserError, match=r"written as \.safetensors"):
        run([network], tmp_path / "model.ckpt", tmp_path / "m.ckpt")
    run([network], tmp_path / "model.ckpt", tmp_path / "m.safetensors")
    merged = load_file(tmp_path / "m.safetensors")
    assert merged.keys() == tensors.keys()
    assert sum(not torch.equal(merged[key], tensor) for key, tensor in tensors.items()) == layers


def test_a_folder_keeps_its_other_files(sd1: Any, tmp_path: Path) -> None:
    model, folder, _ = sd1
    save_folder(model, tmp_path / "model")
    network = Weighted(read_network(folder / "a.safetensors"), 1.0)
    with pytest.raises(UserError, match="inside the model's folder"):
        run([network], tmp_path / "model", tmp_path / "model" / "m")
    run([network], tmp_path / "model", tmp_path / "m")
    names = sorted(path.relative_to(tmp_path / "model") for path in (tmp_path / "model").rglob("*"))
    assert names == sorted(path.relative_to(tmp_path / "m") for path in (tmp_path / "m").rglob("*"))
    assert json.loads((tmp_path / "m" / "model_index.json").read_text(encoding="utf-8"))
    vae = Path("vae", "diffusion_pytorch_model.safetensors")
    assert (tmp_path / "m" / vae).read_bytes() == (tmp_path / "model" / vae).read_bytes()


@pytest.mark.parametrize("family", [Family.SD1, Family.SD2, Family.SDXL])
def test_a_folder_is_written_as_one_file_where_a_file_is_named(family: Family, tmp_path: Path) -> None:
    model = build(family)
    save_folder(model, tmp_path / "model")
    make_network(model, tmp_path / "a.safetensors")
    networks = [Weighted(read_network(tmp_path / "a.safetensors"), 0.5)]
    with pytest.raises(UserError, match=r"written as \.safetensors"):
        run(networks, tmp_path / "model", tmp_path / "m.ckpt")
    said = run(networks, tmp_path / "model", tmp_path / "m.safetensors")
    run(networks, tmp_path / "model", tmp_path / "as folder")
    assert "note" not in said
    assert (tmp_path / "m.safetensors").is_file()
    one, other = load_model(tmp_path / "m.safetensors"), load_model(tmp_path / "as folder")
    for name, module in one.modules.items():
        for key, tensor in module.state_dict().items():
            assert torch.equal(tensor, other.modules[name].state_dict()[key]), f"{name}.{key}"
    header = read_metadata(tmp_path / "m.safetensors")
    assert header["modelspec.merged_from"] == "model, a"
    assert header["modelspec.architecture"].startswith("stable-diffusion")


def test_a_folder_as_one_file_keeps_the_type_of_each_part_or_has_the_one_asked_for(sd1: Any, tmp_path: Path) -> None:
    _, folder, _ = sd1
    model = load_model(folder / "model.safetensors")
    model.unet.half()
    save_folder(model, tmp_path / "model")
    networks = [Weighted(read_network(folder / "a.safetensors"), 1.0)]

    def types(precision: MergePrecision) -> dict[str, torch.dtype]:
        run(networks, tmp_path / "model", tmp_path / "m.safetensors", precision, brief=True)
        tensors = load_file(tmp_path / "m.safetensors")
        return {key.partition(".")[0]: tensor.dtype for key, tensor in tensors.items()}

    kept = {"model": torch.float16, "first_stage_model": torch.float32, "cond_stage_model": torch.float32}
    assert types(MergePrecision()) == kept
    asked = dict.fromkeys(kept, torch.bfloat16) | {"first_stage_model": torch.float32}
    assert types(MergePrecision(save=torch.bfloat16)) == asked
    with pytest.raises(UserError, match="not finite in float16"):
        run([Weighted(networks[0].file, 1e9)], tmp_path / "model", tmp_path / "other.safetensors")
    assert not (tmp_path / "other.safetensors").exists()


def eight_bits(folder: Path, name: str, beside: dict[str, Tensor] | None = None) -> Path:
    tensors = load_file(folder / "model.safetensors")
    small = {
        k: t if k.startswith(VAE) or not t.is_floating_point() else t.to(torch.float8_e4m3fn)
        for k, t in tensors.items()
    }
    metadata = read_metadata(folder / "model.safetensors")
    save_file(small | (beside or {}), str(folder / name), metadata)
    return folder / name


def test_a_model_and_a_network_of_eight_bits_are_merged_and_what_is_lost_is_reported(sd1: Any, tmp_path: Path) -> None:
    _, folder, _ = sd1
    model = eight_bits(folder, "eight.safetensors")
    network = {key: tensor.to(torch.float8_e5m2) for key, tensor in load_file(folder / "a.safetensors").items()}
    save_file(network, str(tmp_path / "a.safetensors"))
    networks = [Weighted(read_network(tmp_path / "a.safetensors"), 1.0)]
    said = run(networks, model, tmp_path / "m.safetensors")
    assert "weights are written in eight bits, as the model's are" in said
    key = "model.diffusion_model.input_blocks.1.1.proj_in.weight"
    layer = networks[0].file.layers["lora_unet_down_blocks_0_attentions_0_proj_in"]
    before = load_file(model)[key]
    wanted = before.float() + update_of(layer).dense().reshape(before.shape)
    assert torch.equal(load_file(tmp_path / "m.safetensors")[key].float(), wanted.to(torch.float8_e4m3fn).float())
    said = run(networks, model, tmp_path / "h.safetensors", MergePrecision(save=torch.float16))
    assert "eight bits" not in said
    assert torch.equal(load_file(tmp_path / "h.safetensors")[key], wanted.half())


def test_a_model_whose_eight_bits_have_scales_beside_them_is_refused(sd1: Any, tmp_path: Path) -> None:
    _, folder, _ = sd1
    scale = {"model.diffusion_model.input_blocks.1.1.proj_in.scale_weight": torch.ones(())}
    model = eight_bits(folder, "scaled.safetensors", scale)
    with pytest.raises(UserError, match="with scales of their own"):
        run([Weighted(read_network(folder / "a.safetensors"), 1.0)], model, tmp_path / "m.safetensors")


def test_a_model_for_inpainting_is_merged_like_any_other(sd1: Any, tmp_path: Path) -> None:
    _, folder, count = sd1
    tensors, first = load_file(folder / "model.safetensors"), "model.diffusion_model.input_blocks.0.0.weight"
    tensors[first] = torch.cat([tensors[first], torch.zeros_like(tensors[first]), tensors[first][:, :1]], 1)
    save_file(tensors, str(tmp_path / "inpainting.safetensors"), read_metadata(folder / "model.safetensors"))
    networks = [Weighted(read_network(folder / "a.safetensors"), 1.0)]
    said = run(networks, tmp_path / "inpainting.safetensors", tmp_path / "m.safetensors")
    assert f": {count} layers of 1 networks merged into" in said
    assert torch.equal(load_file(tmp_path / "m.safetensors")[first], tensors[first])


def test_words_that_a_model_has_no_place_for_are_named_with_what_keeps_them(sd1: Any, tmp_path: Path) -> None:
    _, folder, _ = sd1
    words = {"bundle_emb.zwx.string_to_param.*": torch.ones(1, 4)}
    save_file(load_file(folder / "a.safetensors") | words, str(tmp_path / "a.safetensors"))
    networks = [Weighted(read_network(tmp_path / "a.safetensors"), 1.0)]
    said = run(networks, folder / "model.safetensors", tmp_path / "m.safetensors")
    assert f"no place for the vectors of `zwx` in `{tmp_path / 'a.safetensors'}`" in said
    assert f"python -m embeddings convert {tmp_path / 'a.safetensors'} FOLDER" in said
