"""The memory path: what each switch does to a model and to a run, on a machine without a GPU."""

from __future__ import annotations

import logging
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from library.models.family import Family, StableDiffusion
from library.models.float8 import STORED
from library.models.load import load_model
from library.models.save import save_single_file
from library.models.text import TextConditioner
from library.sampling.generate import decode, to_pictures
from library.training.runtime.memory import MemorySpec, place, save_memory
from library.training.setup.caching import VaeEncoder
from miniworld.tiny import build
from networks import lora

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tiny() -> dict[Family, StableDiffusion]:
    return {family: build(family) for family in (Family.SD1, Family.SDXL)}


# --- a VAE that overflows in float16


def overflowing(model: StableDiffusion) -> StableDiffusion:
    """A model in float16 whose VAE overflows on bright pictures, and on strong latents, but not on faint ones."""
    model = deepcopy(model)
    with torch.no_grad():
        model.vae.encoder.conv_in.weight.mul_(3e5)
        model.vae.decoder.conv_in.weight.mul_(3e5)
    model.vae.half()
    return model


def test_only_the_pictures_that_overflow_are_encoded_again_in_float32_and_it_is_logged_once(tiny, caplog) -> None:
    model = overflowing(tiny[Family.SD1])
    exact = deepcopy(model)
    exact.vae.float()
    torch.manual_seed(0)
    pictures = torch.rand(3, 3, 64, 64) * 2 - 1
    pictures[1] *= 1e-3
    assert not model.vae.encode(pictures.half()).latent_dist.mean[[0, 2]].isfinite().any()  # type: ignore[union-attr]
    caplog.set_level(logging.INFO)
    encoder = VaeEncoder(model, CPU)
    for _ in range(2):
        mean, std = encoder.encode_posterior(pictures)
        for found, wanted in zip((mean, std), VaeEncoder(exact, CPU).encode_posterior(pictures), strict=True):
            assert torch.equal(found[[0, 2]], wanted[[0, 2]])  # the same float32 computation
            assert not torch.equal(found[1], wanted[1])
            assert torch.allclose(found[1], wanted[1], atol=0.05)
    (message,) = (record.getMessage() for record in caplog.records if record.name.startswith("library."))
    assert "float32" in message
    assert model.vae.dtype == torch.float16


def test_a_vae_that_overflows_while_a_picture_is_drawn_draws_it_in_float32(tiny) -> None:
    model = overflowing(tiny[Family.SD1])
    torch.manual_seed(0)
    latents = torch.randn(2, 4, 8, 8)
    pictures = decode(model.vae, latents, torch.float16, batch_size=1)
    exact = deepcopy(model.vae).float()
    wanted = to_pictures(exact.decode(latents / exact.config["scaling_factor"]).sample.detach())  # type: ignore[union-attr]
    assert max((abs(a - b)) for p, q in zip(pictures, wanted, strict=True) for a, b in differences(p, q)) <= 1
    assert model.vae.dtype == torch.float16


def differences(first, second) -> list[tuple[int, int]]:
    return list(zip(first.tobytes(), second.tobytes(), strict=True))


# --- switches on a model


def held(model: StableDiffusion) -> dict[str, int]:
    return {name: sum(p.nbytes for p in part.parameters()) for name, part in model.modules.items()}


@pytest.mark.parametrize("family", [Family.SD1, Family.SDXL])
def test_fp8_base_shrinks_unet_and_text_encoders_and_fp8_base_unet_the_unet_alone(family: Family, tiny) -> None:
    before = held(tiny[family])
    for spec, shrunk in (
        (MemorySpec(fp8_base=True), {"unet", *family.text_encoder_names}),
        (MemorySpec(fp8_base_unet=True), {"unet"}),
    ):
        model = deepcopy(tiny[family])
        lines = save_memory(model, spec, CPU, train_text_encoder=False)
        assert "kept in 8-bit floats" in lines[0]
        after = held(model)
        assert {name for name in before if after[name] < before[name]} == shrunk
        assert after["unet"] < 0.3 * before["unet"]


def test_gradient_checkpointing_keeps_fewer_bytes_for_the_backward_pass_and_the_same_gradients(tiny) -> None:
    results = []
    for spec in (MemorySpec(), MemorySpec(gradient_checkpointing=True)):
        model = deepcopy(tiny[Family.SDXL])
        save_memory(model, spec, CPU, train_text_encoder=True)
        assert model.unet.is_gradient_checkpointing == spec.gradient_checkpointing
        assert all(encoder.is_gradient_checkpointing == spec.gradient_checkpointing for encoder in model.text_encoders)
        results.append(bytes_for_backward(model))
    (plain, gradient), (saved, same) = results
    assert saved < 0.5 * plain
    assert torch.allclose(gradient, same, atol=1e-7)


