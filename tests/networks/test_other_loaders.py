"""Every tensor of a LoRA file finds one weight of the right size, by the rules of ComfyUI and of A1111's web UI.

The rules are theirs, written down from their sources (ComfyUI comfy/lora.py and comfy/utils.py, stable-diffusion-webui
extensions-builtin/Lora/networks.py and network_lora.py); the models are of full size, without values.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from typing import Any

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

from library.adapters.names import to_file_names
from library.models.family import Family
from library.models.original_names import inverted, rename, unet_names
from miniworld.tiny import build
from networks import ac_lora, lora, t_lora
from tests.golden_table.networks import full_size, network_on

Shapes = dict[str, tuple[int, ...]]
CLIP_LAYERS = ("mlp.fc1", "mlp.fc2", *(f"self_attn.{part}_proj" for part in ("k", "q", "v", "out")))
MODELS = ("sd1", "sd2_diffusers", "sd2_single_file", "sdxl")


@cache
def file_of(name: str, conv: bool) -> Shapes:
    """{tensor: shape} of the file that a LoRA, or a LoCon, on this model is saved as."""
    model = full_size(name)
    network = network_on(model, 4, 1, **({"conv_dim": "2"} if conv else {}))
    tensors = {f"{m.lora_name}.{part}": tensor for m in network.loras for part, tensor in m.state_dict().items()}
    return {key: tuple(tensor.shape) for key, tensor in to_file_names(tensors, model).items()}


@cache
def original_unet(name: str) -> Shapes:
    """{name in the original checkpoint: shape}; that these are its names is checked with diffusers' own converter."""
    unet = full_size(name).unet
    names = inverted(unet_names(unet.config))
    tensors = {rename(key, names): tensor for key, tensor in unet.state_dict().items()}
    back = convert_ldm_unet_checkpoint({f"model.diffusion_model.{k}": t for k, t in tensors.items()}, dict(unet.config))
    assert {k: t.shape for k, t in back.items()} == {k: t.shape for k, t in unet.state_dict().items()}
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def clip_layers(name: str, number: int) -> Shapes:
    """{path of a linear layer of a text encoder: shape}, under `text_model.encoder.layers` as in CLIP's own layout."""
    found = {}
    for path, module in full_size(name).text_encoders[number].named_modules():
        if isinstance(module, torch.nn.Linear) and "layers." in path:
            found[path[path.index("layers.") + len("layers.") :]] = tuple(module.weight.shape)
    return found


# --- ComfyUI

RESNET = {
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2", "out_layers.3": "conv2", "skip_connection": "conv_shortcut",
}  # fmt: skip
ENDS = {
    "input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out",
    "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2",
}  # fmt: skip


def comfy_diffusers_names(weights: Shapes, levels: int, layers: int = 2) -> dict[str, str]:
    """{diffusers' path of a layer: its original path}, where the model has the original."""
    places: dict[str, str] = dict(ENDS)
    resnets: dict[str, str] = {"middle_block.0": "mid_block.resnets.0", "middle_block.2": "mid_block.resnets.1"}
    attentions = {"middle_block.1": "mid_block.attentions.0"}
    for level in range(levels):
        for i in range(layers):
            block = 1 + (layers + 1) * level + i
            resnets[f"input_blocks.{block}.0"] = f"down_blocks.{level}.resnets.{i}"
            attentions[f"input_blocks.{block}.1"] = f"down_blocks.{level}.attentions.{i}"
        places[f"input_blocks.{(layers + 1) * (level + 1)}.0.op"] = f"down_blocks.{level}.downsamplers.0.conv"
        for i in range(layers + 1):
            block = (layers + 1) * level + i
            resnets[f"output_blocks.{block}.0"] = f"up_blocks.{level}.resnets.{i}"
            attentions[f"output_blocks.{block}.1"] = f"up_blocks.{level}.attentions.{i}"
        for behind in (1, 2):  # behind the attention where there is one
            places[f"output_blocks.{block}.{behind}.conv"] = f"up_blocks.{level}.upsamplers.0.conv"
    found = {}
    for path in [key.removesuffix(".weight") for key in weights if key.endswith(".weight")]:
        parent = ".".join(path.split(".")[:3]) if not path.startswith("middle") else ".".join(path.split(".")[:2])
        inner = path[len(parent) + 1 :]
        if path in places:
            found[places[path]] = path
        elif parent in resnets and inner in RESNET:
            found[f"{resnets[parent]}.{RESNET[inner]}"] = path
        elif parent in attentions:
            found[f"{attentions[parent]}.{inner}"] = path
    return found


