"""Every option and key of the datasets, changed alone: batches, files, the VAE's work or a message change with it.

What a run sees in its first two steps is digested, so that an option that is read and does nothing cannot hide. A new
option without a value to try fails.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from library.config.checks import datasets_are_described
from library.config.dataset_keys import KEYS
from library.config.datasets import plan_datasets
from library.config.options.captions import CAPTIONS
from library.config.options.dataset import DATASET
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.options.validation import VALIDATION
from library.config.parse import parse
from library.data.batches import Batches
from library.data.dataset import build
from library.errors import UserError, raise_all
from library.models.family import Family
from library.models.text import TextConditioner
from library.training.processes import Processes
from library.training.sources import CacheSpec, latent_source, text_source
from miniworld.tiny import build as build_tiny

BASE: dict[str, Any] = {
    "dataset_config": "data.json",
    "resolution": 64,
    "enable_bucket": True,
    "min_bucket_reso": 32,
    "max_bucket_reso": 128,
    "bucket_reso_steps": 32,
    "train_batch_size": 6,
    "caption_extension": ".txt",
    "shuffle_caption": True,
    "validation_split": 0.2,
    "network_train_unet_only": True,
    "seed": 5,
}
SUBSETS: list[dict[str, Any]] = [{"image_dir": "one"}, {"image_dir": "reg", "is_reg": True}]

VALUES: dict[str, Any] = {
    "dataset_config": "other.json",
    "train_data_dir": "folders",
    "reg_data_dir": "folders",
    "prior_loss_weight": 0.5,
    "in_json": "meta.json",
    "metadata_file": "meta.json",
    "dataset_repeats": 2,
    "num_repeats": 2,
    "dataset_class": "mine.Images",
    "resolution": 96,
    "train_batch_size": 2,
    "batch_size": 2,
    "min_bucket_reso": 64,
    "max_bucket_reso": 64,
    "bucket_reso_steps": 16,
    "resize_interpolation": "nearest",
    "vae_batch_size": 3,
    "face_crop_aug_range": "1.5,2",
    "conditioning_data_dir": "masks",
    "caption_extension": ".caption",
    "keep_tokens": 1,
    "keep_tokens_separator": "|||",
    "caption_separator": ";",
    "secondary_separator": "+",
    "caption_prefix": "art of",
    "caption_suffix": "on paper",
    "caption_dropout_rate": 0.5,
    "caption_dropout_every_n_epochs": 1,
    "caption_tag_dropout_rate": 0.5,
    "token_warmup_min": 2,
    "token_warmup_step": 2,
    "max_token_length": 150,
    "clip_skip": 2,
    "validation_split": 0.5,
    "validation_seed": 3,
    "network_multiplier": 0.5,
    "custom_attributes": {"a": 1},
    "class_tokens": "thing",
    "image_dir": "two",
}
"""A value that is not the base's; flags are flipped."""

ELSEWHERE = {
    "debug_dataset": "what it shows instead of a training is tested in test_show.py",
    **dict.fromkeys(
        ("validate_every_n_steps", "validate_every_n_epochs", "max_validation_steps"),
        "when the loss is measured is tested with the training",
    ),
}


SIZES = [(80, 50), (45, 70), (134, 33), (100, 34)]

