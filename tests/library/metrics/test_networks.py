"""Each network reads its published layout: against plain formulas, or against figures of the authors' own code."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import Dinov2Model, ViTModel

from library.errors import UserError
from library.files import read_tensors, write_nested, write_tensors
from library.metrics.features import FeatureStore
from library.metrics.networks.identity import ARCFACE, similarity_transform
from library.metrics.networks.image_reward import load_image_reward
from library.metrics.networks.lpips import load_lpips
from library.metrics.networks.style import load_style
from library.metrics.networks.transformer import load_clip, load_vision
from library.metrics.preprocess import clip_preprocessing, imagenet_preprocessing
from tests.library.metrics import tiny_networks
from tests.library.metrics.test_inception import pictures


def openai_vit(tensors: dict[str, Tensor], pixels: Tensor, heads: int) -> Tensor:
    """OpenAI's VisionTransformer without its projection, written from the CLIP paper's code."""

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    x = F.conv2d(pixels, tensors["conv1.weight"], stride=16).flatten(2).transpose(1, 2)
    x = torch.cat([tensors["class_embedding"].expand(len(x), 1, -1), x], 1) + tensors["positional_embedding"]
    x = norm("ln_pre", x)
    for block in ("transformer.resblocks.0.", "transformer.resblocks.1."):
        y = norm(f"{block}ln_1", x)
        q, k, v = F.linear(y, tensors[f"{block}attn.in_proj_weight"], tensors[f"{block}attn.in_proj_bias"]).chunk(3, -1)
        q, k, v = (z.unflatten(-1, (heads, -1)).transpose(1, 2) for z in (q, k, v))
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + F.linear(attended, tensors[f"{block}attn.out_proj.weight"], tensors[f"{block}attn.out_proj.bias"])
        y = F.linear(norm(f"{block}ln_2", x), tensors[f"{block}mlp.c_fc.weight"], tensors[f"{block}mlp.c_fc.bias"])
        y = y * torch.sigmoid(1.702 * y)  # QuickGELU
        x = x + F.linear(y, tensors[f"{block}mlp.c_proj.weight"], tensors[f"{block}mlp.c_proj.bias"])
    return norm("ln_post", x[:, 0])


def test_csd_is_openais_transformer_times_its_style_head(tmp_path: Path):
    tensors = tiny_networks.random_tensors(tiny_networks.openai_vit_shapes(width=128))
    # As the published file: a training's whole state, with its arguments and NumPy's numbers.
    state: dict[str, Any] = {
        "epoch": np.int64(3),
        "loss": np.float64(0.5),
        "args": argparse.Namespace(lr=0.1),
        "optimizer": {"state": {}},
    }
    state["model_state_dict"] = {f"module.{name}": tensor for name, tensor in tensors.items()}
    write_nested(tmp_path / "csd.pth", state)
    network, images = load_style(tmp_path / "csd.pth"), pictures()[:3]
    pixels = torch.stack([clip_preprocessing(32).prepare(image) for image in images])
    body = {name.removeprefix("backbone."): tensor for name, tensor in tensors.items()}
    expected = openai_vit(body, pixels, heads=2) @ tensors["last_layer_style"]
    assert torch.allclose(network.see(images), expected, rtol=1e-4, atol=1e-5)


def test_another_file_is_not_csd(tmp_path: Path):
    write_nested(tmp_path / "csd.pth", {"backbone.conv1.weight": torch.zeros(3)})
    with pytest.raises(UserError, match="is not CSD: it has no 'last_layer_style'"):
        load_style(tmp_path / "csd.pth")


def test_image_reward_scores_as_its_authors_code(tmp_path: Path):
    """Recorded from image-reward 1.5 (its BLIP's med.py and vit.py, timm's patches written out) with these weights."""
    network = load_image_reward(*tiny_networks.write_image_reward(tmp_path))
    prompts = ["a red boat on the beach", "a green tree", "boat , tree " * 30]  # the last is cut to 35 tokens
    recorded = [-0.302088290, -0.271545380, -0.268503487]
    assert network.score(pictures()[:3], prompts) == pytest.approx(recorded, abs=1e-6)


def test_clip_reads_pictures_and_texts_as_transformers_does(tmp_path: Path):
    clip = load_clip(tiny_networks.write_clip(tmp_path / "clip"), "cpu")
    words = clip.tokenizer(["a red boat"], return_tensors="pt")
    with torch.no_grad():
        alone = clip.model.get_text_features(**words).pooler_output
    assert clip.read(["a red boat"]) == pytest.approx(alone.double().numpy(), abs=1e-6)  # padding changes nothing
    seen = clip.network.see(pictures()[:2])
    assert seen.shape == (2, 16)
    assert clip.network.preprocessing.startswith("clip 32")


def test_a_prompt_of_200_words_is_cut_and_counted(tmp_path: Path):
    clip = load_clip(tiny_networks.write_clip(tmp_path / "clip"), "cpu")
    prompts = ["boat " * 200, "a red boat"]
    assert clip.truncated(prompts) == 1
    assert clip.read(prompts).shape == (2, 16)


@pytest.mark.parametrize("kind", ["dino", "dinov2"])
def test_dino_is_the_class_token_behind_the_last_norm(tmp_path: Path, kind: str):
    folder = tiny_networks.write_vision(tmp_path / kind, kind)
    network, images = load_vision(folder, "cpu", kind), pictures()[:2]
    pixels = torch.stack([imagenet_preprocessing().prepare(image) for image in images])
    with torch.no_grad():
        model = {"dino": ViTModel, "dinov2": Dinov2Model}[kind].from_pretrained(folder, local_files_only=True)
        expected = model(pixels).last_hidden_state[:, 0]
    assert torch.allclose(network.see(images), expected, atol=1e-6)


def test_a_folder_whose_weights_lack_tensors_is_refused(tmp_path: Path):
    folder = tiny_networks.write_vision(tmp_path / "dino", "dino")
    tensors, _ = read_tensors(folder / "model.safetensors")
    write_tensors(folder / "model.safetensors", {n: t for n, t in tensors.items() if "layernorm_before" not in n})
    with pytest.raises(UserError, match=r"lacks 4 tensors of a vit, the first .*layernorm_before"):
        load_vision(folder, "cpu", "dino")


def test_lpips_is_zero_for_equal_pictures_and_follows_its_formula(tmp_path: Path):
    network = load_lpips(*tiny_networks.write_alexnet(tmp_path))
    x, y = (torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert network.distance(x, x).item() == 0
    total = 0.0
    for head, mine, theirs in zip(network.heads, network.features(x), network.features(y), strict=True):
        assert mine.square().sum(1).max() <= 1 + 1e-5
        difference = (mine - theirs).double()[0]
        total += float((head.double()[0] * difference**2).sum() / (difference.shape[1] * difference.shape[2]))
    assert network.distance(x, y).item() == pytest.approx(total, rel=1e-5)
    assert [feature.shape[1:] for feature in network.features(x)] == [
        *((64, 11, 15), (192, 5, 7)),
        *((384, 2, 3), (256, 2, 3), (256, 2, 3)),
    ]


def test_landmarks_are_brought_to_their_places_by_a_turn_a_scale_and_a_shift():
    turn = 3 * np.exp(0.4j)
    moved = (ARCFACE @ (1, 1j)) * turn + (20 - 5j)
    matrix = similarity_transform(np.stack([moved.real, moved.imag], 1), ARCFACE)
    assert matrix @ [moved[2].real, moved[2].imag, 1] == pytest.approx(ARCFACE[2])
    assert np.hypot(matrix[0, 0], matrix[1, 0]) == pytest.approx(1 / 3)


def test_a_grey_picture_is_seen_as_rgb(tmp_path: Path):
    Image.new("L", (40, 30), 77).save(tmp_path / "a.png")
    clip = load_clip(tiny_networks.write_clip(tmp_path / "clip"), "cpu")
    assert FeatureStore().of(clip.network, [tmp_path / "a.png"]).shape == (1, 16)
