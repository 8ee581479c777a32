"""The header of a network's file. That it says what sd-scripts' says is compared in tests/golden_table/files.py."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from library.adapters.metadata import (
    DatasetFacts,
    ImageFacts,
    ModelFacts,
    RunFacts,
    SubsetFacts,
    bucket_info,
    software_version,
    tag_frequency,
    training_metadata,
)
from library.adapters.modelspec import thumbnail
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.errors import UserError

DEFAULTS = {option.name: option.default for group in ALL_TRAIN_NETWORK for option in group}


@pytest.fixture(scope="module")
def base_model(tmp_path_factory) -> Path:
    """A file whose hashes were recorded."""
    path = tmp_path_factory.mktemp("model") / "base.safetensors"
    path.write_bytes(bytes((131 * k + k // 4096) % 251 for k in range(2097152)))
    return path


def test_a_vae_is_named_with_its_hashes_and_a_folder_without(base_model, tmp_path):
    run = RunFacts(1, 2.0, 1, 1, 1, "")
    facts = training_metadata({}, ModelFacts("sd1", False, str(tmp_path), str(base_model)), [], run)
    assert facts["ss_vae_name"] == "base.safetensors"
    assert facts["ss_vae_hash"] == "d7b5c607"
    assert len(facts["ss_new_vae_hash"]) == 64
    assert facts["ss_sd_model_name"] == tmp_path.name
    assert "ss_sd_model_hash" not in facts
    name = "runwayml/stable-diffusion-v1-5"
    assert training_metadata({}, ModelFacts("sd1", False, name), [], run)["ss_sd_model_name"] == name


def test_an_option_that_takes_several_values_is_written_as_one_where_it_has_one():
    run, model = RunFacts(1, 2.0, 1, 1, 1, ""), ModelFacts("sdxl", False, "x")
    assert training_metadata({"text_encoder_lr": [5e-5]}, model, [], run)["ss_text_encoder_lr"] == "5e-05"
    assert (
        training_metadata({"text_encoder_lr": (5e-5, 1e-5)}, model, [], run)["ss_text_encoder_lr"] == "[5e-05, 1e-05]"
    )


def test_tags_are_counted_in_lower_case_and_in_order():
    assert tag_frequency(["RED, red, blue,, blue ", "green"]) == {"red": 2, "blue": 2, "green": 1}
    assert list(tag_frequency(["b, a", "a"])) == ["b", "a"]


def test_buckets_count_repeats_and_the_error_counts_each_image_once():
    images = [ImageFacts((100, 100), (128, 128), 3, ""), ImageFacts((150, 100), (128, 128), 1, "")]
    info = bucket_info(images)
    assert info == {"buckets": {"0": {"resolution": [128, 128], "count": 4}}, "mean_img_ar_error": 0.25}
    assert bucket_info([])["mean_img_ar_error"] == 0.0


def test_the_software_names_itself_with_its_commit():
    name, _, commit = software_version().partition("/")
    assert name == "pivot-scripts"
    assert commit == "(unknown)" or (len(commit) == 40 and set(commit) <= set("0123456789abcdef"))


def test_a_thumbnail_becomes_a_data_url(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    assert thumbnail(str(tmp_path / "a.png")) == "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()
    assert thumbnail("data:image/png;base64,AA==") == "data:image/png;base64,AA=="
    with pytest.raises(UserError, match=r"none\.png. is not a picture file"):
        thumbnail(str(tmp_path / "none.png"))
    (tmp_path / "big.png").write_bytes(bytes(3 * 1024 * 1024))
    with pytest.raises(UserError, match="larger than 2 MiB"):
        thumbnail(str(tmp_path / "big.png"))


def test_images_of_a_metadata_file_are_described_by_its_name() -> None:
    images = [ImageFacts((64, 64), (64, 64), 2, "a, b")]
    subset = SubsetFacts(Path("img"), 2, images, metadata_file=Path("deep/meta.json"))
    dataset = DatasetFacts(1, (64, 64), False, None, None, [subset])
    model = ModelFacts("sd1", False, "model.safetensors")
    run = RunFacts(
        session_id=1, started_at=0.0, num_epochs=1, num_batches_per_epoch=2, max_train_steps=2, optimizer="o"
    )
    metadata = training_metadata(DEFAULTS, model, [dataset], run)
    (described,) = json.loads(metadata["ss_datasets"])
    assert described["is_dreambooth"] is False
    (part,) = described["subsets"]
    assert (part["metadata_file"], part["image_dir"], "is_reg" in part) == ("meta.json", "img", False)
    assert json.loads(metadata["ss_tag_frequency"]) == {"meta.json": {"a": 1, "b": 1}}
    assert json.loads(metadata["ss_dataset_dirs"]) == {"meta.json": {"n_repeats": 2, "img_count": 1}}
