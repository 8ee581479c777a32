"""Embeddings of new words: tokens, where they start, what captions become, and the files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch

from embeddings.near_start import cycled
from library.adapters.metadata import ModelFacts
from library.adapters.modelspec import modelspec
from library.config.option import Settings
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse
from library.errors import UserError
from library.models.embedding_files import embedding_of
from library.models.family import Family
from library.models.placeholders import ENCODER_NAMES, Placeholders, placeholder_tokens
from library.training.saving.file_names import SavingSpec
from library.training.setup.build import SAVED_AS
from library.training.trained.caption_templates import CaptionSpec
from miniworld.tiny import build
from tests.golden_table.comparison import Comparison

WIDTHS = {"emb_params": 768, "clip_l": 768, "clip_g": 1280}

UNDERSCORE = "further tokens are called WORD_1, WORD_2, as diffusers does (theirs: WORD1)"
WHOLE_WORDS = "the word is replaced where it stands as a word, not inside other words"
OWN_SENTENCES = "the sentences of the templates are our own"
NO_CHANCE = "a start without init_word is asked for; theirs is left to chance"
ONE_TEMPLATE = "two templates at once are refused; theirs takes that of objects"
OWN_NAME = "an embedding is called by output_name like every file, and is .safetensors unless asked otherwise"
DIFFERENT = {
    "modelspec.implementation": "embeddings, like networks, are said to be for diffusers",
    "modelspec.implementation_version": "it names this software",
}


def textual_inversion(data: dict[str, Any]) -> Iterator[Comparison]:
    tokens = Comparison("tokens of a word, and rows of the vocabulary that they start from")
    captions = Comparison("captions with the word in them")
    files = Comparison("tensors of the files, and their names")
    headers = Comparison("every entry of the headers")
    for run in data["runs"]:
        settings = settings_of(run)
        name = f"{run['token_string']} {' '.join(run['options'])}"
        count = settings["num_vectors_per_token"] or 1
        if not run["completed"]:
            tokens.add(name, "ours" if placeholders(run["token_string"], count) else "refused", "refused")
            continue
        compare_tokens(tokens, name, run, count)
        compare_captions(captions, name, run, settings, count)
        compare_files(files, name, run, settings, count)
        compare_headers(headers, name, run, settings)
    yield from (tokens, captions, files, headers)


def settings_of(run: dict[str, Any]) -> Settings:
    argv = ["--output_dir", "out", "--token_string", run["token_string"], *run["options"]]
    return parse(argv, *ALL_TRAIN_NETWORK, prog=run["script"], description="")


@cache
def placeholders(word: str, count: int) -> Placeholders | None:
    """The word in a small model; None where it is refused."""
    try:
        return Placeholders(build(Family.SD1), word, count)
    except UserError:
        return None


def compare_tokens(c: Comparison, name: str, run: dict[str, Any], count: int) -> None:
    for encoder, (added, facts) in enumerate(zip(run["added_tokens"], run["per_encoder"], strict=True)):
        ours = placeholder_tokens(run["token_string"], count)
        c.add(f"{name}: tokens of {encoder}", ours, list(added), UNDERSCORE if count > 1 else None)
        ids = facts["init_word_ids"]
        start = "refused" if ids is None else cycled(ids, count)
        c.add(f"{name}: start of {encoder}", start, facts["initialised_from_ids"], NO_CHANCE if ids is None else None)


def compare_captions(c: Comparison, name: str, run: dict[str, Any], settings: Settings, count: int) -> None:
    word = run["token_string"]
    found = placeholders(word, count)
    assert found is not None
    for caption, theirs in run["caption_examples"] or ():
        ours = re.sub(rf"\b{word}_(\d+)", rf"{word}\1", found.expand(caption))  # tokens' names are compared above
        inside = re.search(rf"\w{word}|{word}\w", caption) is not None
        c.add(f"{name}: {caption}", ours, theirs, WHOLE_WORDS if inside and ours != theirs else None)
    for _, told in (pair for pair in run["replacement"] if isinstance(pair[1], dict)):
        if settings["use_object_template"] and settings["use_style_template"]:
            c.add(f"{name}: templates", "refused", told["number_of_templates"], ONE_TEMPLATE)
            continue
        templates = settings.take(CaptionSpec).templates
        c.add(f"{name}: number of templates", len(templates), told["number_of_templates"], OWN_SENTENCES)
        expanded = [found.expand(template.replace("{}", word)) for template in templates]
        c.add(f"{name}: all tokens", all(found.text in text for text in expanded), told["all_contain_all_tokens"])


def compare_files(c: Comparison, name: str, run: dict[str, Any], settings: Settings, count: int) -> None:
    family = family_of(run)
    dtype = SAVED_AS[settings["save_precision"]] or torch.float32
    names = ENCODER_NAMES[family]
    widths = [WIDTHS[encoder] for encoder in names]
    vectors = embedding_of(names, [torch.zeros(count, width) for width in widths], run["token_string"]).vectors
    ours = {key: [list(tensor.shape), str(dtype).removeprefix("torch.")] for key, tensor in sorted(vectors.items())}
    kinds = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    for file, content in run["files"].items():
        theirs = {k: [t["shape"], kinds.get(t["dtype"], t["dtype"])] for k, t in content["tensors"].items()}
        c.add(f"{name}: {file}", ours, theirs)
    spec = settings.take(SavingSpec)
    last = spec.file(spec.last_stem).name
    is_named = "--output_name" in run["options"]
    c.add(f"{name}: name", last, list(run["files"])[-1], None if is_named else OWN_NAME)


def compare_headers(c: Comparison, name: str, run: dict[str, Any], settings: Settings) -> None:
    model = ModelFacts(family_of(run).value, False, "base")  # pyright: ignore[reportArgumentType]
    title = run["token_string"] if settings["output_name"] is None else settings["output_name"]
    for file, content in run["files"].items():
        theirs = content.get("metadata", {})
        if not theirs:
            continue
        sides = [int(side) for side in theirs["modelspec.resolution"].split("x")]
        resolution, date = (sides[0], sides[1]), datetime(2026, 1, 2)
        ours = modelspec(
            settings.values, model, kind="textual-inversion", title=title, resolution=resolution, date=date
        )
        c.add(f"{name}: entries of {file}", sorted(ours), sorted(theirs))
        for entry, recorded in theirs.items():
            if entry != "modelspec.date":
                c.add(f"{name}: {file} {entry}", ours[entry], recorded, DIFFERENT.get(entry))


def family_of(run: dict[str, Any]) -> Family:
    return Family.SDXL if Path(run["script"]).name.startswith("sdxl") else Family.SD1
