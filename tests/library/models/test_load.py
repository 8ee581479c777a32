"""Loading from disk: what is right loads the same from every form, what is wrong is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from library.errors import UserError
from library.models.family import Family, StableDiffusion
from library.models.load import load_model
from library.models.save import original_tensors, packed_configs, save_folder, save_single_file
from library.models.text import TextConditioner
from miniworld.tiny import build

CAPTIONS = ["a photo of a red cat on a bridge!", "sks person, smiling"]


@torch.no_grad()
def outputs(model: StableDiffusion) -> list[torch.Tensor]:
    """Everything a caption, a latent and a picture become."""
    text = TextConditioner(model).encode(CAPTIONS)
    generator = torch.Generator().manual_seed(5)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    added = None
    if text.pooled is not None:
        added = {"text_embeds": text.pooled, "time_ids": torch.full((2, 6), 64.0)}
    noise = model.unet(latents, torch.tensor([3, 700]), text.hidden, added_cond_kwargs=added, return_dict=False)[0]
    vae: Any = model.vae
    picture = vae.decode(latents).sample
    return [text.hidden, noise, picture, vae.encode(picture).latent_dist.mean]


@pytest.mark.parametrize("family", Family)
def test_folder_and_single_file_give_the_outputs_of_the_model_they_were_written_from(
    family: Family, models: dict[Family, StableDiffusion], folders: dict[Family, Path], files: dict[Family, Path]
) -> None:
    expected = outputs(models[family])
    for path in (folders[family], files[family]):
        loaded = load_model(path)
        assert loaded.family is family
        assert loaded.source == path
        for got, wanted in zip(outputs(loaded), expected, strict=True):
            assert torch.allclose(got, wanted, atol=1e-6)


@pytest.mark.parametrize("form", ["folder", "file"])
def test_every_weight_arrives_in_the_asked_type_frozen_and_in_evaluation_mode(
    form: str, folders: dict[Family, Path], files: dict[Family, Path]
) -> None:
    path = (folders if form == "folder" else files)[Family.SD1]
    model = load_model(path, dtype=torch.float16, vae_dtype=torch.float32)
    for name, module in model.modules.items():
        wanted = torch.float32 if name == "vae" else torch.float16
        assert {parameter.dtype for parameter in module.parameters()} == {wanted}
        assert not any(parameter.requires_grad or parameter.is_meta for parameter in module.parameters())
        assert not any(buffer.is_meta for buffer in module.buffers())
        assert not any(child.training for child in module.modules())


@pytest.mark.parametrize("family", [Family.SD2, Family.SDXL])
def test_velocity_prediction_is_seen_in_a_folder_and_in_a_single_file(family: Family, tmp_path: Path) -> None:
    model = build(family, prediction_type="v_prediction")
    save_folder(model, tmp_path / "folder")
    save_single_file(model, tmp_path / "file.safetensors")
    for path in (tmp_path / "folder", tmp_path / "file.safetensors"):
        loaded = load_model(path)
        assert loaded.prediction_type == "v_prediction"
        assert loaded.scheduler_config["prediction_type"] == "v_prediction"


def test_the_prediction_type_can_be_overridden(files: dict[Family, Path]) -> None:
    loaded = load_model(files[Family.SD2], prediction_type="v_prediction")
    assert (loaded.prediction_type, loaded.scheduler_config["prediction_type"]) == ("v_prediction", "v_prediction")


def test_an_override_that_contradicts_the_files_own_word_is_reported(files: dict[Family, Path]) -> None:
    loaded = load_model(files[Family.SD1], prediction_type="v_prediction")
    assert "says that it predicts the noise (epsilon), but it is trained to predict the velocity" in loaded.notes[0]
    assert load_model(files[Family.SD1], prediction_type="epsilon").notes == []


@pytest.mark.parametrize("family", Family)
def test_reading_without_mapping_gives_the_same_weights(family: Family, files: dict[Family, Path]) -> None:
    mapped, read = (load_model(files[family], mapped=mapped).modules for mapped in (True, False))
    for name, module in mapped.items():
        other = read[name].state_dict()
        assert all(torch.equal(other[key], tensor) for key, tensor in module.state_dict().items())


def test_marker_tensors_of_a_single_file_switch_velocity_and_the_schedule_that_ends_in_pure_noise(
    models: dict[Family, StableDiffusion], tmp_path: Path
) -> None:
    marks = {"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}
    path = write_file(models[Family.SDXL], tmp_path / "noob.safetensors", marks)
    loaded = load_model(path)
    assert loaded.prediction_type == "v_prediction"
    assert loaded.scheduler_config["rescale_betas_zero_snr"] is True
    assert loaded.scheduler_config["timestep_spacing"] == "trailing"


def test_an_sd2_file_that_does_not_say_what_it_predicts_counts_as_epsilon_and_says_so(
    models: dict[Family, StableDiffusion], tmp_path: Path
) -> None:
    path = tmp_path / "v2.safetensors"
    configs = packed_configs(models[Family.SD2])
    del configs["scheduler"]["prediction_type"]
    save_file(original_tensors(models[Family.SD2]), path, {"diffusers_config": json.dumps(configs)})
    loaded = load_model(path)
    assert loaded.prediction_type == "epsilon"
    assert "v_parameterization" in loaded.notes[0]


def test_a_training_checkpoint_loads_with_its_ema_copy_and_schedule_left_aside(
    models: dict[Family, StableDiffusion], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A .ckpt has no metadata: with the standard configs replaced by the tiny ones it stands for the real thing."""
    model = models[Family.SD1]
    configs = packed_configs(model)
    monkeypatch.setattr("library.models.load.standard_configs", lambda family, kind: configs)
    monkeypatch.setattr("library.models.load.check_width", lambda *_: None)
    tensors = original_tensors(model) | {
        "model_ema.decay": torch.tensor(0.9999),
        "alphas_cumprod": torch.ones(1000),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
    }
    torch.save({"state_dict": tensors, "global_step": 840000}, tmp_path / "model.ckpt")
    for got, wanted in zip(outputs(load_model(tmp_path / "model.ckpt")), outputs(model), strict=True):
        assert torch.allclose(got, wanted, atol=1e-6)


