from __future__ import annotations

import cv2
import numpy as np

from miniworld.scenes import imagine, paint
from miniworld.silhouettes import figure, read_colour, read_shape


def test_every_drawn_shape_is_read_right_also_when_blurred():
    rng = np.random.default_rng(8)
    scenes = [imagine(rng, "shape") for _ in range(40)]
    images = [paint(rng, scene).image for scene in scenes]
    asked = [scene.facts.shape for scene in scenes]
    assert [read_shape(image) for image in images] == asked
    blurred = [read_shape(cv2.GaussianBlur(image, (0, 0), 1.5)) for image in images]
    assert np.mean([a == b for a, b in zip(asked, blurred, strict=True)]) > 0.9


def test_every_drawn_colour_is_read_right_also_when_blurred():
    rng = np.random.default_rng(9)
    for scene in [imagine(rng, "shape") for _ in range(40)]:
        image = paint(rng, scene).image
        assert read_colour(image) == scene.facts.colour
        assert read_colour(cv2.GaussianBlur(image, (0, 0), 1.5)) == scene.facts.colour


def test_an_empty_picture_has_no_shape_and_no_colour():
    empty = np.full((128, 128, 3), 90, np.uint8)
    assert read_shape(empty) == read_colour(empty) == ""


def test_the_largest_figure_counts():
    image = np.zeros((128, 128, 3), np.uint8)
    cv2.circle(image, (40, 40), 5, (200, 0, 0), -1)
    cv2.circle(image, (80, 80), 25, (200, 0, 0), -1)
    mask = figure(image)
    assert mask[80, 80]
    assert not mask[40, 40]
    assert read_shape(image) == "circle"
