"""The host of a kohya network module: builds a network on a model by the contract's calls in their order."""

from __future__ import annotations

import contextlib
import logging
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from library.adapters.names import from_file_names
from library.adapters.peft_names import tells_sdxl, with_kohya_names
from library.config.spec import declared, spec
from library.errors import UserError
from library.files import Tensors, is_finite, read_tensors, temporary_tensors
from library.kohya_names import creating
from library.models.embedding_files import BUNDLE, bundled_words
from library.models.family import StableDiffusion
from library.models.float8 import unchanged_by
from library.training.trainables import Movement
from library.training.trained.network_contract import OptionalOfModule, OptionalOfNetwork, offered
from library.training.trained.plugins import check_call, taken, telling

logger = logging.getLogger(__name__)

SOON_READ = 2**30
"""Bytes of weights that are read within a second or two."""


@spec
class NetworkSpec:
    """The options that shape a network; field names are the options'."""

    network_module: str | None = declared
    network_dim: int | None = declared
    network_alpha: float = declared
    network_dropout: float | None = declared
    network_weights: Path | None = declared
    dim_from_weights: bool = declared
    base_weights: Sequence[Path] | None = declared
    base_weights_multiplier: Sequence[float] | None = declared
    network_train_unet_only: bool = declared
    network_train_text_encoder_only: bool = declared
    scale_weight_norms: float | None = declared
    network_start_step: int = declared
    gradient_checkpointing: bool = declared


def text_encoder_argument(model: StableDiffusion) -> nn.Module | list[nn.Module]:
    """What the contract calls `text_encoder`: the module itself, or a list where a model has several."""
    return model.text_encoders[0] if len(model.text_encoders) == 1 else list(model.text_encoders)


def merge_base_weights(module: ModuleType, spec: NetworkSpec, model: StableDiffusion, dtype: torch.dtype) -> list[str]:
    """Merge `base_weights` into the base model before anything is trained; returns a line for each file."""
    lines = []
    text_encoder = text_encoder_argument(model)
    multipliers = list(spec.base_weights_multiplier or ())
    for i, path in enumerate(spec.base_weights or ()):
        multiplier = multipliers[i] if i < len(multipliers) else 1.0
        with named_for_modules(path, model) as file, telling(f"{module.__name__}, `base_weights = {path}`"):
            parts = (multiplier, str(file), model.vae, text_encoder, model.unet)
            network, weights = _from_weights(module, "base_weights", *parts, for_inference=True)
        merge_to = offered(network, OptionalOfNetwork.merge_to)
        if merge_to is None:
            raise UserError(f"`base_weights` needs a network module with merge_to(), which {module.__name__} has not")
        merge_to(text_encoder, model.unet, weights, dtype, "cpu")
        lines.append(f"merged {path} into the base model at {multiplier:g}")
    return lines