def test_the_early_text_encoder_names_are_read_too(models: dict[Family, StableDiffusion], tmp_path: Path) -> None:
    model = models[Family.SD1]
    short = {
        name.replace(".transformer.text_model.", ".transformer."): t for name, t in original_tensors(model).items()
    }
    metadata = {"diffusers_config": json.dumps(packed_configs(model))}
    save_file(short, tmp_path / "early.safetensors", metadata)
    assert torch.equal(outputs(load_model(tmp_path / "early.safetensors"))[0], outputs(model)[0])


def test_a_folder_written_by_an_older_transformers_loads_every_text_weight(
    folders: dict[Family, Path], models: dict[Family, StableDiffusion], tmp_path: Path
) -> None:
    folder = copy_of(folders[Family.SD1], tmp_path)
    weights = folder / "text_encoder" / "model.safetensors"
    tensors = {f"text_model.{name.removeprefix('text_model.')}": t.clone() for name, t in load_file(weights).items()}
    tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(tensors, weights, {"format": "pt"})
    assert torch.equal(outputs(load_model(folder))[0], outputs(models[Family.SD1])[0])


def test_a_folder_that_holds_only_fp16_files_loads(folders: dict[Family, Path], tmp_path: Path) -> None:
    folder = copy_of(folders[Family.SD1], tmp_path)
    for file in folder.rglob("*.safetensors"):
        file.rename(file.with_suffix(".fp16.safetensors"))
    assert load_model(folder).family is Family.SD1


# --- another VAE


