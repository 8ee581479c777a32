"""A new word in the main job: alone or beside a network, resumed, captioned from templates, and refused in time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path, PurePath
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from library.data.batches import Batch
from library.data.dataset import Dataset
from library.files import read_metadata
from library.models.embedding_files import read_bundle
from library.training.trained.caption_templates import OBJECT_TEMPLATES, STYLE_TEMPLATES, CaptionSpec, TemplateBatches

WORD = {
    "token_string": "zwx",
    "num_vectors_per_token": 2,
    "embedding_initializer": "embeddings.cross_init",
    "initializer_args": ["context={}"],
    "init_word": "man",
    "embedding_lr": 0.01,
    "caption_template": ["a photo of {}", "{}"],
}
ALONE = {"network_module": None, "network_dim": None, **WORD}
PIVOTAL = {**WORD, "embedding_stop_step": 4, "network_start_step": 2, "network_train_unet_only": True}

Train = Callable[..., int]


def steps_of(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "t-log.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if "loss" in line]


def test_a_word_alone_leaves_a_file_a_log_of_norms_and_angles_and_their_curves(train: Train, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "names.txt").write_text("anna smith\njohn jones\nmary ben\n", encoding="utf-8")
    assert train(**{**ALONE, "initializer_args": [f"names={tmp_path / 'names.txt'}"]}, max_train_steps=3) == 0
    (rows,) = load_file(out / "t.safetensors").values()
    assert rows.shape == (2, 32)
    header = read_metadata(out / "t.safetensors")
    assert header["modelspec.architecture"] == "stable-diffusion-v1/textual-inversion"
    assert header["ss_embedding_initializer"] == "embeddings.cross_init"
    assert header["ss_steps"] == "3"
    assert header["ss_initializer_args"] == '{"names": "names.txt"}'
    assert not [text for text in header.values() if str(tmp_path.parent) in text or PurePath(text).is_absolute()]
    last = steps_of(out)[-1]
    assert last["lr"] == {"embedding": 0.01}
    assert 0 < last["embedding/clip_l_1/cosine"] < 1 != last["embedding/clip_l_0/norm_ratio"]
    assert {"t_embedding_norms.png", "t_embedding_angles.png"} <= {path.name for path in out.iterdir()}


def test_a_stopped_run_goes_on_bit_for_bit(train: Train, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = {**PIVOTAL, "flip_aug": True}
    assert train(**options, output_dir=whole, max_train_steps=6) == 0
    assert train(**options, output_dir=parts, max_train_steps=3, save_state_on_train_end=True) == 0
    assert train(**options, output_dir=parts, max_train_steps=6, resume="latest") == 0
    for file in whole.glob("t*.safetensors"):
        one, other = load_file(file), load_file(parts / file.name)
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert [line["loss"] for line in steps_of(whole)] == [line["loss"] for line in steps_of(parts)]


def test_pivotal_tuning_trains_the_word_first_then_both_then_the_network(train: Train, tmp_path):
    out = tmp_path / "out"
    assert train(**PIVOTAL, max_train_steps=6, save_every_n_steps=1, bundle_embeddings=True) == 0

    def at(step: int, label: str) -> torch.Tensor:
        tensors = load_file(out / f"t-step{step:08d}{label}.safetensors")
        own = {key: tensor for key, tensor in tensors.items() if not key.startswith("bundle_emb")}
        return torch.cat([tensor.reshape(-1).float() for key, tensor in sorted(own.items())])

    moved = {label: [not torch.equal(at(i, label), at(i + 1, label)) for i in range(1, 6)] for label in ("", "_emb")}
    assert moved == {"": [False, True, True, True, True], "_emb": [True, True, True, False, False]}
    (bundled,) = read_bundle(out / "t.safetensors")
    assert bundled.token == "zwx"
    assert torch.equal(bundled.vectors["emb_params"], load_file(out / "t_emb.safetensors")["emb_params"])
    again = {"network_weights": out / "t.safetensors", "dim_from_weights": True, "output_dir": tmp_path / "again"}
    assert train(**again, max_train_steps=1) == 0, "a network's file loads with the word in it"


def test_checkpointing_recomputes_the_same_rows(train: Train, tmp_path):
    for name, checkpointed in (("plain", False), ("checkpointed", True)):
        options = {**ALONE, "output_dir": tmp_path / name, "max_train_steps": 5}
        assert train(**options, gradient_checkpointing=checkpointed) == 0
    one, other = (load_file(tmp_path / name / "t.safetensors")["emb_params"] for name in ("plain", "checkpointed"))
    torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_an_embedding_file_is_a_start_and_samples_know_the_word(train: Train, tmp_path):
    first, again = tmp_path / "first", tmp_path / "again"
    assert train(**ALONE, output_dir=first, max_train_steps=1) == 0
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a photo of {} --w 64 --h 64 --s 2 --d 1\n", encoding="utf-8")
    options = {**ALONE, "weights": first / "t.safetensors", "output_dir": again, "sample_prompts": prompts}
    assert train(**options, max_train_steps=1, sample_every_n_steps=1) == 0
    start, end = (load_file(folder / "t.safetensors")["emb_params"] for folder in (first, again))
    assert (end - start).abs().max() <= 0.0111
    assert read_metadata(again / "t.safetensors")["ss_embedding_initializer"] == "weights"
    (sample,) = (again / "sample").glob("*.png")
    assert Image.open(sample).info["prompt"] == "a photo of zwx"


def test_what_is_transparent_does_not_count(train: Train, tmp_path):
    folder = tmp_path / "photo" / "8_person"
    folder.mkdir(parents=True)
    rows = {}
    for name, alpha in (("whole", 255), ("half", 0)):
        picture = Image.effect_noise((64, 64), 80).convert("RGBA") if not rows else Image.open(folder / "a.png")
        picture.paste((*(200, 20, 20), alpha), (32, 0, 64, 64))
        picture.save(folder / "a.png")
        options = {**ALONE, "train_data_dir": tmp_path / "photo", "output_dir": tmp_path / name, "alpha_mask": True}
        assert train(**options, max_train_steps=2) == 0
        rows[name] = load_file(tmp_path / name / "t.safetensors")["emb_params"]
    assert not torch.equal(rows["whole"], rows["half"])


def test_an_initializer_s_defaults_count_where_nothing_is_written(train: Train, tmp_path, capfd):
    options = {**ALONE, "embedding_lr": None, "learning_rate": None, "max_train_steps": None}
    options["initializer_args"] = ["preset=fast"]
    assert train(**options, max_train_epochs=1) == 0
    assert "sets embedding_lr 0.08, max_grad_norm 0, which the options leave open" in capfd.readouterr().err
    assert {line["lr"]["embedding"] for line in steps_of(tmp_path / "out")} == {0.08}
    assert train(**{**options, "learning_rate": 0.02, "output_dir": tmp_path / "own"}, max_train_epochs=1) == 0
    assert {line["lr"]["embedding"] for line in steps_of(tmp_path / "own")} == {0.02}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"caption_template": None}, "no caption names `zwx`"),
        ({"cache_text_encoder_outputs": True}, "cannot be used with `token_string`"),
        ({"cache_text_encoder_outputs_to_disk": True}, "cannot be used with `token_string`"),
        ({"token_string": "cat"}, "knows 'cat' already"),
        ({"token_string": None}, "`--init_word` on the command line needs `token_string`"),
        ({"output_name": "my face"}, "only letters, digits"),
        ({"output_name": "<face>"}, "must be a plain name"),
        ({"output_name": "face[2]"}, "as in 'face_2'"),
        ({"embedding_stop_step": 3}, "needs `network_module`"),
        ({"caption_template": ["no place"]}, "must hold {} once"),
        ({"use_object_template": True, "use_style_template": True}, "exclude each other"),
        ({"embedding_initializer": "embeddings.from_word", "initializer_args": None, "init_word": None}, "`init_word`"),
        ({"initializer_args": ["nmaes=x"]}, "has no option `nmaes`; did you mean `names`"),
        ({"network_module": "networks.lora", "network_start_step": 3, "embedding_stop_step": 2}, "train nothing"),
    ],
)
def test_what_cannot_work_is_reported_before_anything_is_trained(options, said, train: Train, tmp_path, capfd):
    assert train(**{**ALONE, **options}) != 0
    assert said in capfd.readouterr().err
    assert not list((tmp_path / "out").glob("*.safetensors"))


@pytest.mark.parametrize(("rate", "said"), [(0.19, "hardly move the vectors"), (4.1, "far beyond"), (1.0, None)])
def test_a_rate_and_a_length_that_do_not_go_together_are_reported(rate, said, train: Train, capfd):
    assert train(**{**ALONE, "embedding_lr": rate}, max_train_steps=1) == 0
    told = capfd.readouterr().err
    assert said in told if said else "hardly move" not in told and "far beyond" not in told


class OneBatch:
    """Two pictures and a regularisation picture, the same in every epoch."""

    steps_per_epoch = 1
    ids = ("0/a/1.png#0", "0/a/2.png#0", "0/r/3.png#0")

    def epoch(self, epoch: int, start: int = 0):
        empty = torch.zeros(3, 1)
        captions = ["one", "", "a man"]
        batch = Batch(epoch, list(self.ids), [""] * 3, captions, empty, None, empty, 3, empty, empty, empty, 5)
        yield [batch]


def dataset(*captions: str) -> Any:
    pictures = [SimpleNamespace(caption=c, subset=SimpleNamespace(is_reg=i == 2)) for i, c in enumerate(captions)]
    samples: list[Any] = [SimpleNamespace(sample_id=i, picture=p) for i, p in zip(OneBatch.ids, pictures, strict=True)]
    return Dataset([], [], samples)


def captions_in(epoch: int, spec: CaptionSpec, *captions: str) -> list[str]:
    batches: Any = OneBatch()
    (batch,) = next(TemplateBatches(batches, dataset(*captions), spec, "zwx").epoch(epoch))
    return batch.captions


def test_templates_are_drawn_for_each_sample_and_epoch_and_are_the_same_again():
    spec = CaptionSpec(use_object_template=True, caption_template=["face of {} person"])
    drawn = [captions_in(epoch, spec, "one", "", "a man") for epoch in range(1, 30)]
    assert drawn == [captions_in(epoch, spec, "one", "", "a man") for epoch in range(1, 30)]
    assert {first for first, _, _ in drawn} <= {t.replace("{}", "face of zwx person") for t in OBJECT_TEMPLATES}
    assert len({first for first, _, _ in drawn}) > 10
    assert any(first != second for first, second, _ in drawn)


def test_regularisation_pictures_and_dropped_captions_keep_theirs():
    spec = CaptionSpec(use_style_template=True)
    first, second, third = captions_in(1, spec, "one", "had a caption, which was dropped", "a man")
    assert first in {template.replace("{}", "zwx") for template in STYLE_TEMPLATES}
    assert (second, third) == ("", "a man")


def test_a_template_alone_is_the_whole_caption():
    spec = CaptionSpec(caption_template=["a {} on a beach"])
    assert captions_in(1, spec, "one", "", "a man") == ["a zwx on a beach", "a zwx on a beach", "a man"]


def test_all_templates_have_one_place_and_none_is_listed_twice():
    for templates in (OBJECT_TEMPLATES, STYLE_TEMPLATES):
        assert all(template.count("{}") == 1 for template in templates)
        assert len(set(templates)) == len(templates) >= 15
