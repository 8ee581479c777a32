"""The header of a network's file against runs of kohya-ss/sd-scripts, commit 48d368fa: same keys, same values.

What differs on purpose is listed with its reason.
"""

from __future__ import annotations

import base64
import gzip
import json
import tomllib
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from library.adapters.metadata import (
    DatasetFacts,
    ImageFacts,
    ModelFacts,
    RunFacts,
    SubsetFacts,
    bucket_info,
    minimum_metadata,
    saving_metadata,
    software_version,
    tag_frequency,
    training_metadata,
    with_hashes,
)
from library.adapters.modelspec import modelspec, thumbnail
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.errors import UserError

GOLDEN = Path(__file__).parents[2] / "golden"
DEFAULTS = {option.name: option.default for group in ALL_TRAIN_NETWORK for option in group}


def golden(name: str) -> dict[str, Any]:
    return json.loads(gzip.decompress((GOLDEN / f"{name}.json.gz").read_bytes()))["cases"]


CASES = golden("metadata_sd15")
FAMILIES = golden("metadata_families")

DIFFERENT = {
    "ss_sd_scripts_commit_hash": "names this software",
    "modelspec.implementation_version": "names this software",
    "ss_network_dim": "the rank in use, where the options leave it open (theirs: None)",
    "modelspec.resolution": "the datasets' own, also when a dataset config sets it (theirs: the family's default)",
    "ss_network_args": "without the dropout that their trainer adds",
}
VOLATILE = {
    "ss_session_id", "ss_training_started_at", "ss_training_finished_at", "modelspec.date", "modelspec.title",
    "sshs_model_hash", "sshs_legacy_hash",
}  # fmt: skip


def settings_of(case: dict) -> dict[str, Any]:
    """The values that their parser had: defaults, and the tables of the TOML flattened."""
    values = dict(DEFAULTS)
    for key, value in tomllib.loads(case["config_toml"]).items():
        values |= value if isinstance(value, dict) else {key: value}
    return values


def folder_dataset(case: dict, buckets: dict[str, tuple[int, int]]) -> DatasetFacts:
    settings = settings_of(case)
    numbers = [int(n) for n in str(settings["resolution"]).split(",")]
    resolution = (numbers[0], numbers[-1])
    folders: dict[str, list[ImageFacts]] = {}
    for file in case["files"]:
        folder = Path(file["path"]).parent.name
        repeats, class_tokens = folder.split("_", 1)
        size = (file["size"][0], file["size"][1])
        bucket = buckets.get(Path(file["path"]).name, size)
        folders.setdefault(folder, []).append(ImageFacts(size, bucket, int(repeats), file["caption"] or class_tokens))
    enable = bool(settings["enable_bucket"])
    return DatasetFacts(
        batch_size=settings["train_batch_size"],
        resolution=resolution,
        enable_bucket=enable,
        min_bucket_reso=settings["min_bucket_reso"] if enable else None,
        max_bucket_reso=settings["max_bucket_reso"] if enable else None,
        subsets=[SubsetFacts(Path("train", name), int(name.split("_")[0]), images) for name, images in folders.items()],
    )


def run_facts(case: dict, theirs: dict, **more: Any) -> RunFacts:
    arguments = dict(entry.split("=", 1) for entry in settings_of(case).get("network_args") or [])
    return RunFacts(
        session_id=1,
        started_at=2.5,
        num_epochs=int(theirs["ss_num_epochs"]) if "ss_num_epochs" in theirs else 1,
        num_batches_per_epoch=int(theirs.get("ss_num_batches_per_epoch", 1)),
        max_train_steps=int(theirs.get("ss_max_train_steps", 1)),
        optimizer=theirs.get("ss_optimizer", ""),
        network_args=arguments,
        **more,
    )


def compare(ours: dict[str, str], theirs: dict[str, str]) -> None:
    assert set(ours) == set(theirs)
    assert all(isinstance(value, str) for value in ours.values())
    for name in set(theirs) - VOLATILE - set(DIFFERENT):
        assert parsed(ours[name]) == parsed(theirs[name]), name


def parsed(value: str) -> Any:
    """What a reader makes of it: JSON and numbers ("1" is "1.0") by value, anything else as text."""
    try:
        return json.loads(value)
    except ValueError:
        return value