def another_vae(tmp_path: Path, form: str) -> Path:
    other = build(Family.SD1, seed=9)
    if form == "folder":
        other.vae.save_pretrained(tmp_path / "vae")
        return tmp_path / "vae"
    if form == "model folder":
        save_folder(other, tmp_path / "other")
        return tmp_path / "other"
    path = tmp_path / "vae.safetensors"
    tensors = {n: t for n, t in original_tensors(other).items() if n.startswith("first_stage_model.")}
    if form == "diffusers file":
        tensors = dict(other.vae.state_dict())
    elif form == "vae file":
        tensors = {name.removeprefix("first_stage_model."): tensor for name, tensor in tensors.items()}
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("form", ["folder", "model folder", "vae file", "prefixed file", "diffusers file"])
def test_another_vae_takes_the_models_place(form: str, folders: dict[Family, Path], tmp_path: Path) -> None:
    expected = build(Family.SD1, seed=9).vae.state_dict()
    loaded = load_model(folders[Family.SD1], vae=another_vae(tmp_path, form)).vae.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())


def test_a_vae_that_is_none_is_refused(folders: dict[Family, Path], tmp_path: Path) -> None:
    save_file({"lora_unet_x.lora_up.weight": torch.ones(1)}, tmp_path / "vae.safetensors")
    with pytest.raises(UserError, match="holds no VAE"):
        load_model(folders[Family.SD1], vae=tmp_path / "vae.safetensors")
    with pytest.raises(UserError, match="There is no VAE at"):
        load_model(folders[Family.SD1], vae=tmp_path / "missing.safetensors")


# --- what is no model


def write_file(model: StableDiffusion, path: Path, more: dict[str, torch.Tensor]) -> Path:
    configs = json.dumps(packed_configs(model))
    save_file(original_tensors(model) | more, path, {"diffusers_config": configs})
    return path


def copy_of(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


LOOKS_LIKE: dict[str, tuple[dict[str, tuple[int, ...]], str]] = {
    "lora": ({"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": (4, 32)}, "looks like a LoRA"),
    "lycoris": ({"lora_unet_mid_block_attentions_0_proj_in.hada_w1_a": (4, 32)}, "looks like a LoRA"),
    "peft": ({"unet.down_blocks.0.attentions.0.proj_in.lora_A.weight": (4, 32)}, "looks like a LoRA"),
    "embedding": ({"emb_params": (2, 768)}, "textual inversion embedding"),
    "sdxl embedding": ({"clip_g": (2, 1280), "clip_l": (2, 768)}, "textual inversion embedding"),
    "vae": ({"encoder.down.0.block.0.conv1.weight": (8, 8, 3, 3)}, "looks like a VAE"),
    "unet": ({"down_blocks.0.resnets.0.conv1.weight": (8, 8, 3, 3)}, "the U-Net of a diffusers folder"),
    "text encoder": ({"text_model.final_layer_norm.weight": (8,)}, "a text encoder alone"),
    "original unet": ({"model.diffusion_model.out.2.weight": (4, 8, 3, 3)}, "no text encoder"),
    "refiner": ({"conditioner.embedders.0.model.ln_final.weight": (8,)}, "SDXL refiner"),
    "controlnet": ({"control_model.input_blocks.0.0.weight": (8, 4, 3, 3)}, "a ControlNet"),
    "flux": ({"model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale": (8,)}, "Flux"),
    "no vae": (
        {"model.diffusion_model.out.2.weight": (4, 8, 3, 3), "cond_stage_model.transformer.text_model.x": (1,)},
        "holds no VAE",
    ),
    "language model": ({"model.layers.0.mlp.up_proj.weight": (8, 8)}, "holds 1 tensors such as `model.layers.0"),
}


@pytest.mark.parametrize("kind", LOOKS_LIKE)
def test_a_file_that_is_something_else_is_called_by_its_name(kind: str, tmp_path: Path) -> None:
    shapes, message = LOOKS_LIKE[kind]
    path = tmp_path / "model.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, path)
    with pytest.raises(UserError, match=message) as error:
        load_model(path)
    assert "model.safetensors" in str(error.value)
    assert "Expected is a Stable Diffusion" in str(error.value)


def test_an_inpainting_model_is_refused(models: dict[Family, StableDiffusion], tmp_path: Path) -> None:
    nine = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(16, 9, 3, 3)}
    path = write_file(models[Family.SD1], tmp_path / "inpainting.safetensors", nine)
    with pytest.raises(UserError, match="an inpainting model: its U-Net reads 9 channels"):
        load_model(path)


