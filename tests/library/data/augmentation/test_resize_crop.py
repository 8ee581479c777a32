"""Pixels are resized and cut to exactly their bucket."""

import numpy as np

from library.data.augmentation.resize_crop import fitted
from library.data.buckets import BucketChoice


def test_fitting_cuts_the_middle_and_keeps_flat_colours():
    pixels = np.full((90, 300, 3), (10, 200, 30), np.uint8)
    for choice in [BucketChoice((128, 64), (213, 64), (42, 0)), BucketChoice((256, 128), (427, 128), (85, 0))]:
        fit = fitted(pixels, choice)
        assert fit.shape == (choice.bucket[1], choice.bucket[0], 3)
        assert np.all(fit == (10, 200, 30))
    marked = pixels.copy()
    marked[:, 10] = 255
    assert np.array_equal(fitted(marked, BucketChoice((256, 64), (300, 90), (10, 13))), marked[13:77, 10:266])


def test_shrinking_averages_areas():
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[::2, ::2] = 200  # one of four
    assert np.all(fitted(pixels, BucketChoice((2, 2), (2, 2), (0, 0))) == 50)
