"""Bucket arithmetic: what holds for every image. That its integers are sd-scripts' is compared in
tests/golden_table/images.py."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from library.data.buckets import NoBucket
from tests.golden_table.comparison import read_golden
from tests.golden_table.images import buckets_of

SETTINGS = {setting["name"]: setting for setting in read_golden("buckets.json.gz")["settings"]}


@given(st.integers(1, 6000), st.integers(1, 6000), st.sampled_from(sorted(SETTINGS)))
def test_every_crop_lies_inside_the_resized_image(width: int, height: int, name: str):
    try:
        choice = buckets_of(SETTINGS[name]).choose((width, height))
    except NoBucket:
        assert SETTINGS[name]["bucket_no_upscale"]
        return
    for axis in (0, 1):
        assert 0 < choice.bucket[axis] <= choice.resized[axis]
        assert 0 <= choice.crop[axis] <= choice.resized[axis] - choice.bucket[axis]
