"""From the options to a new word: its tokens, where its vectors start, and what its captions say."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from library.config.option import Origin, Settings
from library.config.spec import OPTIONS, declared, spec
from library.config.values import plugin_arguments
from library.data.dataset import Dataset
from library.errors import UserError
from library.models.embedding_files import read_embedding, usable_stem
from library.models.family import StableDiffusion
from library.models.placeholders import ExpandingConditioner, Placeholders, placeholder_tokens
from library.models.text import TextSpec
from library.sampling.prompts import SamplePrompt
from library.training.runtime.memory import MemorySpec
from library.training.saving.file_names import SavingSpec
from library.training.trained.caption_templates import CaptionSpec, TemplateBatches
from library.training.trained.initializers import EncoderContext, checked_vectors, create_initializer, starting_vectors
from library.training.trained.network import NetworkSpec
from library.training.trained.plugins import import_plugin
from library.training.trained.textual_inversion import EmbeddingRows, without_folders
from library.training.work import BatchSource

logger = logging.getLogger(__name__)

DEFAULTS = tuple(option.name for option in OPTIONS.values() if option.open_to_initializers)
"""Options for which an initializer may have a default of its own."""


@spec
class WordSpec:
    """The options of a new word; field names are the options'."""

    token_string: str | None = declared
    num_vectors_per_token: int = declared
    init_word: str | None = declared
    weights: Path | None = declared
    embedding_initializer: str = declared
    initializer_args: Sequence[str] | None = declared
    embedding_lr: float | None = declared
    learning_rate: float = declared
    embedding_start_step: int = declared
    embedding_stop_step: int | None = declared
    bundle_embeddings: bool = declared
    config_file: Path | None = declared

    @property
    def word(self) -> str:
        """Where one is trained."""
        assert self.token_string is not None
        return self.token_string

    @property
    def rate(self) -> float:
        """The learning rate of the vectors."""
        return self.learning_rate if self.embedding_lr is None else self.embedding_lr

    def numbers(self, widths: Iterable[int]) -> int:
        """How many the vectors are made of in all text encoders of these widths together; 0 where there is no word."""
        return 0 if self.token_string is None else self.num_vectors_per_token * sum(widths)


@dataclass(frozen=True)
class CheckedWord:
    """A new word as far as it is known to be good before a model is loaded."""

    initializer: Any
    arguments: Mapping[str, str]


def check_word(settings: Settings, dataset: Dataset) -> CheckedWord | None:
    """What can be wrong with a new word and takes no model to find out; None where none is trained.

    The initializer's own defaults are put into the settings where a person wrote nothing. Raises `UserError`.
    """
    spec, captions = settings.take(WordSpec), settings.take(CaptionSpec)
    if spec.token_string is None:
        return None
    tokens = placeholder_tokens(spec.token_string, spec.num_vectors_per_token)
    module = import_plugin(
        spec.embedding_initializer, "embedding_initializer", ("create_initializer",), spec.config_file
    )
    arguments = plugin_arguments(spec.initializer_args)
    initializer = create_initializer(module, arguments, settings.namespace())
    if spec.weights is not None and (count := read_embedding(spec.weights).count) != spec.num_vectors_per_token:
        raise UserError(
            f"`weights`: {spec.weights} holds {count} vectors, but `num_vectors_per_token` is "
            f"{spec.num_vectors_per_token}; set it to {count}"
        )
    apply_defaults(settings, getattr(initializer, "defaults", {}), module.__name__)
    if not captions.replaces_captions and not any(_names(spec.token_string, p.caption) for p in dataset.pictures):
        shown = next((repr(picture.caption) for picture in dataset.pictures if picture.caption), "they are empty")
        raise UserError(
            f"no caption names `{spec.token_string}` ({shown}), so nothing would be trained: write it into the "
            "captions, or set `use_object_template` or `caption_template`"
        )
    stem = settings.take(SavingSpec).last_stem
    if usable_stem(stem) != stem:
        raise UserError(
            f"`output_name` is {stem!r}, but the name of an embedding's file is a word of prompts in web UIs: only "
            f"letters, digits, `_`, `-` and `.` work there, as in {usable_stem(stem)!r}"
        )
    memory = settings.take(MemorySpec)
    if memory.full_fp16 or memory.full_bf16:
        logger.info(f"the vectors of {', '.join(tokens)} stay in float32, in which small steps are not lost")
    return CheckedWord(initializer, arguments)