@pytest.fixture(scope="module")
def base_model(tmp_path_factory) -> Path:
    """The recorded runs' base model: its bytes are all that enters the metadata."""
    path = tmp_path_factory.mktemp("model") / "base.safetensors"
    path.write_bytes(bytes((131 * k + k // 4096) % 251 for k in range(2097152)))
    return path


BUCKETS = {
    "sd15_folder": {"img00.png": (128, 128), "img01.png": (128, 128), "img02.png": (256, 64), "img03.png": (64, 192)},
    "sd15_vpred_options": {"img00.png": (128, 128), "img01.png": (64, 128), "img02.png": (192, 64)},
}


def whole_header(case: dict, base_model: Path, datasets: list[DatasetFacts], **more: Any) -> tuple[dict, dict]:
    theirs = list(case["checkpoints"].values())[-1]["metadata"]
    settings = settings_of(case)
    model = ModelFacts("sd1", bool(settings["v_parameterization"]), str(base_model))
    metadata = training_metadata(settings, model, datasets, run_facts(case, theirs, network_dim=4, **more))
    epoch, steps = int(theirs.get("ss_epoch", 0)), int(theirs.get("ss_steps", 0))
    ours = saving_metadata(metadata, epoch=epoch, steps=steps, finished_at=3.5)
    if settings["no_metadata"]:
        ours = minimum_metadata(ours)
    spec = modelspec(
        settings, model, kind="lora", title="LoRA@2", resolution=datasets[0].resolution, date=datetime(2026, 1, 2)
    )
    return with_hashes({}, ours | spec), theirs


@pytest.mark.parametrize("name", ["sd15_folder", "sd15_no_metadata", "sd15_defaults", "sd15_vpred_options"])
def test_a_run_on_folders_says_what_kohyas_says(name, base_model):
    case = CASES[name]
    dataset = folder_dataset(case, BUCKETS.get(name, {}))
    ours, theirs = whole_header(case, base_model, [dataset], datasets_from_config=False)
    compare(ours, theirs)
    if name == "sd15_folder":
        assert ours["modelspec.title"] == theirs["modelspec.title"] == "Demo title"
        assert json.loads(ours["ss_network_args"]) == {"conv_dim": "2", "conv_alpha": "1"}
    if name != "sd15_no_metadata":
        assert ours["ss_network_dim"] == "4"  # given by the run


def described_dataset(case: dict) -> DatasetFacts:
    options = {
        "color_aug": False, "flip_aug": False, "random_crop": False, "shuffle_caption": False, "keep_tokens": 1,
        "keep_tokens_separator": "", "enable_wildcard": False,
    }  # fmt: skip
    images: dict[str, list[ImageFacts]] = {}
    for file in case["files"]:
        folder = Path(file["path"]).parent.name
        bucket = (256, 64) if file["size"] == [250, 70] else (128, 128)
        repeats = {"one": 2, "two": 1, "reg": 2}[folder]  # regularisation images fill up to the training images
        size = (file["size"][0], file["size"][1])
        images.setdefault(folder, []).append(ImageFacts(size, bucket, repeats, file["caption"] or "blue"))
    subsets = [
        SubsetFacts(Path("data/one"), 2, images["one"], class_tokens="red", options=options),
        SubsetFacts(Path("data/two"), 1, images["two"], options=options | {"flip_aug": True, "caption_prefix": "pfx"}),
        SubsetFacts(Path("data/reg"), 1, images["reg"], is_reg=True, class_tokens="blue", options=options),
    ]
    return DatasetFacts(2, (128, 128), True, 64, 256, subsets)


def test_a_run_on_a_dataset_config_describes_every_dataset_and_subset(base_model):
    case = CASES["sd15_dataset_config"]
    ours, theirs = whole_header(case, base_model, [described_dataset(case)])
    compare(ours, theirs)
    assert ours["modelspec.resolution"] == "128x128"


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_named_as_kohyas_trainers_name_it(name):
    case = FAMILIES[name]
    theirs = list(case["checkpoints"].values())[-1]["metadata"]
    settings = settings_of(case)
    family: Any = name.split("_")[0]
    model = ModelFacts(family, theirs["modelspec.prediction_type"] == "v", "base")
    spec = modelspec(settings, model, kind="lora", title=f"x{name}", resolution=(128, 192), date=datetime(2026, 1, 2))
    names = {key for key in theirs if key.startswith("modelspec.")}
    if name == "sd1_v":
        spec["modelspec.resolution"] = "128x128"
    assert set(spec) == names
    volatile = {"modelspec.date", "modelspec.implementation_version"}
    assert {key: spec[key] for key in names - volatile} == {key: theirs[key] for key in names - volatile}
    assert model.version == theirs["ss_base_model_version"]
    facts = training_metadata(settings, model, [], run_facts(case, theirs))
    assert facts["ss_v2"] == theirs["ss_v2"]


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
