"""`python -m embeddings init`: write the vectors that training would start from, and nothing else.

The file starts a training in other programs, for instance sd-scripts' train_textual_inversion.py --weights, or is used
as it is. Options are those of train_network.py, so that its TOML files can be given as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from library.config.checks import model_files_exist, there_is_a_model
from library.config.option import Group, Option, Settings
from library.config.options.embeddings import EMBEDDINGS
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.parse import parse
from library.config.values import plugin_arguments
from library.console import show
from library.errors import Problem, UserError

logger = logging.getLogger(__name__)

# fmt: off
OUTPUT = Group("What is written", (
    Option("output",                     Path,  None,  "the file, which ends in .safetensors, .pt or .bin"),
    Option("layout",                     str,   "kohya", "layout of the file",
           choices=("kohya", "diffusers", "a1111", "split")),
    Option("overwrite",                  bool,  False, "replace the file if it is there already"),
))
# fmt: on


def _rest_of_training() -> Iterator[Group]:
    """What training reads beside the embedding's options, so that its TOML files have no unknown keys here."""
    own = {option.name for option in OUTPUT}
    for group in ALL_TRAIN_NETWORK:
        if group.title != EMBEDDINGS.title:
            yield Group(group.title, [option for option in group if option.name not in own])


def init(argv: Sequence[str]) -> None:
    settings = parse(
        argv,
        OUTPUT,
        EMBEDDINGS,
        *_rest_of_training(),
        prog="python -m embeddings init",
        description=str(__doc__),
        checks=(problems,),
    )
    for line in settings.warnings:
        logger.info(line)
    write_start(settings)


def problems(settings: Settings) -> list[Problem]:
    return [*there_is_a_model(settings), *model_files_exist(settings), *something_is_asked(settings)]


def something_is_asked(settings: Settings) -> Iterator[Problem]:
    if settings["token_string"] is None:
        yield Problem("`token_string` is not set: the new word, such as zwx_face.")
    if settings["output"] is None:
        yield Problem("`output` is not set: the file to write, such as init.safetensors.")
    elif settings["output"].exists() and not settings["overwrite"]:
        yield Problem(f"{settings.place('output')}: {already_there(settings['output'])}")


def already_there(file: Path) -> str:
    return f"{file} exists already; give another name, or add --overwrite to replace it."


def write_start(settings: Settings) -> None:
    """Load the model, ask the initializer, and write its vectors."""
    import torch

    from library.models.embedding_files import embedding_of, write_embedding
    from library.models.load import load_model
    from library.models.placeholders import Placeholders
    from library.models.text import TextConditioner
    from library.training.trained.initializers import EncoderContext, create_initializer, starting_vectors
    from library.training.trained.plugins import import_plugin

    name = settings["embedding_initializer"]
    module = import_plugin(name, "embedding_initializer", ("create_initializer",))
    arguments = plugin_arguments(settings["initializer_args"])
    initializer = create_initializer(module, arguments, settings.namespace())
    if settings["output"].suffix.lower() not in (".safetensors", ".pt", ".bin", ".ckpt"):
        raise UserError(f"`output` is {settings['output']}, but must end in .safetensors, .pt or .bin")
    model = load_model(
        settings["pretrained_model_name_or_path"],
        dtype=torch.float32,
        tokenizer_cache_dir=settings["tokenizer_cache_dir"],
    )
    conditioner = TextConditioner(model, clip_skip=settings["clip_skip"])
    placeholders = Placeholders(model, settings["token_string"], settings["num_vectors_per_token"])
    contexts = [
        EncoderContext(conditioner, placeholders, index, settings["init_word"], settings.namespace())
        for index in range(len(model.text_encoders))
    ]
    starts = [starting_vectors(initializer, ctx) for ctx in contexts]
    for line in getattr(initializer, "notes", ()):
        logger.info(line)
    metadata = {
        "ss_token_string": placeholders.token_string,
        "ss_num_vectors": str(len(placeholders.tokens)),
        "ss_embedding_initializer": name,
    }
    metadata |= initializer.metadata() if hasattr(initializer, "metadata") else {}
    embedding = embedding_of(placeholders.names, starts, placeholders.token_string)
    for file in write_embedding(settings["output"], embedding, settings["layout"], metadata):
        show(f"Wrote {file}")
    for ctx, start in zip(contexts, starts, strict=True):
        norms = ", ".join(f"{norm:.2f}" for norm in start.norm(dim=-1).tolist())
        show(f"  {ctx.name}: {ctx.num_vectors} vectors of {ctx.hidden_size} numbers, norms {norms}")