def create_network(
    module: ModuleType,
    spec: NetworkSpec,
    arguments: dict[str, str],
    model: StableDiffusion,
    options: Namespace,
) -> nn.Module:
    """A network on `model`, by the contract's calls in their order, with its weights loaded; hooks are in place.

    `options` is the live namespace that `prepare_network` gets; what loading weights gave is logged. Raises
    `UserError` where the module declines.
    """
    text_encoder = text_encoder_argument(model)
    if spec.dim_from_weights:
        assert spec.network_weights is not None  # checked with the options
        with named_for_modules(spec.network_weights, model) as file, telling(module.__name__):
            parts = (1, str(file), model.vae, text_encoder, model.unet)
            network, _ = _from_weights(module, "dim_from_weights", *parts, **arguments)
    else:
        # LyCORIS reads `dropout` where kohya's own modules read `neuron_dropout`.
        dropouts = {"neuron_dropout": spec.network_dropout, "dropout": spec.network_dropout}
        keywords = taken(module.create_network, dropouts) | arguments
        parts = (1.0, spec.network_dim, spec.network_alpha, model.vae, text_encoder, model.unet)
        check_call(module.create_network, *parts, **keywords)
        with telling(module.__name__), creating(module, model.unet):
            network = module.create_network(*parts, **keywords)
    if network is None:
        raise UserError(f"{module.__name__} made no network from these options (create_network returned None)")
    if prepare := offered(network, OptionalOfNetwork.prepare_network):
        prepare(options)
    with unchanged_by(module.__name__, model.unet), telling(module.__name__):
        network.apply_to(
            text_encoder, model.unet, not spec.network_train_unet_only, not spec.network_train_text_encoder_only
        )
    if not any(True for _ in network.parameters()):
        raise UserError(
            f"{module.__name__} made a network without a single layer for this model: its network_args (such as "
            "`preset`), or network_train_unet_only, leave it none"
        )
    if spec.network_weights is not None:
        # A ValueError is what modules raise for a file of another architecture.
        with (
            named_for_modules(spec.network_weights, model) as file,
            telling(f"`network_weights = {spec.network_weights}`"),
        ):
            before = Movement(dict(network.named_parameters()))
            found = network.load_weights(str(file))
            if not spec.dim_from_weights and before.measure()[0] == 0:  # made from the file, it may have taken them
                raise UserError(
                    f"`network_weights = {spec.network_weights}`: {module.__name__} took nothing of it ({found}); the "
                    "file is of another network module or model, or its module cannot read what it writes"
                )
            logger.info(f"started from {spec.network_weights}: {found}")
        for word in bundled_words(spec.network_weights):
            logger.info(
                f"{spec.network_weights} carries vectors of the word `{word}`, which a network does not read; to train "
                f"with them, give `token_string = {word}` and the file as `weights`"
            )
    if spec.scale_weight_norms and not offered(network, OptionalOfNetwork.apply_max_norm_regularization):
        logger.info(f"`scale_weight_norms` has no effect: {module.__name__} does not offer it")
    enable = offered(network, OptionalOfNetwork.enable_gradient_checkpointing)
    if spec.gradient_checkpointing and enable:
        enable()
    return network


def _from_weights(module: ModuleType, option: str, *parts: Any, **keywords: Any) -> tuple[Any, Any]:
    """The pair (network, weights) that a module makes of a file. Raises `UserError` where it makes none."""
    function = offered(module, OptionalOfModule.create_network_from_weights)
    if function is None:
        raise UserError(f"`{option}` needs create_network_from_weights(), which {module.__name__} has not")
    check_call(function, *parts, **keywords)
    with creating(module, parts[-1]):  # the U-Net is the last of them
        made = function(*parts, **keywords)
    if not (isinstance(made, tuple) and len(made) == 2):
        raise UserError(
            f"{module.__name__}.create_network_from_weights() returned no (network, weights) pair, so it cannot be "
            f"used with `{option}`"
        )
    return made


def check_given_weights(spec: NetworkSpec) -> None:
    """Refuse, before a model is loaded, weights to start from that cannot be used, where reading them takes no time."""
    given = [] if spec.network_weights is None else [("network_weights", spec.network_weights)]
    for option, path in [*given, *(("base_weights", path) for path in spec.base_weights or ())]:
        if path.stat().st_size <= SOON_READ:
            with telling(f"`{option} = {path}`"):
                read_finite(path)


def read_finite(path: Path) -> tuple[Tensors, dict[str, str]]:
    """A file's weights and metadata. Raises `UserError` where it is no such file, or not all of it is finite."""
    tensors, metadata = read_tensors(path)
    broken = [name for name, tensor in tensors.items() if not is_finite(tensor)]
    if broken:
        raise UserError(f"`{path}` holds values that are not finite, first in {broken[0]}; it cannot be used")
    return tensors, metadata


@contextlib.contextmanager
def named_for_modules(path: Path, model: StableDiffusion) -> Iterator[Path]:
    """A file of `path`'s weights under the names of this model's modules: itself where they agree.

    Raises `UserError` where they are of a model of another family. What is refused in the block names `path`.
    """
    tensors, metadata = read_finite(path)
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith(BUNDLE)}
    is_sdxl = len(model.text_encoders) > 1
    own = with_kohya_names(own, metadata, path, is_sdxl=is_sdxl, unet_layout=False)
    for_sdxl = tells_sdxl(own, metadata)
    if for_sdxl is not None and for_sdxl != is_sdxl:
        kinds = {True: "SDXL", False: "Stable Diffusion 1 or 2"}
        raise UserError(
            f"`{path}` is a network for {kinds[for_sdxl]}, but the model is {kinds[is_sdxl]}; give one for it"
        )
    with temporary_tensors(path, tensors, from_file_names(own, model), metadata) as file:
        try:
            yield file
        except (ValueError, UserError) as error:
            raise type(error)(str(error).replace(str(file), str(path))) from error
