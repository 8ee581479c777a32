"""`python -m embeddings`: init writes the start for other programs, convert goes between layouts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from embeddings.__main__ import embeddings
from library.command import run_command
from library.files import read_metadata, write_tensors
from library.models.embedding_files import Embedding, bundle_keys, read_embedding, write_embedding
from library.models.family import Family
from library.models.save import save_folder
from miniworld.tiny import build

ROOT = Path(__file__).parents[2]


def run(*words: object) -> int:
    return run_command(embeddings, [str(word) for word in words])


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "sdxl"
    save_folder(build(Family.SDXL), folder)
    return folder


def init(model: Path, output: Path, *more: object) -> int:
    model_and_word = ("--pretrained_model_name_or_path", model, "--token_string", "zwx", "--output", output)
    return run("init", *model_and_word, "--num_vectors_per_token", 2, *more)


def test_init_writes_the_start_for_both_encoders_of_sdxl(sdxl, tmp_path, capsys):
    crossed = ("--embedding_initializer", "embeddings.cross_init", "--init_word", "woman")
    assert init(sdxl, tmp_path / "init.safetensors", *crossed) == 0
    shapes = {name: tuple(tensor.shape) for name, tensor in load_file(tmp_path / "init.safetensors").items()}
    assert shapes == {"clip_l": (2, 32), "clip_g": (2, 40)}
    assert read_metadata(tmp_path / "init.safetensors")["ss_embedding_initializer"] == "embeddings.cross_init"
    assert "clip_g: 2 vectors of 40 numbers" in capsys.readouterr().out


def test_init_takes_a_training_s_config_as_it_is(tiny_model, tmp_path):
    config = tmp_path / "train.toml"
    config.write_text(
        f'pretrained_model_name_or_path = "{tiny_model.as_posix()}"\ntoken_string = "zwx"\ninit_word = "cat"\n'
        "max_train_steps = 320\ntrain_batch_size = 8\n",
        encoding="utf-8",
    )
    assert run("init", "--config_file", config, "--output", tmp_path / "a.pt") == 0
    assert read_embedding(tmp_path / "a.pt").count == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["init", "--output", "a.pt"], "`pretrained_model_name_or_path` is not set"),
        (["init", "--pretrained_model_name_or_path", ".", "--token_string", "x"], "`output` is not set"),
        (["inti"], "python -m embeddings init | convert"),
        (["convert", "missing.pt", "a.pt"], "`missing.pt` does not exist"),
    ],
)
def test_what_is_missing_is_reported(words, said, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run(*words) != 0
    assert said in capsys.readouterr().err


def test_convert_refuses_vectors_of_another_model_with_both_widths(tmp_path, capsys):
    torch.save({"28017_v0": torch.zeros(1024), "28017_v1": torch.zeros(1024)}, tmp_path / "learned_embeds.bin")
    assert run("convert", tmp_path / "learned_embeds.bin", tmp_path / "a.safetensors", "--model", "sd1") == 1
    assert "1024 numbers, but the text encoder clip_l of this model has 768" in capsys.readouterr().err
    assert not (tmp_path / "a.safetensors").exists()
    assert run("convert", tmp_path / "learned_embeds.bin", tmp_path / "a.safetensors", "--model", "sd2") == 0
    assert load_file(tmp_path / "a.safetensors")["emb_params"].shape == (2, 1024)


def test_convert_joins_the_two_files_of_diffusers_and_parts_them_again(tmp_path):
    both = Embedding({"clip_l": torch.ones(2, 4), "clip_g": torch.ones(2, 6)}, "zwx")
    write_embedding(tmp_path / "a.safetensors", both, "diffusers")
    assert run("convert", tmp_path / "a.safetensors", tmp_path / "a_2.safetensors", tmp_path / "b.safetensors") == 0
    assert read_embedding(tmp_path / "b.safetensors").vectors["clip_g"].shape == (2, 6)
    assert run("convert", tmp_path / "b.safetensors", tmp_path / "c.safetensors", "--layout", "diffusers") == 0
    assert {path.name for path in tmp_path.glob("c*")} == {"c.safetensors", "c_2.safetensors"}


def test_convert_unpacks_what_a_lora_carries(tmp_path):
    weights = {"lora_unet_x.lora_down.weight": torch.zeros(2, 4)}
    for name in ("one", "two"):
        weights |= bundle_keys(Embedding({"emb_params": torch.ones(2, 4)}), name)
    write_tensors(tmp_path / "lora.safetensors", weights, {"ss_network_dim": "2", "ss_steps": "3"})
    assert run("convert", tmp_path / "lora.safetensors", tmp_path / "unpacked") == 0
    assert {path.name for path in (tmp_path / "unpacked").iterdir()} == {"one.safetensors", "two.safetensors"}
    assert read_metadata(tmp_path / "unpacked" / "one.safetensors") == {"ss_steps": "3", "ss_token_string": "one"}


@pytest.mark.process
def test_started_by_its_path_from_another_folder_the_standard_library_is_still_found(tmp_path):
    """embeddings/random.py must not stand in for Python's own `random`."""
    torch.save({"x_v0": torch.zeros(4)}, tmp_path / "a.bin")
    words = [sys.executable, str(ROOT / "embeddings"), "convert", "a.bin", "b.safetensors"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "b.safetensors").is_file()


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (["/tmp/outside"], {"_tmp_outside.safetensors"}),
        (["\\outside", "C:outside"], {"_outside.safetensors", "C_outside.safetensors"}),
        (["a/b", "a_b", "A_B"], {"A_B.safetensors", "a_b_2.safetensors", "a_b_3.safetensors"}),
        (["nul", "", "x" * 300], {"_nul.safetensors", "embedding.safetensors"}),
    ],
)
def test_a_word_in_a_file_never_decides_in_which_folder_it_is_unpacked(tmp_path, words, files):
    weights = {"lora_unet_x.lora_down.weight": torch.zeros(2, 4)}
    for value, word in enumerate(words):
        weights[f"bundle_emb.{word}.clip_l"] = torch.full((1, 4), float(value))
    place = tmp_path / "deep" / "er"
    write_tensors(tmp_path / "lora.safetensors", weights)
    assert run("convert", tmp_path / "lora.safetensors", place / "out") == 0
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - {tmp_path / "lora.safetensors"}
    assert {path.parent for path in written} == {place / "out"}
    assert {path.name for path in written} - {f"{'x' * 100}.safetensors"} == files
    assert {read_metadata(path).get("ss_token_string") for path in written} >= {word for word in words if word}
