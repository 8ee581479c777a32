"""Our Inception is torch-fidelity's: the same features of the same random weights, recorded from its module."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from library.errors import UserError
from library.files import write_tensors
from library.metrics.networks.inception import LAYERS, Inception, load_inception
from library.metrics.preprocess import legacy_inception


def random_inception() -> dict[str, torch.Tensor]:
    """566 tensors of a seed, scaled so that features neither vanish nor explode."""
    with torch.device("meta"):
        places = Inception().state_dict()
    rng, tensors = np.random.default_rng(20151205), {}
    for name, place in places.items():
        values = rng.standard_normal(tuple(place.shape), np.float32)
        if name.endswith("conv.weight"):
            values *= np.float32((2 / np.prod(place.shape[1:])) ** 0.5)
        elif name.endswith(("bn.weight", "running_var")):
            values = 1 + np.float32(0.1) * np.abs(values)
        else:
            values = np.float32(0.1) * values
        tensors[name] = torch.from_numpy(np.asarray(values, np.float32)).to(place.dtype)
    return tensors


def pictures() -> list[Image.Image]:
    """8 pictures of several sizes: smooth colours with some noise."""
    made = []
    for number, (width, height) in enumerate(
        [(299, 299), (64, 64), (128, 96), (301, 200), (20, 300), (512, 512), (33, 17), (299, 150)]
    ):
        rng = np.random.default_rng(number)
        x, y = np.meshgrid(np.linspace(0, 3, width), np.linspace(0, 3, height))
        waves = [np.sin(a * x + b * y + c) for a, b, c in rng.uniform(0, 3, (3, 3))]
        made.append(
            Image.fromarray(
                (128 + 90 * np.stack(waves, -1) + rng.integers(-20, 20, (height, width, 3))).astype(np.uint8)
            )
        )
    return made


def told(features: np.ndarray) -> tuple[float, float]:
    """Features (dimensions,) as their length and their product with a direction of a seed."""
    values = features.astype(np.float64)
    return float(np.linalg.norm(values)), float(values @ np.random.default_rng(7).standard_normal(len(values)))


# What FeatureExtractorInceptionV3 of torch-fidelity 0.4.0 makes of picture 3 (301 x 200) with these weights, its own
# resizing included: `told` of its features at 64, 192, 768 and 2048. Recorded with torch 2.13.0 on a
# CPU, where ours differed by 3e-7 of the largest feature at most over all 8 pictures.
RECORDED = {
    64: (5.64651209, -12.90951977),
    192: (8.75899757, -19.3053792),
    768: (19.22650336, -13.46661665),
    2048: (42.38156166, -2.96590081),
}


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Inception:
    file = tmp_path_factory.mktemp("weights") / "inception.pth"
    write_tensors(file, random_inception())
    return load_inception(file)


@torch.no_grad()
def test_features_are_those_of_torch_fidelity_at_all_four_sizes(inception: Inception):
    picture = legacy_inception(pictures()[3])[None]
    for layer in LAYERS:
        length, product = told(inception(picture, layer)[0].numpy())
        assert length == pytest.approx(RECORDED[layer][0], rel=1e-5)
        assert product == pytest.approx(RECORDED[layer][1], abs=1e-5 * RECORDED[layer][0])


def test_a_file_of_another_network_is_refused_with_the_first_tensor_that_does_not_fit(tmp_path: Path):
    write_tensors(tmp_path / "other.pth", {"conv1.weight": torch.zeros(3)})
    with pytest.raises(UserError, match=r"other.pth' is not the Inception of FID: 473 tensors .*Conv2d_1a_3x3"):
        load_inception(tmp_path / "other.pth")