def bytes_for_backward(model: StableDiffusion) -> tuple[int, Tensor]:
    """Bytes that the U-Net's forward keeps, weights aside, and the gradient at its input."""
    model.unet.train()
    weights = {p.untyped_storage().data_ptr() for p in model.unet.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(0)
    latents = torch.randn(1, 4, 16, 16, requires_grad=True)
    text = torch.randn(1, 77, 72)
    added = {"text_embeds": torch.randn(1, 40), "time_ids": torch.full((1, 6), 64.0)}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model.unet(latents, torch.tensor([9]), text, added_cond_kwargs=added, return_dict=False)[0]
    total = sum(kept.values())
    output.square().mean().backward()
    assert latents.grad is not None
    return total, latents.grad


@pytest.mark.parametrize("family", [Family.SD1, Family.SDXL])
def test_text_encoders_that_are_trained_through_recompute_their_layers_too(family: Family, tiny) -> None:
    kept, gradients = [], []
    for spec in (MemorySpec(), MemorySpec(gradient_checkpointing=True)):
        model = deepcopy(tiny[family])
        save_memory(model, spec, CPU, train_text_encoder=True)
        encoders = model.text_encoders if len(model.text_encoders) > 1 else model.text_encoders[0]
        torch.manual_seed(0)
        network = lora.create_network(1.0, 2, 2, None, encoders, model.unet)
        network.apply_to(encoders, model.unet, True, False)
        for module in network.loras:
            torch.nn.init.normal_(module.lora_up.weight)
        for encoder in model.text_encoders:
            encoder.train()
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: sizes.append(tensor.nbytes) or tensor, lambda tensor: tensor
        ):
            text = TextConditioner(model).encode(["a red cat", "a dog"], grad=True)
        text.hidden.square().mean().backward()
        kept.append(sum(sizes))
        gradients.append([p.grad for p in network.parameters() if p.grad is not None])
    assert kept[1] < 0.5 * kept[0]
    assert len(gradients[0]) == len(gradients[1]) > 0
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


def test_parts_that_are_not_named_leave_the_device(tiny) -> None:
    """ "meta" stands for a GPU: nothing comes back from it, so each case has a copy."""
    device = torch.device("meta")
    for wanted in ({"unet"}, {"vae"}, {"text_encoders"}, {"unet", "text_encoders"}, set()):
        model = deepcopy(tiny[Family.SD1])
        place(model, device, **{part: part in wanted for part in ("unet", "vae", "text_encoders")})
        there = {name for name, part in model.modules.items() if next(part.parameters()).is_meta}
        assert there == {name.replace("encoders", "encoder") for name in wanted}


# --- switches in a run


def trained(tmp_path: Path, name: str) -> dict[str, Tensor]:
    return load_file(tmp_path / name / "t.safetensors")


def test_switches_in_a_run_say_what_they_did_and_change_what_they_should(train, tiny_model, tmp_path, capsys) -> None:
    file = tmp_path / "model.safetensors"
    save_single_file(load_model(tiny_model), file)
    loading = {"disable_mmap_load_safetensors": True, "lowram": True, "highvram": True, "sdxl": True, "v2": True}
    assert train(output_dir=tmp_path / "plain", max_train_steps=2) == 0  # on the folder
    capsys.readouterr()
    assert train(output_dir=tmp_path / "loading", max_train_steps=2, pretrained_model_name_or_path=file, **loading) == 0
    said = capsys.readouterr().err
    assert "model.safetensors was read without mapping" in said
    assert "lowram: it loads the model straight to the GPU, and there is none here" in said
    assert "highvram: it keeps what PyTorch has reserved" in said
    for name in ("v2", "sdxl"):
        assert f"`--{name}` on the command line does not match the weights, which are Stable Diffusion 1" in said
    assert train(output_dir=tmp_path / "eight", max_train_steps=2, fp8_base=True, gradient_checkpointing=True) == 0
    assert "kept in 8-bit floats" in capsys.readouterr().err

    plain, loaded, eight = (trained(tmp_path, name) for name in ("plain", "loading", "eight"))
    assert all(torch.equal(plain[name], loaded[name]) for name in plain)
    ups = [name for name in plain if "lora_up" in name]
    assert [name for name in ups if not plain[name].any()] == [name for name in ups if not eight[name].any()]
    agreement = torch.cosine_similarity(*(torch.cat([t[n].flatten() for n in ups]) for t in (plain, eight)), dim=0)
    assert 0.7 < agreement < 0.9999  # Adam's first steps are signs: small gradients that round over count fully


def test_compiling_says_that_it_has_no_effect(train, tmp_path, capsys) -> None:
    assert train(max_train_steps=1, torch_compile=True, dynamo_backend="eager") == 0
    said = capsys.readouterr().err
    assert (
        "`--torch_compile` on the command line has no effect: what compiling would save has not been measured" in said
    )
    assert "`--dynamo_backend` on the command line has no effect" in said


def test_stored_weights_are_of_the_eight_bit_type(tiny) -> None:
    model = deepcopy(tiny[Family.SD1])
    save_memory(model, MemorySpec(fp8_base_unet=True), CPU, train_text_encoder=False)
    stored = [p for p in model.unet.parameters() if p.dtype == STORED]
    assert sum(p.numel() for p in stored) > 0.9 * sum(p.numel() for p in model.unet.parameters())
