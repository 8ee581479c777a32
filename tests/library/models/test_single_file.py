"""The original layout, both ways. The last word has diffusers' own converter, which was written by others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from library.models.family import Family, StableDiffusion
from library.models.load import empty_modules
from library.models.original_names import rename, unet_names, vae_names
from library.models.save import original_tensors, part_configs
from library.models.single_file import from_original
from library.models.standard import standard_configs

# Names as the published files have them (stable-diffusion-v1-5, sd_xl_base_1.0) and what diffusers calls them.
PUBLISHED_UNET = {
    Family.SD1: {
        "input_blocks.0.0.weight": "conv_in.weight",
        "input_blocks.3.0.op.weight": "down_blocks.0.downsamplers.0.conv.weight",
        "input_blocks.4.0.skip_connection.bias": "down_blocks.1.resnets.0.conv_shortcut.bias",
        "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (
            "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"
        ),
        "middle_block.1.proj_in.weight": "mid_block.attentions.0.proj_in.weight",
        "middle_block.2.in_layers.2.weight": "mid_block.resnets.1.conv1.weight",
        "output_blocks.2.1.conv.weight": "up_blocks.0.upsamplers.0.conv.weight",
        "output_blocks.5.2.conv.bias": "up_blocks.1.upsamplers.0.conv.bias",
        "output_blocks.11.0.emb_layers.1.weight": "up_blocks.3.resnets.2.time_emb_proj.weight",
        "out.2.weight": "conv_out.weight",
    },
    Family.SDXL: {
        "label_emb.0.0.weight": "add_embedding.linear_1.weight",
        "input_blocks.4.1.transformer_blocks.1.ff.net.0.proj.weight": (
            "down_blocks.1.attentions.0.transformer_blocks.1.ff.net.0.proj.weight"
        ),
        "input_blocks.8.1.transformer_blocks.9.norm3.weight": (
            "down_blocks.2.attentions.1.transformer_blocks.9.norm3.weight"
        ),
        "output_blocks.2.2.conv.weight": "up_blocks.0.upsamplers.0.conv.weight",
        "output_blocks.8.0.out_layers.3.weight": "up_blocks.2.resnets.2.conv2.weight",
    },
}
# Millions of parameters of the published models' parts, and the number of tensors in their files.
PUBLISHED_SIZES = {
    Family.SD1: ({"unet": 859.520964, "vae": 83.653863, "text_encoder": 123.06048}, 1130),
    Family.SD2: ({"unet": 865.910724, "vae": 83.653863, "text_encoder": 340.38784}, 1226),
    Family.SDXL: (
        {"unet": 2567.463684, "vae": 83.653863, "text_encoder": 123.06048, "text_encoder_2": 694.65984},
        2514,
    ),
}


@pytest.mark.parametrize("family", PUBLISHED_UNET)
def test_the_unets_names_are_those_of_the_published_files(family: Family) -> None:
    names = unet_names(standard_configs(family)["unet"])
    for original, diffusers in PUBLISHED_UNET[family].items():
        assert rename(original, names) == diffusers


def test_the_vaes_decoder_is_numbered_from_the_other_end() -> None:
    names = vae_names(standard_configs(Family.SD1)["vae"])
    assert rename("decoder.up.3.upsample.conv.weight", names) == "decoder.up_blocks.0.upsamplers.0.conv.weight"
    assert rename("encoder.down.1.block.0.nin_shortcut.weight", names) == (
        "encoder.down_blocks.1.resnets.0.conv_shortcut.weight"
    )
    assert rename("quant_conv.weight", names) == "quant_conv.weight"


@pytest.mark.parametrize("family", Family)
def test_the_standard_configs_build_the_published_models(family: Family) -> None:
    sizes, tensor_count = PUBLISHED_SIZES[family]
    model = empty_modules(family, standard_configs(family))
    millions = {name: sum(p.numel() for p in module.parameters()) / 1e6 for name, module in model.items()}
    assert millions == pytest.approx(sizes, abs=1e-9)
    tensors = sum(len([name for name, _ in module.named_parameters()]) for module in model.values())
    if family is Family.SD2:  # 12 tensors of each of 23 layers instead of 16; one more layer, never run
        tensors += 12 - 23 * 4
    elif family is Family.SDXL:  # the second encoder's 32 layers in the same way, and the scale of its training
        tensors += 1 - 32 * 4
    assert tensors == tensor_count


@pytest.mark.parametrize("family", Family)
def test_a_model_survives_the_way_to_the_original_layout_and_back(
    family: Family, models: dict[Family, StableDiffusion]
) -> None:
    model = models[family]
    parts = from_original(original_tensors(model), family, part_configs(model))
    for name, module in model.modules.items():
        weights = dict(module.named_parameters())
        assert parts[name].keys() == weights.keys()
        assert all(torch.equal(parts[name][key], weights[key]) for key in weights)


@pytest.mark.parametrize("family", Family)
def test_diffusers_reads_the_same_weights_from_our_single_file(
    family: Family, models: dict[Family, StableDiffusion], files: dict[Family, Path], folders: dict[Family, Path]
) -> None:
    pipeline_class = StableDiffusionXLPipeline if family is Family.SDXL else StableDiffusionPipeline
    pipeline = pipeline_class.from_single_file(
        str(files[family]), config=str(folders[family]), local_files_only=True, torch_dtype=torch.float32
    )
    for name, module in models[family].modules.items():
        read = dict(getattr(pipeline, name).named_parameters())
        for key, tensor in module.named_parameters():
            assert torch.equal(read[key], tensor), f"{name}.{key}"


def test_the_openclip_projection_is_stored_transposed(models: dict[Family, StableDiffusion]) -> None:
    model = models[Family.SDXL]
    stored = original_tensors(model)["conditioner.embedders.1.model.text_projection"]
    projection = model.text_encoders[1].get_parameter("text_projection.weight")
    assert torch.equal(stored, projection.T)


def test_query_key_and_value_lie_fused_in_the_openclip_layout(models: dict[Family, StableDiffusion]) -> None:
    model = models[Family.SD2]
    fused = original_tensors(model)["cond_stage_model.model.transformer.resblocks.1.attn.in_proj_weight"]
    attention = model.text_encoders[0].get_submodule("encoder.layers.1.self_attn")
    for third, name in zip(fused.chunk(3), ("q_proj", "k_proj", "v_proj"), strict=True):
        assert torch.equal(third, attention.get_parameter(f"{name}.weight"))
