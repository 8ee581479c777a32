"""What a run leaves: the names of its files, and what they say of it."""

from __future__ import annotations

import json
import tempfile
import tomllib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from library.adapters.metadata import (
    DatasetFacts,
    ImageFacts,
    ModelFacts,
    RunFacts,
    SubsetFacts,
    minimum_metadata,
    saving_metadata,
    training_metadata,
    with_hashes,
)
from library.adapters.modelspec import modelspec
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.data.buckets import Buckets
from library.training.clock import Clock, total_steps
from library.training.saving.file_names import SavingSpec, due_stems, outdated
from tests.golden_table.comparison import Comparison

DEFAULTS = {option.name: option.default for group in ALL_TRAIN_NETWORK for option in group}

DIFFERENT = {
    "ss_sd_scripts_commit_hash": "it names this software",
    "modelspec.implementation_version": "it names this software",
    "ss_network_dim": "the rank in use, where the options leave it open (theirs: None)",
    "modelspec.resolution": "the datasets' own, also when a dataset config sets it (theirs: the family's default)",
    "ss_network_args": "without the dropout that their trainer adds",
}
VOLATILE = {
    "ss_session_id", "ss_training_started_at", "ss_training_finished_at", "modelspec.date", "modelspec.title",
    "sshs_model_hash", "sshs_legacy_hash",
}  # fmt: skip


def file_names(data: dict[str, Any]) -> Iterator[Comparison]:
    names = Comparison("files and states that a run leaves")
    for run in data["runs"]:
        length = total_steps(run["steps_per_epoch"], run["max_train_steps"], run["max_train_epochs"])
        left = left_behind(saving_spec(run), Clock(run["steps_per_epoch"], length))
        names.add(run["label"], sorted(left), sorted(run["output_dir_top_level"]))
    yield names


def saving_spec(run: dict[str, Any]) -> SavingSpec:
    values: dict[str, Any] = {}
    words = run["options"]
    for i, word in enumerate(words):
        if word.startswith("--"):
            following = words[i + 1] if i + 1 < len(words) and not words[i + 1].startswith("--") else None
            values[word[2:]] = True if following is None else int(following) if following.isdigit() else following
    return SavingSpec(output_dir=Path("out"), output_name=run["output_name"], **values)


def left_behind(spec: SavingSpec, clock: Clock) -> set[str]:
    """The names that a run of the clock's length leaves in its folder."""
    files: set[str] = set()
    while not clock.finished:
        clock.tick()
        for stem in due_stems(spec, clock):
            files.add(spec.file(stem).name)
            if spec.save_state:
                files.add(spec.state(stem).name + "/")
        old_files, old_states = outdated(spec, clock)
        files -= {spec.file(stem).name for stem in old_files} | {path.name + "/" for path in old_states}
    files.add(spec.file(spec.last_stem).name)
    if spec.save_state or spec.save_state_on_train_end:
        files.add(spec.state(spec.last_stem).name + "/")
    return files


def metadata_of_runs(data: dict[str, Any]) -> Iterator[Comparison]:
    for name, case in data["cases"].items():
        described = bool(case.get("dataset_toml"))
        datasets = [described_dataset(case)] if described else [folder_dataset(case)]
        ours, theirs = header(case, datasets, datasets_from_config=described)
        c = Comparison(f"every entry of {name}")
        c.add("names of the entries", sorted(ours), sorted(theirs))
        for entry in theirs:
            if entry not in VOLATILE:
                mine, recorded = parsed(ours.get(entry, "")), parsed(theirs[entry])
                c.add(entry, mine, recorded, DIFFERENT.get(entry) if mine != recorded else None)
        yield c


def metadata_of_families(data: dict[str, Any]) -> Iterator[Comparison]:
    c = Comparison("how each family and prediction type is named")
    for name, case in data["cases"].items():
        theirs = list(case["checkpoints"].values())[-1]["metadata"]
        settings = settings_of(case)
        family: Any = name.split("_")[0]
        model = ModelFacts(family, theirs["modelspec.prediction_type"] == "v", "base")
        size = (128, 192)
        spec = modelspec(settings, model, kind="lora", title=f"x{name}", resolution=size, date=datetime(2026, 1, 2))
        names = sorted(key for key in theirs if key.startswith("modelspec."))
        c.add(f"{name} entries", sorted(spec), names)
        for entry in names:
            if entry != "modelspec.date":
                because = DIFFERENT.get(entry) if spec[entry] != theirs[entry] else None
                c.add(f"{name} {entry}", spec[entry], theirs[entry], because)
        c.add(f"{name} version", model.version, theirs["ss_base_model_version"])
        facts = training_metadata(settings, model, [], run_facts(case, theirs))
        c.add(f"{name} v2", facts["ss_v2"], theirs["ss_v2"])
    yield c


def settings_of(case: dict[str, Any]) -> dict[str, Any]:
    """The values that their parser had: defaults, and the tables of the TOML flattened."""
    values = dict(DEFAULTS)
    for key, value in tomllib.loads(case["config_toml"]).items():
        values |= value if isinstance(value, dict) else {key: value}
    return values


def folder_dataset(case: dict[str, Any]) -> DatasetFacts:
    settings = settings_of(case)
    numbers = [int(n) for n in str(settings["resolution"]).split(",")]
    resolution = (numbers[0], numbers[-1])
    limits = settings["min_bucket_reso"], settings["max_bucket_reso"], settings["bucket_reso_steps"]
    rule = Buckets(resolution, bool(settings["enable_bucket"]), *limits, bool(settings["bucket_no_upscale"]))
    folders: dict[str, list[ImageFacts]] = {}
    for file in case["files"]:
        folder = Path(file["path"]).parent.name
        repeats, class_tokens = folder.split("_", 1)
        size = (file["size"][0], file["size"][1])
        bucket = rule.choose(size).bucket
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


def described_dataset(case: dict[str, Any]) -> DatasetFacts:
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


def run_facts(case: dict[str, Any], theirs: dict[str, str], **more: Any) -> RunFacts:
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


def header(case: dict[str, Any], datasets: list[DatasetFacts], **more: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Our metadata of a recorded run, and theirs."""
    theirs = list(case["checkpoints"].values())[-1]["metadata"]
    settings = settings_of(case)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder, "base.safetensors")  # its bytes are all that enters the metadata
        base.write_bytes(bytes((131 * k + k // 4096) % 251 for k in range(2097152)))
        family = "sdxl" if case["script"].startswith("sdxl") else "sd1"
        model = ModelFacts(family, bool(settings["v_parameterization"]), str(base))
        metadata = training_metadata(settings, model, datasets, run_facts(case, theirs, network_dim=4, **more))
    epoch, steps = int(theirs.get("ss_epoch", 0)), int(theirs.get("ss_steps", 0))
    ours = saving_metadata(metadata, epoch=epoch, steps=steps, finished_at=3.5)
    if settings["no_metadata"]:
        ours = minimum_metadata(ours)
    spec = modelspec(
        settings, model, kind="lora", title="LoRA@2", resolution=datasets[0].resolution, date=datetime(2026, 1, 2)
    )
    return with_hashes({}, ours | spec), theirs


def parsed(value: str) -> Any:
    """What a reader makes of it: JSON and numbers ("1" is "1.0") by value, anything else as text."""
    try:
        return json.loads(value)
    except ValueError:
        return value
