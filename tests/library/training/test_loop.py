"""The loop on a tiny model: what a run leaves, splitting a batch, bad numbers, and a method that does nothing."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from library.training import objectives


def _weights(folder, name="t"):
    return load_file(folder / f"{name}.safetensors")


def _log(folder, name="t"):
    return [json.loads(line) for line in (folder / f"{name}-log.jsonl").read_text(encoding="utf-8").splitlines()]


def _largest_difference(one, other):
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_a_run_leaves_a_network_file_under_kohyas_names_with_metadata_and_hashes(train, tmp_path):
    assert train(network_alpha=1.5, save_precision="fp16", training_comment="for the test") == 0
    with safe_open(tmp_path / "out" / "t.safetensors", "pt") as file:
        metadata, names = file.metadata(), set(file.keys())
        dtype = file.get_tensor("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight").dtype
    assert "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight" in names
    assert "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.alpha" in names
    assert dtype == torch.float16
    assert metadata["ss_network_dim"] == "2"
    assert metadata["ss_network_alpha"] == "1.5"
    assert metadata["ss_steps"] == "4"
    assert metadata["ss_training_comment"] == "for the test"
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert len(metadata["sshs_model_hash"]) == 64


def test_the_log_has_a_line_for_every_step_and_the_last_paragraph_says_what_was_saved(train, tmp_path, capsys):
    assert train() == 0
    out = capsys.readouterr().out
    steps = [line for line in _log(tmp_path / "out") if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    assert all(line["lr"] == {"textencoder": 1e-3, "unet": 1e-3} for line in steps)
    assert f"Saved {tmp_path / 'out' / 't.safetensors'}" in out
    assert "tensors, median change" in out


def test_accumulating_two_batches_of_two_is_one_batch_of_four(train, tmp_path):
    # Adam divides by the gradient's own size, so rounding shows in proportion to the learning rate.
    assert train(output_dir=tmp_path / "4", train_batch_size=4, learning_rate=1e-4) == 0
    assert train(output_dir=tmp_path / "2x2", gradient_accumulation_steps=2, learning_rate=1e-4) == 0
    assert train(output_dir=tmp_path / "2", learning_rate=1e-4) == 0
    one = _weights(tmp_path / "4")
    assert _largest_difference(one, _weights(tmp_path / "2x2")) < 1e-5
    assert _largest_difference(one, _weights(tmp_path / "2")) > 1e-4


def test_an_epoch_of_seven_pictures_in_batches_of_two_is_four_steps_over_every_picture(train, tmp_path, monkeypatch):
    seen = []
    whole = objectives.NoisePrediction.loss

    def spy(self, batch):
        seen.append([name for name, weight in zip(batch.sample_ids, batch.weights.tolist(), strict=True) if weight])
        return whole(self, batch)

    monkeypatch.setattr(objectives.NoisePrediction, "loss", spy)
    assert train(max_train_steps=None, max_train_epochs=2) == 0
    assert [len(batch) for batch in seen] == [2, 2, 2, 1] * 2 or sorted(map(len, seen[:4])) == [1, 2, 2, 2]
    for epoch in (seen[:4], seen[4:]):
        assert len({name for batch in epoch for name in batch}) == 7


def test_a_loss_that_is_not_finite_skips_its_step_and_names_the_files(train, tmp_path, monkeypatch):
    _poison(monkeypatch, {3})
    assert train(max_train_steps=5) == 0
    (skipped,) = [line for line in _log(tmp_path / "out") if "files" in line]
    assert skipped["step"] == 3
    assert all(name.endswith(".png") for name in skipped["files"])
    assert len(skipped["timesteps"]) == len(skipped["files"])
    assert all(tensor.isfinite().all() for tensor in _weights(tmp_path / "out").values())


def test_five_bad_steps_in_a_row_stop_with_the_last_good_state_and_no_file_of_nan(train, tmp_path, monkeypatch, capsys):
    _poison(monkeypatch, {3, 4, 5, 6, 7})
    assert train(max_train_steps=20) == 1
    assert "5 steps in a row" in capsys.readouterr().err
    out = tmp_path / "out"
    assert not list(out.glob("*.safetensors"))
    (state,) = out.glob("*-state")
    assert all(tensor.isfinite().all() for tensor in load_file(state / "network.safetensors").values())
    monkeypatch.undo()
    assert train(max_train_steps=9, resume="latest") == 0


def _poison(monkeypatch, steps):
    whole, count = objectives.NoisePrediction.loss, []

    def loss(self, batch):
        count.append(None)
        answer = whole(self, batch)
        if len(count) in steps:
            answer.per_sample = answer.per_sample * float("nan")
        return answer

    monkeypatch.setattr(objectives.NoisePrediction, "loss", loss)


def test_a_training_that_moves_nothing_is_an_error(train, capsys):
    assert train(learning_rate=1e-30) == 1
    assert "the training changed nothing" in capsys.readouterr().err


def test_a_network_in_sixteen_bits_says_what_it_cannot_learn(train, capsys):
    assert train(max_train_steps=1, mixed_precision="bf16", full_bf16=True) == 0
    assert "full_bf16: an update below about a 500th of its weight rounds to nothing" in capsys.readouterr().err
    assert train("--overwrite", max_train_steps=1, mixed_precision="bf16") == 0
    assert "rounds to nothing" not in capsys.readouterr().err


def test_bf16_and_checkpointing_train_nearly_the_same_network(train, tmp_path):
    assert train(output_dir=tmp_path / "a") == 0
    assert train(output_dir=tmp_path / "b", gradient_checkpointing=True) == 0
    assert _largest_difference(_weights(tmp_path / "a"), _weights(tmp_path / "b")) < 1e-5
    assert train(output_dir=tmp_path / "c", mixed_precision="bf16") == 0
    assert _largest_difference(_weights(tmp_path / "a"), _weights(tmp_path / "c")) < 2e-2


def test_cached_on_disk_in_memory_or_not_at_all_the_weights_are_the_same(train, tmp_path, pictures):
    assert train(output_dir=tmp_path / "memory", flip_aug=True) == 0
    assert train(output_dir=tmp_path / "disk", cache_latents_to_disk=True, flip_aug=True) == 0
    assert train(output_dir=tmp_path / "again", cache_latents_to_disk=True, flip_aug=True) == 0
    assert train(output_dir=tmp_path / "live", cache_latents=None, flip_aug=True) == 0
    first = _weights(tmp_path / "memory")
    for name in ("disk", "again", "live"):
        assert _largest_difference(first, _weights(tmp_path / name)) < 1e-5, name


def test_only_the_part_that_is_asked_for_is_trained(train, tmp_path):
    assert train(network_train_unet_only=True) == 0
    assert all(name.startswith("lora_unet") for name in _weights(tmp_path / "out"))
    assert train("--overwrite", network_train_text_encoder_only=True) == 0
    assert all(name.startswith("lora_te") for name in _weights(tmp_path / "out"))


def test_a_frozen_text_encoder_is_still_saved_and_its_captions_are_encoded_once(train, tmp_path):
    assert train(text_encoder_lr=[0], unet_lr=1e-3) == 0
    weights = _weights(tmp_path / "out")
    ups = [tensor for name, tensor in weights.items() if name.startswith("lora_te") and "lora_up" in name]
    assert ups
    assert all(not tensor.any() for tensor in ups)


def test_cached_text_embeddings_train_the_same_network_with_caption_dropout(train, tmp_path):
    options = {"network_train_unet_only": True, "caption_dropout_rate": 0.5}
    assert train(output_dir=tmp_path / "kept", cache_text_encoder_outputs_to_disk=True, **options) == 0
    assert train(output_dir=tmp_path / "read", cache_text_encoder_outputs_to_disk=True, **options) == 0
    assert train(output_dir=tmp_path / "memory", **options) == 0
    assert train(output_dir=tmp_path / "undropped", network_train_unet_only=True) == 0
    kept, read, memory, undropped = (
        load_file(tmp_path / name / "t.safetensors") for name in ("kept", "read", "memory", "undropped")
    )
    assert all(tensor.equal(read[name]) and tensor.equal(memory[name]) for name, tensor in kept.items())
    assert any(not tensor.equal(undropped[name]) for name, tensor in kept.items())


def test_samples_are_drawn_before_and_after_and_set_side_by_side(train, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle --d 1 --s 2\na dog --d 2 --s 2\n", encoding="utf-8")
    options = {"sample_prompts": prompts, "sample_at_first": True, "sample_every_n_steps": 4}
    assert train(**options) == 0
    names = sorted(path.name for path in (tmp_path / "out" / "sample").iterdir())
    assert [name[:12] for name in names] == ["t_000000_00_", "t_000000_01_", "t_000004_00_", "t_000004_01_"]
    sheet = Image.open(tmp_path / "out" / "t-before_after.png")
    assert sheet.width > 4 * 64


def test_drawing_samples_leaves_no_trace_in_the_weights(train, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle --d 1 --s 2\n", encoding="utf-8")
    assert train(output_dir=tmp_path / "plain", network_dropout=0.3) == 0
    options = {"sample_prompts": prompts, "sample_every_n_steps": 1, "sample_at_first": True}
    assert train(output_dir=tmp_path / "drawn", network_dropout=0.3, **options) == 0
    assert _largest_difference(_weights(tmp_path / "plain"), _weights(tmp_path / "drawn")) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network_module": "networks.lara"}, "networks.lara"),
        ({"network_args": ["conv_dmi=4"]}, "did you mean `conv_dim`"),
        ({"optimizer_type": "AdamQ"}, "AdamQ"),
        ({"pretrained_model_name_or_path": "nowhere/at-all"}, "nowhere/at-all"),
    ],
)
def test_what_cannot_work_is_one_clear_error_and_leaves_nothing(train, tmp_path, capsys, options, message):
    assert train(**options) != 0
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.safetensors")) if (tmp_path / "out").exists() else True


def test_unreadable_pictures_are_reported_together_by_name(train, tmp_path, capsys):
    folder = tmp_path / "broken" / "1_sks"
    folder.mkdir(parents=True)
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(folder / "good.png")
    (folder / "cut.png").write_bytes((folder / "good.png").read_bytes()[:60])
    (folder / "page.jpg").write_text("<html>not found</html>")
    assert train(train_data_dir=tmp_path / "broken") == 1
    message = capsys.readouterr().err
    assert "cut.png" in message
    assert "page.jpg" in message