Outcome = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half transparent pictures of many shapes, in whose names and captions every option finds something."""
    root = tmp_path_factory.mktemp("pictures")
    for name, count in (("one", 8), ("two", 3), ("reg", 3), ("folders/2_cat", 3), ("masks", 8)):
        (root / name).mkdir(parents=True)
        for i in range(count):
            stem = root / name / (f"{i}_25_20_10_10" if name in ("one", "masks") else str(i))
            width, height = SIZES[i % len(SIZES)]
            pixels = np.random.default_rng(i).integers(0, 256, (height, width, 4), dtype=np.uint8)
            pixels[..., 3] = 90
            Image.fromarray(pixels, "RGBA").save(f"{stem}.png", compress_level=1)
            caption = f"(cat:1.2) {{{{x}}}}; {i}, red+blue ||| green, " + "a very long list of things, " * 12
            Path(f"{stem}.txt").write_text(caption)
    (root / "folders" / "2_cat" / "0.txt").unlink()
    (root / "one" / "3_25_20_10_10.txt").unlink()
    (root / "meta.json").write_text('{"one/0_25_20_10_10.png": {"caption": "from the file"}}')
    (root / "other.json").write_text('{"datasets": [{"subsets": [{"image_dir": "two"}]}]}')
    return root


@pytest.fixture(scope="module")
def outcome(folder: Path) -> Iterator[Outcome]:
    """What comes of a training config and a dataset description; of the same ones it is known from before."""
    model: Any = build_tiny(Family.SD1)
    encoded: list[int] = []
    known: dict[str, dict[str, Any]] = {}

    def outcome(config: dict[str, Any], description: dict[str, Any]) -> dict[str, Any]:
        content = json.dumps([config, description])
        if content not in known:
            encoded.clear()
            (folder / "data.json").write_text(json.dumps(description), encoding="utf-8")
            words = [f"--{k}={v}" for k, v in config.items() if v is not False and v is not True]
            words += [f"--{k}" for k, v in config.items() if v is True]
            before = set(folder.rglob("*.safetensors"))
            try:
                seen = _run([*words, "--output_dir=out"], model)
            except UserError as error:
                seen = {"error": str(error)}
            files = sorted(path.name for path in set(folder.rglob("*.safetensors")) - before)
            known[content] = seen | {"encoded": list(encoded), "files": files}
        return known[content]

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(model.vae, "encode", lambda images: (encoded.append(len(images)), block_means(images))[1])
        yield outcome


def block_means(images: torch.Tensor) -> Any:
    """In place of the VAE, which takes longer: the means of blocks of 8 x 8 pixels."""
    blocks = torch.nn.functional.avg_pool2d(images, 8)
    mean = torch.cat([blocks, blocks.mean(1, keepdim=True)], dim=1)
    return SimpleNamespace(latent_dist=SimpleNamespace(mean=mean, std=torch.full_like(mean, 0.1)))


def _run(words: list[str], model: Any) -> dict[str, Any]:
    settings = parse(words, *ALL_TRAIN_NETWORK, prog="", description="")
    raise_all(list(datasets_are_described(settings)))
    plan, out = plan_datasets(settings), settings["output_dir"]
    dataset = build(plan, prior_loss_weight=settings["prior_loss_weight"], fallback=out)
    caches = settings.take(CacheSpec)
    conditioner = TextConditioner(
        model,
        clip_skip=settings["clip_skip"],
        max_token_length=settings["max_token_length"],
        weighted=settings["weighted_captions"],
    )
    latents, lines = latent_source(caches, dataset, model, Processes(), out)
    with torch.no_grad():
        text = text_source(caches, dataset, conditioner, out, show=False)
    batches = Batches(dataset, latents, text, seed=settings["seed"], workers=0, total_steps=8)
    seen = []
    for (batch,) in islice(batches.epoch(1), 2):
        assert batch.hidden is not None
        tensors = (batch.latents, batch.hidden.hidden, batch.weights, batch.masks, batch.crops)
        digests = [None if t is None else hashlib.sha256(t.numpy().tobytes()).hexdigest() for t in tensors]
        seen.append((batch.sample_ids, batch.captions, digests))
    said = [*settings.warnings, *settings.effect_notes(), *dataset.warnings, *lines]
    return {"batches": seen, "said": said}


def changed(option: Any, base: Any) -> Any:
    """Another value than the base's; the test fails for an option that has none here."""
    return not base if option.is_flag else VALUES[option.name]


@pytest.mark.parametrize(
    "option", [o for o in (*DATASET, *CAPTIONS, *VALIDATION) if o.name not in ELSEWHERE], ids=lambda o: o.name
)
def test_an_option_changed_alone_changes_what_a_run_sees_writes_or_says(option: Any, outcome):
    description = {"datasets": [{"subsets": SUBSETS}]}
    value = changed(option, BASE.get(option.name, option.default))
    before = outcome(BASE, description)
    assert "error" not in before, before
    assert outcome({**BASE, option.name: value}, description) != before


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_a_key_of_the_description_changed_alone_does_too(key: Any, outcome):
    config = BASE | ({"masked_loss": True} if key.name == "conditioning_data_dir" else {})
    subsets = [dict(subset) for subset in SUBSETS]
    dataset: dict[str, Any] = {"subsets": subsets}
    before = outcome(config, {"datasets": [dataset]})
    assert "error" not in before, before
    place = dataset if "D" in key.levels else subsets[0]
    place[key.name] = changed(key.option, BASE.get(key.fallback, key.option.default))
    assert outcome(config, {"datasets": [dataset]}) != before


def test_the_same_again_is_the_same(outcome):
    """Without which the others would show nothing."""
    description = {"datasets": [{"subsets": SUBSETS}]}
    assert outcome(BASE, description) == outcome(dict(reversed(BASE.items())), description)
