"""Resuming two pivots: what is taken as finished, and what is trained again because something else decides it now."""

from __future__ import annotations

import shutil

import torch
from safetensors.torch import load_file

from restoration.pivots.pivot import decided_by, decided_by_before
from restoration.train import read_settings


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


def test_a_file_of_an_earlier_version_with_its_own_digest_is_still_taken_for_finished(words):
    one, other = read_settings(words()), read_settings(words(gamma=0.25))
    assert decided_by(one, "text") not in decided_by_before(one, "text")
    assert not set(decided_by_before(one, "text")) & set(decided_by_before(other, "text"))
    assert decided_by(one, "text") != decided_by(other, "text")


def test_a_model_that_lies_elsewhere_is_the_same_and_one_of_other_weights_is_another(words, tmp_path):
    one = read_settings(words())
    moved = shutil.copytree(one["pretrained_model_name_or_path"], tmp_path / "moved")
    elsewhere = read_settings(words(pretrained_model_name_or_path=moved))
    assert decided_by(one, "text") == decided_by(elsewhere, "text")
    file = next((moved / "unet").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert decided_by(one, "text") != decided_by(elsewhere, "text")


def test_what_the_other_pivot_is_trained_with_decides_nothing(words):
    one, other = read_settings(words()), read_settings(words(model_learning_rate=0.5))
    assert decided_by(one, "text") == decided_by(other, "text")
    assert decided_by(one, "model") != decided_by(other, "model")