def comfy_key_map(name: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """{module in the file: (the model's weight, its shape)}."""
    unet = original_unet(name)
    found = {}
    for key, shape in unet.items():
        if key.endswith(".weight"):
            found[f"lora_unet_{key.removesuffix('.weight').replace('.', '_')}"] = (key, shape)
    for own, original in comfy_diffusers_names(unet, levels=3 if name == "sdxl" else 4).items():
        found[f"lora_unet_{own.replace('.', '_')}"] = (f"{original}.weight", unet[f"{original}.weight"])
    prefixes = ["lora_te1", "lora_te2"] if name == "sdxl" else ["lora_te"]
    for number, prefix in enumerate(prefixes):
        for path, shape in clip_layers(name, number).items():
            block, _, layer = path.partition(".")
            if int(block) < 32 and layer in CLIP_LAYERS:
                key = f"{prefix}_text_model_encoder_layers_{block}_{layer.replace('.', '_')}"
                found[key] = (f"clip {number} {path}", shape)
    return found


# --- A1111's web UI

A1111_RULES = [  # (pattern of a module in the file, the web UI's module), the first that matches
    (r"lora_unet_conv_in", lambda m: "diffusion_model_input_blocks_0_0"),
    (r"lora_unet_conv_out", lambda m: "diffusion_model_out_2"),
    (r"lora_unet_time_embedding_linear_(\d+)", lambda m: f"diffusion_model_time_embed_{2 * int(m[1]) - 2}"),
    (r"lora_unet_down_blocks_(\d+)_(attentions|resnets)_(\d+)_(.+)",
     lambda m: f"diffusion_model_input_blocks_{1 + 3 * int(m[1]) + int(m[3])}_{inside(m[2], m[4])}"),
    (r"lora_unet_mid_block_(attentions|resnets)_(\d+)_(.+)",
     lambda m: f"diffusion_model_middle_block_{middle(m)}"),
    (r"lora_unet_up_blocks_(\d+)_(attentions|resnets)_(\d+)_(.+)",
     lambda m: f"diffusion_model_output_blocks_{3 * int(m[1]) + int(m[3])}_{inside(m[2], m[4])}"),
    (r"lora_unet_down_blocks_(\d+)_downsamplers_0_conv",
     lambda m: f"diffusion_model_input_blocks_{3 + 3 * int(m[1])}_0_op"),
    (r"lora_unet_up_blocks_(\d+)_upsamplers_0_conv",
     lambda m: f"diffusion_model_output_blocks_{2 + 3 * int(m[1])}_{2 if int(m[1]) else 1}_conv"),
    (r"lora_unet_(.+)", lambda m: f"diffusion_model_{m[1]}"),
    (r"lora_te1_text_model_(.+)", lambda m: f"0_transformer_text_model_{m[1]}"),
    (r"lora_te2_text_model_encoder_layers_(\d+)_(.+)",
     lambda m: f"1_model_transformer_resblocks_{m[1]}_{open_clip(m[2])}"),
]  # fmt: skip
A1111_SD1 = (r"lora_te_text_model_encoder_layers_(.+)", lambda m: f"transformer_text_model_encoder_layers_{m[1]}")
A1111_SD2 = (
    r"lora_te_text_model_encoder_layers_(\d+)_(.+)",
    lambda m: f"model_transformer_resblocks_{m[1]}_{open_clip(m[2])}",
)


def inside(kind: str, rest: str) -> str:
    renamed = {own.replace(".", "_"): original.replace(".", "_") for original, own in RESNET.items()}
    return f"1_{rest}" if kind == "attentions" else f"0_{renamed.get(rest, rest)}"


def middle(m: re.Match) -> str:
    return inside(m[1], m[3]) if m[1] == "attentions" else f"{2 * int(m[2])}_{inside(m[1], m[3])[2:]}"


def open_clip(layer: str) -> str:
    return layer.replace("mlp_fc1", "mlp_c_fc").replace("mlp_fc2", "mlp_c_proj").replace("self_attn", "attn")


def a1111_modules(name: str) -> dict[str, tuple[int, ...]]:
    """{module of the web UI's model: shape of its weight}; an attention of open_clip holds q, k and v in one."""
    found = {}
    for key, shape in original_unet(name).items():
        if key.endswith(".weight"):
            found[f"diffusion_model_{key.removesuffix('.weight').replace('.', '_')}"] = shape
    hugging_face = {"sd1": "", "sdxl": "0_"}
    if name in hugging_face:
        for path, shape in clip_layers(name, 0).items():
            found[f"{hugging_face[name]}transformer_text_model_encoder_layers_{path.replace('.', '_')}"] = shape
    if name != "sd1":
        prefix = "1_model" if name == "sdxl" else "model"
        for path, shape in clip_layers(name, 1 if name == "sdxl" else 0).items():
            block, _, layer = path.partition(".")
            layer = open_clip(layer.replace(".", "_"))
            layer = re.sub(r"_[qkv]_proj$", "", layer)
            found[f"{prefix}_transformer_resblocks_{block}_{layer}"] = shape
    return found


def a1111_place(module: str, name: str, modules: dict[str, tuple[int, ...]]) -> str | None:
    """The web UI's module for a module of a file, with the part of it where it holds several."""
    rules = [A1111_SD1 if name == "sd1" else A1111_SD2, *A1111_RULES]
    for pattern, to in rules:
        if match := re.match(pattern, module):
            place = to(match)
            if place in modules:
                return place
            part = re.match(r"(.*)(_[qkv]_proj)$", place)
            return place if part and part[1] in modules else None
    return None


# --- what must hold


def fits(down: tuple[int, ...], up: tuple[int, ...], weight: tuple[int, ...]) -> bool:
    """Whether B A, both flattened to matrices, can be given the weight's shape; both programs do just that."""
    rows, columns = up[0], torch.Size(down[1:]).numel()
    return up[1] == down[0] and rows == weight[0] and rows * columns == torch.Size(weight).numel()


@pytest.mark.parametrize("conv", [False, True], ids=["lora", "locon"])
@pytest.mark.parametrize("name", MODELS)
def test_comfyui_finds_one_weight_for_every_tensor(name, conv):
    file, key_map = file_of(name, conv), comfy_key_map(name)
    modules = Counter(key.partition(".")[0] for key in file)
    read = {f"{module}.{part}" for module in key_map for part in ("alpha", "lora_up.weight", "lora_down.weight")}
    assert not set(file) - read
    assert set(modules.values()) == {3}
    assert len({key_map[module][0] for module in modules}) == len(modules)
    for module in modules:
        assert fits(file[f"{module}.lora_down.weight"], file[f"{module}.lora_up.weight"], key_map[module][1]), module
        assert file[f"{module}.alpha"] == ()  # it is read with .item()


@pytest.mark.parametrize("conv", [False, True], ids=["lora", "locon"])
@pytest.mark.parametrize("name", MODELS)
def test_the_web_ui_finds_one_module_for_every_tensor(name, conv):
    file, known = file_of(name, conv), a1111_modules(name)
    places = {module: a1111_place(module, name, known) for module in {key.partition(".")[0] for key in file}}
    assert not [module for module, place in places.items() if place is None]
    assert len(set(places.values())) == len(places)
    for module, place in places.items():
        weight = known.get(str(place)) or known[re.sub(r"_[qkv]_proj$", "", str(place))]
        assert fits(file[f"{module}.lora_down.weight"], file[f"{module}.lora_up.weight"], weight), module


@pytest.mark.parametrize("name", MODELS)
def test_a_file_with_the_names_in_memory_would_not_be_found(name):
    """What the two tests above can see: without `to_file_names`, layers are left over in both programs."""
    model: Any = full_size(name)
    own = {module.lora_name for module in network_on(model, 4, 1).loras}
    known = a1111_modules(name)
    assert own - set(comfy_key_map(name))
    assert [module for module in own if a1111_place(module, name, known) is None]


@pytest.mark.parametrize(("module", "arguments"), [(ac_lora, {"ac_mode": "product"}), (t_lora, {"t_start": "random"})])
def test_files_of_modules_that_build_on_lora_have_its_names(module, arguments):
    """Only ranks differ, and they do not matter above. A LoRA of a rectified-flow model is one like any other."""
    model: Any = build(Family.SD1)
    plain, other = (
        maker.create_network(1.0, 4, 4, None, model.text_encoders[0], model.unet, **given)
        for maker, given in ((lora, {}), (module, arguments))
    )
    for network in (plain, other):
        network.apply_to(model.text_encoders[0], model.unet)
    tensors = other.tensors_for_file()[0] if module is ac_lora else other.file_tensors()
    names = to_file_names(plain.state_dict(), model).keys()
    assert to_file_names(tensors, model).keys() == names