def apply_defaults(settings: Settings, defaults: Mapping[str, Any], who: str) -> None:
    """Set what an initializer wants where a person set nothing, and say so.

    Its `learning_rate` is the vectors'; everything else counts only where no network is trained beside them.
    """
    unknown = [name for name in defaults if name not in DEFAULTS]
    if unknown:
        raise UserError(f"{who} has a default for `{unknown[0]}`; it may have one for {', '.join(DEFAULTS)}")
    alone = settings.take(NetworkSpec).network_module is None
    applied = []
    for name, value in defaults.items():
        if name == "learning_rate":
            open_ = not settings.explicit("embedding_lr") and not (alone and settings.explicit("learning_rate"))
            name = "embedding_lr"
        else:
            open_ = alone and not settings.explicit(name)
        if name == "max_train_steps" and settings.explicit("max_train_epochs"):
            open_ = False
        if open_:
            settings.values[name], settings.origins[name] = value, Origin("plugin")
            setattr(settings.namespace(), name, value)
            applied.append(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}")
    if applied:
        logger.info(f"{who} sets {', '.join(applied)}, which the options leave open")


def build_word(
    settings: Settings,
    checked: CheckedWord,
    model: StableDiffusion,
    device: torch.device,
    save_dtype: torch.dtype | None,
) -> tuple[EmbeddingRows, ExpandingConditioner]:
    """The vectors as a trainable, and the text encoders with the word in them. The model must be as it was loaded: a
    network on its text encoders would change where the vectors start."""
    spec, text = settings.take(WordSpec), settings.take(TextSpec)
    placeholders = Placeholders(model, spec.word, spec.num_vectors_per_token)
    conditioner = ExpandingConditioner(model, placeholders, **text.keywords)
    contexts = [
        EncoderContext(conditioner, placeholders, index, spec.init_word, settings.namespace())
        for index in range(len(model.text_encoders))
    ]
    if spec.weights is not None:
        starts = [checked_vectors(ctx.read_vectors(spec.weights), ctx, f"`weights` {spec.weights}") for ctx in contexts]
    else:
        starts = [starting_vectors(checked.initializer, ctx) for ctx in contexts]
        for line in getattr(checked.initializer, "notes", ()):
            logger.info(line)
    described = {
        "ss_embedding_initializer": "weights" if spec.weights else spec.embedding_initializer,
        "ss_initializer_args": without_folders(checked.arguments),
        "ss_clip_skip": str(text.clip_skip),
    }
    rows = EmbeddingRows(
        checked.initializer, contexts, starts, spec.rate, device, save_dtype=save_dtype, described=described
    )
    rows.start_step, rows.stop_step = spec.embedding_start_step, spec.embedding_stop_step
    return rows, conditioner


def with_templates(settings: Settings, batches: BatchSource, dataset: Dataset) -> BatchSource:
    """The batches, with captions made of templates where the options ask for it."""
    captions = settings.take(CaptionSpec)
    if not captions.replaces_captions:
        return batches
    return TemplateBatches(batches, dataset, captions, settings.take(WordSpec).word)


def about_the_word(prompts: Sequence[SamplePrompt], token_string: str) -> list[SamplePrompt]:
    """Sample prompts with the word where they leave a place for it, so that one file of prompts serves every word."""
    return [replace(prompt, prompt=prompt.prompt.replace("{}", token_string)) for prompt in prompts]


def _names(token_string: str, caption: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(token_string)}(?!\w)", caption) is not None
