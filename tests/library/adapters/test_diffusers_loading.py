"""A file of ours in diffusers' own loader: no key is left over or missing, and the U-Net gives the same output."""

from __future__ import annotations

import logging
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file
from torch import Tensor, nn

from library.adapters.names import to_file_names
from library.files import save_network
from library.models.embedding_files import bundle_keys, embedding_of
from library.models.family import Family, StableDiffusion
from library.models.placeholders import ENCODER_NAMES
from miniworld.tiny import build
from networks import lora

pytest.importorskip("peft", reason="diffusers loads LoRA files through peft")


def network_on(model: StableDiffusion, **arguments: str) -> lora.LoRANetwork:
    """A LoRA as after training: B is not zero, and modules have different ranks and alphas where asked."""
    torch.manual_seed(0)
    text_encoder: Any = model.text_encoders if len(model.text_encoders) > 1 else model.text_encoders[0]
    network = lora.create_network(1.0, 4, 2, None, text_encoder, model.unet, **arguments)
    network.apply_to(text_encoder, model.unet, True, True)
    for module in network.loras:
        nn.init.normal_(module.lora_up.weight, std=0.05)
    network.eval()
    return network


def pipeline_of(model: StableDiffusion) -> Any:
    scheduler: Any = DDIMScheduler.from_config(model.scheduler_config)
    if model.family is Family.SDXL:
        return StableDiffusionXLPipeline(
            vae=model.vae, unet=model.unet, scheduler=scheduler,
            text_encoder=model.text_encoders[0], text_encoder_2=model.text_encoders[1],  # type: ignore[arg-type]
            tokenizer=model.tokenizers[0], tokenizer_2=model.tokenizers[1], add_watermarker=False,
        )  # fmt: skip
    return StableDiffusionPipeline(
        vae=model.vae, unet=model.unet, scheduler=scheduler,
        text_encoder=model.text_encoders[0], tokenizer=model.tokenizers[0],  # type: ignore[arg-type]
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,  # type: ignore[arg-type]
    )  # fmt: skip


@torch.no_grad()
def outputs(family: Family, unet: nn.Module, encoders: list[Any]) -> tuple[Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, 40, (2, 77), generator=generator)
    encoded = [encoder(ids, output_hidden_states=True) for encoder in encoders]
    hidden = [e.hidden_states[-1] for e in encoded]
    added = None
    if family is Family.SDXL:
        time_ids = torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2)
        added = {"text_embeds": torch.randn(2, 40, generator=generator), "time_ids": time_ids}
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    states = torch.randn(2, 77, sum(h.shape[-1] for h in hidden), generator=generator)
    sample = unet(latents, torch.tensor([3, 700]), encoder_hidden_states=states, added_cond_kwargs=added).sample
    return sample, hidden


@pytest.mark.parametrize(
    ("family", "arguments"),
    [(Family.SD1, {"conv_dim": "2", "conv_alpha": "1"}), (Family.SD2, {}), (Family.SDXL, {"conv_dim": "2"})],
    ids=["sd1-locon", "sd2-lora", "sdxl-locon"],
)
def test_diffusers_loads_all_of_the_file_and_agrees(family, arguments, tmp_path: Path, caplog):
    base = build(family)
    model = deepcopy(base)
    network = network_on(model, **arguments)
    path = tmp_path / "net.safetensors"
    save_network(network, path, None, {"ss_a": "b"}, lambda tensors: to_file_names(tensors, model))
    expected, expected_hidden = outputs(family, model.unet, model.text_encoders)
    without, _ = outputs(family, base.unet, base.text_encoders)
    assert (expected - without).abs().max() > 1e-2

    pipeline = pipeline_of(base)
    for name in ("diffusers", "peft"):
        logging.getLogger(name).propagate = True
    with caplog.at_level(logging.INFO):
        pipeline.load_lora_weights(str(path))
    messages = [record.getMessage() for record in caplog.records]
    assert not [text for text in messages if "unexpected" in text.lower() or "missing" in text.lower()]
    encoders = [pipeline.text_encoder] + ([pipeline.text_encoder_2] if family is Family.SDXL else [])
    layers = [name for part in (pipeline.unet, *encoders) for name, _ in part.named_modules()]
    adapted = sum(name.endswith("lora_A.default_0") for name in layers)
    assert adapted == len(load_file(path)) / 3 == len(network.loras)

    found, found_hidden = outputs(family, pipeline.unet, encoders)
    assert (found - expected).abs().max() <= 1e-5
    for a, b in zip(found_hidden, expected_hidden, strict=True):
        assert (a - b).abs().max() <= 1e-5


@pytest.mark.parametrize("family", [Family.SD1, Family.SDXL])
def test_a_file_with_embeddings_in_it_is_refused_by_diffusers_and_loads_without_their_keys(family, tmp_path: Path):
    """What docs/cross_init.md says to do with a bundled LoRA."""
    model = build(family)
    network = network_on(model)
    rows = [torch.ones(2, width) for width in (32, 40)[: len(model.text_encoders)]]
    bundle = bundle_keys(embedding_of(ENCODER_NAMES[family], rows, "zwx"), "zwx")
    path = tmp_path / "net.safetensors"
    save_network(network, path, None, {}, lambda tensors: to_file_names(tensors, model) | bundle)
    with pytest.raises(ValueError, match="Invalid LoRA checkpoint"):
        pipeline_of(build(family)).load_lora_weights(str(path))
    pipeline = pipeline_of(build(family))
    pipeline.load_lora_weights({k: v for k, v in load_file(path).items() if not k.startswith("bundle_emb.")})
    adapted = sum(name.endswith("lora_A.default_0") for name, _ in pipeline.unet.named_modules())
    assert adapted == sum(layer.lora_name.startswith("lora_unet") for layer in network.loras)
