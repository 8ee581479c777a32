"""What the files of a run say of it."""

from __future__ import annotations

import json
import os
import tempfile
import tomllib
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from library.adapters.metadata import (
    DatasetFacts,
    ModelFacts,
    RunFacts,
    minimum_metadata,
    saving_metadata,
    training_metadata,
    with_hashes,
)
from library.adapters.modelspec import modelspec
from library.config.datasets import plan_datasets
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse
from library.data.dataset import build
from library.training.saving.fingerprint import dataset_facts
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
    "ss_session_id", "ss_training_started_at", "ss_training_finished_at", "modelspec.date",
    "sshs_model_hash", "sshs_legacy_hash",
}  # fmt: skip


def metadata_of_runs(data: dict[str, Any]) -> Iterator[Comparison]:
    for name, case in data["cases"].items():
        described = bool(case.get("dataset_toml"))
        ours, theirs = header(case, datasets_of(case), datasets_from_config=described)
        c = Comparison(f"every entry of {name}")
        c.add("names of the entries", sorted(ours), sorted(theirs))
        for entry in theirs:
            if entry not in VOLATILE and "<" not in theirs[entry][:7]:
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


def datasets_of(case: dict[str, Any]) -> list[DatasetFacts]:
    """What our own reading of the case's config and dataset description makes of its files, written anew."""
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        for file in case["files"]:
            image = Path(folder, file["path"])
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", tuple(file["size"])).save(image)
            if file["caption_file"]:
                Path(folder, file["caption_file"]).write_text(file["caption"], encoding="utf-8")
        os.chdir(folder)  # the recorded paths are relative
        try:
            Path("config.toml").write_text(case["config_toml"], encoding="utf-8")
            if case.get("dataset_toml"):
                name = settings_of(case)["dataset_config"]
                Path(name).write_text(case["dataset_toml"], encoding="utf-8")
            settings = parse(case["command_line"], *ALL_TRAIN_NETWORK, prog=case["script"], description="")
            dataset = build(plan_datasets(settings), prior_loss_weight=settings["prior_loss_weight"])
            return dataset_facts(dataset)
        finally:
            os.chdir(here)


def title_of(settings: dict[str, Any]) -> str:
    """A file's title, where it holds no time."""
    return settings["metadata_title"] or settings["output_name"] or "LoRA@2"


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


@cache
def base_model() -> bytes:
    """The file that the recorded runs were given for their base model."""
    return bytes((131 * k + k // 4096) % 251 for k in range(2097152))


def header(case: dict[str, Any], datasets: list[DatasetFacts], **more: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Our metadata of a recorded run, and theirs."""
    theirs = list(case["checkpoints"].values())[-1]["metadata"]
    settings = settings_of(case)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder, "base.safetensors")  # its bytes are all that enters the metadata
        base.write_bytes(base_model())
        family = "sdxl" if case["script"].startswith("sdxl") else "sd1"
        model = ModelFacts(family, bool(settings["v_parameterization"]), str(base))
        metadata = training_metadata(
            settings, model, datasets, run_facts(case, theirs, network_dim=settings["network_dim"] or 4, **more)
        )
    epoch, steps = int(theirs.get("ss_epoch", 0)), int(theirs.get("ss_steps", 0))
    ours = saving_metadata(metadata, epoch=epoch, steps=steps, finished_at=3.5)
    if settings["no_metadata"]:
        ours = minimum_metadata(ours)
    spec = modelspec(
        settings,
        model,
        kind="lora",
        title=title_of(settings),
        resolution=datasets[0].resolution,
        date=datetime(2026, 1, 2),
    )
    return with_hashes({}, ours | spec), theirs


def parsed(value: str) -> Any:
    """What a reader makes of it: JSON and numbers ("1" is "1.0") by value, anything else as text."""
    try:
        return json.loads(value)
    except ValueError:
        return value
