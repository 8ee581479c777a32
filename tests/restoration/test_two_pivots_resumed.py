"""Resuming two pivots: what is taken as finished, and what is trained again because something else decides it now."""

from __future__ import annotations

import torch
from safetensors.torch import load_file


def test_step_2_is_trained_again_when_step_1_went_on(person, tmp_path):
    e = tmp_path / "out" / "ana_E.safetensors"
    assert person(text_max_train_steps=1, save_state_on_train_end="true") == 0
    before = load_file(e)["conv_in.weight"]
    assert person(text_max_train_steps=3, resume="latest", save_state_on_train_end="true") == 0
    assert not torch.equal(before, load_file(e)["conv_in.weight"])


def test_a_step_1_in_context_is_not_taken_for_a_finished_one_out_of_context(person, tmp_path):
    g = tmp_path / "out" / "ana_G.safetensors"
    assert person(pivot="text", text_max_train_steps=1) == 0
    before = load_file(g)["conv_in.weight"]
    code = person(pivot="text", text_max_train_steps=1, in_context="false", resume="latest")
    assert code != 0 or not torch.equal(before, load_file(g)["conv_in.weight"])


def test_a_resumed_step_2_is_the_straight_one(person, tmp_path):
    assert person(pivot="text", text_max_train_steps=1) == 0
    g = {"pivot": "model", "unet_weights": tmp_path / "out" / "ana_G.safetensors"}
    a, b = tmp_path / "a", tmp_path / "b"
    assert person(output_dir=a, model_max_train_steps=6, **g) == 0
    assert person(output_dir=b, model_max_train_steps=3, save_state_on_train_end="true", **g) == 0
    assert person(output_dir=b, model_max_train_steps=6, resume="latest", **g) == 0
    one, other = (load_file(out / "ana_E.safetensors") for out in (a, b))
    assert all(torch.equal(one[name], other[name]) for name in one)