def test_a_file_of_unusual_width_without_configs_is_refused(
    models: dict[Family, StableDiffusion], tmp_path: Path
) -> None:
    save_file(original_tensors(models[Family.SD1]), tmp_path / "narrow.safetensors")
    with pytest.raises(UserError, match="reads 32 numbers instead of 768"):
        load_model(tmp_path / "narrow.safetensors")


def test_a_file_that_lacks_some_weights_is_refused(models: dict[Family, StableDiffusion], tmp_path: Path) -> None:
    tensors = original_tensors(models[Family.SD1])
    del tensors["model.diffusion_model.middle_block.1.proj_in.weight"]
    save_file(tensors, tmp_path / "m.safetensors", {"diffusers_config": json.dumps(packed_configs(models[Family.SD1]))})
    with pytest.raises(UserError, match=r"1 tensors are missing, such as `mid_block.attentions.0.proj_in.weight`"):
        load_model(tmp_path / "m.safetensors")


def test_a_half_downloaded_file_is_refused_in_both_forms(
    files: dict[Family, Path], folders: dict[Family, Path], tmp_path: Path
) -> None:
    half = tmp_path / "half.safetensors"
    half.write_bytes(files[Family.SD1].read_bytes()[:100_000])
    with pytest.raises(UserError, match=r"half\.safetensors.*damaged"):
        load_model(half)
    folder = copy_of(folders[Family.SD1], tmp_path)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(UserError, match=r"diffusion_pytorch_model\.safetensors' is damaged"):
        load_model(folder)


def without(*parts: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        path = folder.joinpath(*parts)
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("model_index.json"), "no `model_index.json`. It looks like a part of one"),
        (without("tokenizer"), "lacks the folder tokenizer"),
        (without("unet", "config.json"), "config.json' cannot be read"),
        (without("text_encoder", "model.safetensors"), "holds no weights"),
        (lambda folder: (folder / "model_index.json").write_text("{", encoding="utf-8"), "is not JSON"),
        (
            lambda folder: (folder / "model_index.json").write_text(
                '{"_class_name": "FluxPipeline", "transformer": ["diffusers", "F"]}', encoding="utf-8"
            ),
            "is a FluxPipeline with a part `transformer`",
        ),
    ],
)
def test_an_incomplete_folder_is_refused(
    damage: Callable[[Path], None], message: str, folders: dict[Family, Path], tmp_path: Path
) -> None:
    folder = copy_of(folders[Family.SD1], tmp_path)
    damage(folder)
    with pytest.raises(UserError, match=message):
        load_model(folder)


def test_a_folder_whose_weights_lack_a_tensor_is_refused_and_not_filled_with_noise(
    folders: dict[Family, Path], tmp_path: Path
) -> None:
    folder = copy_of(folders[Family.SD1], tmp_path)
    weights = folder / "text_encoder" / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(weights).items() if "final_layer_norm" not in name}
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 2 tensors such as `.*final_layer_norm"):
        load_model(folder)


def test_a_path_that_does_not_exist_says_how_to_get_a_model_from_the_hub(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no model at .*Give the path of"):
        load_model(tmp_path / "missing.safetensors")
    with pytest.raises(UserError, match="hf download someone/some-model --local-dir"):
        load_model("someone/some-model")


def test_a_folder_of_files_names_them(tmp_path: Path, files: dict[Family, Path]) -> None:
    shutil.copy(files[Family.SD1], tmp_path / "anime.safetensors")
    with pytest.raises(UserError, match=r"give its path: anime\.safetensors"):
        load_model(tmp_path)
