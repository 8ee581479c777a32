from __future__ import annotations

import json

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open

from library.models.load import load_model
from miniworld.export import MODEL, main

SD1_NAMES = (  # keys of Stable Diffusion 1.x files whose block numbers do not depend on the depth
    "model.diffusion_model.time_embed.0.weight",
    "model.diffusion_model.input_blocks.0.0.weight",
    "model.diffusion_model.input_blocks.1.0.in_layers.2.weight",
    "model.diffusion_model.input_blocks.1.0.emb_layers.1.weight",
    "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
    "model.diffusion_model.middle_block.1.proj_in.weight",
    "model.diffusion_model.out.2.weight",
    "first_stage_model.encoder.down.0.block.0.conv1.weight",
    "first_stage_model.decoder.mid.attn_1.q.weight",
    "first_stage_model.quant_conv.weight",
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
    "cond_stage_model.transformer.text_model.final_layer_norm.weight",
)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "mini.safetensors"
    main(["--output", str(path)])
    return path


def test_the_file_has_stable_diffusions_first_layout_in_fp16(file):
    with safe_open(file, "pt") as stored:
        names = set(stored.keys())
        assert set(SD1_NAMES) <= names
        assert len(names) > 600
        assert {str(stored.get_tensor(name).dtype) for name in SD1_NAMES} == {"torch.float16"}
        assert set(json.loads(stored.metadata()["diffusers_config"])) >= {"unet", "vae", "text_encoder", "scheduler"}
    assert file.stat().st_size < 20e6


def test_our_loader_reads_the_file_alone_and_finds_the_folders_weights(file):
    folder, single = load_model(MODEL), load_model(file)
    for name, module in folder.modules.items():
        other = single.modules[name].state_dict()
        assert module.state_dict().keys() == other.keys()
        assert all(torch.equal(value, other[key]) for key, value in module.state_dict().items()), name


def test_diffusers_reads_the_file_offline_and_draws_the_same_picture(file):
    from_folder = StableDiffusionPipeline.from_pretrained(MODEL, safety_checker=None)
    from_file = StableDiffusionPipeline.from_single_file(
        str(file), config=str(MODEL), local_files_only=True, safety_checker=None
    )
    drawn = []
    for pipeline in (from_folder, from_file):
        pipeline.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(0)
        images = pipeline(
            "a photo of a red circle on a blue background",
            num_inference_steps=2, height=128, width=128, generator=generator, output_type="np",
        ).images  # fmt: skip # pyright: ignore
        drawn.append(torch.from_numpy(images))
    assert torch.equal(*drawn)
