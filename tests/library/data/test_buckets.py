"""Buckets against 2,092 figures recorded from kohya-ss/sd-scripts, commit 48d368fa (the file names the functions)."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from library.data.buckets import Buckets, NoBucket

GOLDEN = json.loads(gzip.decompress((Path(__file__).parents[2] / "golden" / "buckets.json.gz").read_bytes()))
SETTINGS = {setting["name"]: setting for setting in GOLDEN["settings"]}


def buckets_of(setting: dict) -> Buckets:
    return Buckets(
        resolution=tuple(setting["resolution"]),
        enable_bucket=setting["enable_bucket"],
        smallest=setting["min_bucket_reso"],
        largest=setting["max_bucket_reso"],
        step=setting["bucket_reso_steps"],
        no_upscale=setting["bucket_no_upscale"],
    )


@pytest.mark.parametrize("name", SETTINGS)
def test_bucket_resized_size_and_crop_are_kohyas_integers(name: str):
    buckets, rows = buckets_of(SETTINGS[name]), SETTINGS[name]["rows"]
    assert len(rows) >= 290
    for width, height, *expected in rows:
        choice = buckets.choose((width, height))
        assert [*choice.bucket, *choice.resized, *choice.crop] == expected[:6], (width, height)


@pytest.mark.parametrize("name", [n for n, s in SETTINGS.items() if s["predefined_buckets"]])
def test_the_list_of_buckets_is_kohyas(name: str):
    assert buckets_of(SETTINGS[name]).sizes == [tuple(size) for size in SETTINGS[name]["predefined_buckets"]]


def test_an_image_below_one_step_has_no_bucket_instead_of_a_bucket_of_size_zero():
    setting = SETTINGS["sq1024_no_upscale"]
    assert len(setting["fails"]) == 8
    for width, height, _ in setting["fails"]:
        with pytest.raises(NoBucket):
            buckets_of(setting).choose((width, height))


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
