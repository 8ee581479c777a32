"""The contract of network modules (kohya's `--network_module`) as types: what must be there, what is called if it is.

sd-scripts has no such text: names, arguments and order of the calls are those of its trainers. `Optional...` classes
list what a module may leave out; `offered` is the only way in which the host asks for one of these.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from library.training.progress import Progress

TextEncoders = nn.Module | list[nn.Module]
"""One module, or a list where the model has several."""


class Network(Protocol):
    """What `create_network` returns: an nn.Module with these methods, called in this order."""

    def apply_to(self, text_encoder: TextEncoders, unet: nn.Module, train_text_encoder: bool, train_unet: bool) -> None:
        """Put the layers' hooks into the model."""

    def load_weights(self, file: str) -> Any:
        """Take the weights of a file; what is returned goes into the log."""

    def prepare_optimizer_params(
        self, text_encoder_lr: float | None, unet_lr: float | None, default_lr: float
    ) -> Iterable[Any] | tuple[Iterable[Any], Sequence[str]]:
        """Parameter groups, with a name for each or without; two arguments or three."""
        ...

    def prepare_grad_etc(self, text_encoder: TextEncoders, unet: nn.Module) -> None:
        """Set which parameters get gradients."""

    def on_epoch_start(self, text_encoder: TextEncoders, unet: nn.Module) -> None:
        """Before the first batch of each epoch."""

    def get_trainable_params(self) -> Iterable[nn.Parameter]:
        """What is clipped by `max_grad_norm`."""
        ...

    def save_weights(self, file: str, dtype: torch.dtype | None, metadata: dict[str, str] | None) -> None:
        """Write its file, with hashes in the header where it is a safetensors file."""


class OptionalOfNetwork(Protocol):
    """What is called where a network has it. The first part is kohya's, the second this project's."""

    def prepare_network(self, options: Namespace) -> None:
        """After it is made, with the run's options as sd-scripts names them."""

    def prepare_optimizer_params_with_multiple_te_lrs(
        self, text_encoder_lr: list[float] | None, unet_lr: float | None, default_lr: float
    ) -> Any:
        """Instead of `prepare_optimizer_params`, for text encoders with rates of their own."""

    def enable_gradient_checkpointing(self) -> None:
        """With `gradient_checkpointing`."""

    def on_step_start(self, text_encoder: TextEncoders, unet: nn.Module) -> None:
        """Before the forward pass of each micro-batch."""

    def on_timesteps(self, timesteps: Tensor) -> None:
        """The timesteps (batch,) of the micro-batch, before its forward pass; fractions on a rectified flow's path."""

    def update_grad_norms(self) -> None:
        """Before each optimizer step, when gradients are there."""

    def update_norms(self) -> None:
        """After `update_grad_norms`."""

    def apply_max_norm_regularization(self, max_norm: float, device: torch.device) -> tuple[int, float, float]:
        """After each step with `scale_weight_norms`: keys scaled, mean and largest norm."""
        ...

    def merge_to(self, text_encoder: TextEncoders, unet: nn.Module, weights: Any, dtype: Any, device: Any) -> None:
        """For `base_weights`."""

    def announce(self, total_epochs: int, total_steps: int) -> list[str]:
        """Lines for the log before the first step."""
        ...

    def on_progress(self, progress: Progress) -> Mapping[str, Any] | None:
        """After each epoch's files and before the next step; also every `progress_every_n_steps` steps."""

    def findings(self) -> Sequence[str]:
        """Sentences on what was found out, for the end of the run."""
        ...

    def figures(self) -> Mapping[str, Any]:
        """Lines and heat maps for the report, as `library.findings` reads them."""
        ...

    def conclude(self) -> None:
        """Raise RuntimeError or ValueError where the method was on and could do nothing."""


class NetworkModule(Protocol):
    """A Python file that can be given as `network_module`."""

    def create_network(
        self,
        multiplier: float,
        network_dim: int | None,
        network_alpha: float | None,
        vae: nn.Module,
        text_encoder: TextEncoders,
        unet: nn.Module,
        **arguments: Any,
    ) -> nn.Module:
        """A network for the model; `network_args` arrive as text, dropout as `neuron_dropout` and `dropout`."""
        ...


class OptionalOfModule(Protocol):
    """What a network module may offer beside `create_network`."""

    OPTIONS: Mapping[str, str]
    """Its `network_args`, a line of help each: others are refused before a model is loaded."""

    def known_options(self, arguments: Mapping[str, str]) -> Mapping[str, str]:
        """Instead of `OPTIONS`, where they depend on the arguments given."""
        ...

    def create_network_from_weights(
        self, multiplier: float, file: str, vae: Any, text_encoder: Any, unet: Any, **arguments: Any
    ) -> tuple[nn.Module, Mapping[str, Tensor]]:
        """For `dim_from_weights` and `base_weights`: a network of a file's shapes, and the weights."""
        ...


def offered(owner: Any, method: Callable[..., Any]) -> Callable[..., Any] | None:
    """The owner's own method of that name, or None: `offered(network, OptionalOfNetwork.on_progress)`."""
    found = getattr(owner, method.__name__, None)
    return found if callable(found) else None
