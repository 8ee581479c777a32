"""How it is rendered: every style changes the picture in its own way and still shows the content."""

from __future__ import annotations

import numpy as np
import pytest

from miniworld.canvas import SIZE
from miniworld.edges import edge_strength, normal_field
from miniworld.facts import Facts
from miniworld.scenes import Scene, ScenePicture, paint
from miniworld.styles import HELD_OUT_STYLES, PRETRAINING_STYLES, STYLES

CAR = Scene(Facts("object", colour="red", object="car", place="in a meadow"))


def rendered(style: str, scene: Scene = CAR, seed: int = 3) -> ScenePicture:
    return paint(np.random.default_rng(seed), scene, style)


def coarse(image: np.ndarray) -> np.ndarray:
    """Means of 8 x 8 px: what surely survives an autoencoder with factor 8. (16, 16, 3)."""
    return image.reshape(16, 8, 16, 8, 3).mean((1, 3))


def test_at_least_eight_styles_are_held_out_of_pretraining() -> None:
    assert len(HELD_OUT_STYLES) >= 8
    assert not set(HELD_OUT_STYLES) & set(PRETRAINING_STYLES)
    assert sum(PRETRAINING_STYLES.values()) == pytest.approx(1)


@pytest.mark.parametrize("style", STYLES)
def test_a_style_is_the_same_for_a_seed_and_is_reported_in_the_facts(style: str) -> None:
    first, second = rendered(style), rendered(style)
    assert np.array_equal(first.image, second.image)
    assert first.facts.style == style


@pytest.mark.parametrize("style", HELD_OUT_STYLES)
def test_a_held_out_style_can_be_seen_in_colours_or_in_texture_of_its_own(style: str) -> None:
    def look(image: np.ndarray) -> np.ndarray:
        mean, spread = image.mean((0, 1)), image.std((0, 1))
        texture = np.abs(np.diff(image.astype(float), axis=1)).mean((0, 1)) * 6
        return np.concatenate([mean, spread, texture])

    own = look(rendered(style).image)
    for other in STYLES:
        if other != style:
            assert np.linalg.norm(own - look(rendered(other).image)) > 18, other


@pytest.mark.parametrize("style", STYLES)
def test_every_style_still_shows_what_is_drawn(style: str) -> None:
    empty = Scene(Facts("shape", colour="white", shape="circle", size="small", background="purple"))
    full = Scene(Facts("shape", colour="white", shape="star", size="big", background="purple"))
    change = np.abs(coarse(rendered(style, full).image) - coarse(rendered(style, empty).image)).max(-1)
    middle, corners = change[5:11, 5:11], change[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert middle.mean() > 1.2 * corners.mean()


def test_pixel_art_is_made_of_large_flat_blocks() -> None:
    neighbours_alike = [
        np.abs(np.diff(rendered(style).image.astype(int), axis=1)).max(-1) == 0 for style in ("pixel art", "photo")
    ]
    flat, smooth = (alike.mean() for alike in neighbours_alike)
    assert flat > 0.6
    assert flat > smooth + 0.1


def test_sketches_are_gray() -> None:
    image = rendered("sketch").image
    assert np.array_equal(image[..., 0], image[..., 1])
    assert np.array_equal(image[..., 0], image[..., 2])


def test_edges_are_strong_at_borders_and_absent_on_flat_ground() -> None:
    pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
    pixels[:, SIZE // 2 :] = 255
    strength = edge_strength(pixels)
    assert strength[:, SIZE // 2].min() > 1
    assert strength[:, : SIZE // 4].max() == 0


def test_the_normal_field_has_unit_spread_and_is_smooth() -> None:
    field = normal_field(np.random.default_rng(0), 32)
    assert field.shape == (SIZE, SIZE)
    assert field.std() == pytest.approx(1, abs=1e-3)
    assert np.abs(np.diff(field, axis=0)).max() < 0.5
