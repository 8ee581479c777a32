"""Where networks are looked for, and what is said of a weights file that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants

from library.errors import ConfigError, UserError
from library.metrics.catalogue import METRICS, SOURCES
from library.metrics.weight_files import weight_facts
from library.metrics.weights import Weights, in_hub_cache, not_there, read_weights


def in_cache(root: Path, repository: str, *names: str) -> Path:
    """A repository as huggingface_hub keeps it."""
    repo = root / f"models--{repository.replace('/', '--')}"
    snapshot = repo / "snapshots" / "abc"
    for name in names:
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).write_text("{}", encoding="utf-8")
    (repo / "refs").mkdir(exist_ok=True)
    (repo / "refs" / "main").write_text("abc", encoding="utf-8")
    return snapshot


def test_a_local_copy_of_the_hub_will_do_if_it_has_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert in_hub_cache(SOURCES["clip"]) is None
    in_cache(tmp_path, "openai/clip-vit-base-patch32", "config.json", "vocab.json")  # only the tokenizer was fetched
    assert in_hub_cache(SOURCES["clip"]) is None
    large = in_cache(tmp_path, "openai/clip-vit-large-patch14", "config.json", "model.safetensors")
    assert in_hub_cache(SOURCES["clip"]) == large
    assert weight_facts(large)["name"] == "openai/clip-vit-large-patch14"
    csd = in_cache(tmp_path, "tomg-group-umd/CSD-ViT-L", "pytorch_model.bin") / "pytorch_model.bin"
    assert Weights().find("csd") == csd
    assert not_there(METRICS["clip_t"], Weights()) is None


def test_a_list_of_weight_files_names_only_files_of_its_folder(tmp_path: Path):
    (tmp_path / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "../b.safetensors"}}', encoding="utf-8"
    )
    with pytest.raises(UserError, match=r"names '\.\./b\.safetensors', which is no file of its folder"):
        weight_facts(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("[]", encoding="utf-8")
    with pytest.raises(UserError, match="is no list of weight files"):
        weight_facts(tmp_path)


def test_a_written_path_wins_over_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    in_cache(tmp_path, "openai/clip-vit-base-patch32", "config.json", "model.safetensors")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "w.toml").write_text(f"[weights]\nclip = '{mine}'\n", encoding="utf-8")
    assert read_weights(tmp_path / "w.toml").find("clip") == mine


def test_all_that_is_wrong_in_a_weights_file_is_reported(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "w.toml").write_text(
        f"""clip = "x"
[weights]
dinno = "a"
dino = '{tmp_path / "empty"}'
inception = '{tmp_path / "empty"}'
csd = 3
[features.judge]
module = "miniworld.judge"
[features.clip]
module = "a"
weights = "b"
""",
        encoding="utf-8",
    )
    with pytest.raises(ConfigError) as told:
        read_weights(tmp_path / "w.toml")
    for line in (
        "`clip` in w.toml line 1 is no table of a weights file; there are [weights] and [features.NAME]",
        "`dinno` in w.toml line 3 is not a name of weights; did you mean `dino`?",
        "`dino` in w.toml line 4: ",
        "must be a folder with config.json and the weights",
        "is a folder; a file is needed",
        "`csd` in w.toml line 6: a path is needed, not 3",
        "[features.judge] in w.toml line 7 must have the keys `module` and `weights`",
        "[features.clip] in w.toml line 9 has the name of a metric or of weights",
    ):
        assert line in str(told.value)


def test_what_is_missing_is_reported_with_every_file_that_is_needed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("library.metrics.weights.in_hub_cache", lambda source: None)
    line = not_there(METRICS["image_reward"], Weights()) or ""
    assert line.startswith(
        "because the ImageReward weights and the words of BERT are missing; to get it, download http"
    )
    assert line.endswith("and set weights.bert_vocabulary")
