"""What a plugin's text says of its options, beside what the module says once it is imported."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from library.config.declared_options import declared_options

MODULES = ("networks.lora", "networks.ac_lora", "networks.t_lora")
INITIALIZERS = ("embeddings.cross_init", "embeddings.from_file", "embeddings.from_word", "embeddings.random")


@pytest.mark.parametrize("module", [*MODULES, *INITIALIZERS])
def test_the_text_tells_what_the_module_knows(module):
    known = declared_options(module, {}, None)
    assert known is not None
    assert set(known) == set(importlib.import_module(module).OPTIONS)


def test_options_that_depend_on_another_module_are_left_to_the_import():
    assert declared_options("networks.ac_lora", {"base_module": "lycoris.kohya"}, None) is None
    assert declared_options("networks.ac_lora", {"ac_p": "0.9"}, None) is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("OPTIONS = {'a': '', 'b': ''}", ["a", "b"]),
        ("MORE = {'b': ''}\nOPTIONS = {'a': '', **MORE}", ["a", "b"]),
        ("from networks.t_lora import OWN_OPTIONS\nOPTIONS = OWN_OPTIONS", ["t_min_rank", "t_start"]),
        ("OPTIONS = dict(a='')", None),
        ("OPTIONS = {name: '' for name in 'ab'}", None),
        ("OPTIONS = {**OPTIONS}", None),
        ("def create_network(): ...", None),
        ("OPTIONS = {", None),
    ],
)
def test_what_cannot_be_told_is_left_to_the_import(tmp_path: Path, text: str, expected):
    (tmp_path / "my_module_of_a_test.py").write_text(text, encoding="utf-8")
    found = declared_options("my_module_of_a_test", {}, tmp_path / "a.toml")
    assert found is None if expected is None else set(expected) <= set(found or ())


def test_a_module_that_is_nowhere_tells_nothing():
    assert declared_options("json", {}, None) is None
    assert declared_options("nowhere.at_all", {}, None) is None
