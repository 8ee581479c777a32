"""A kohya network as a trainable of the loop: its parameter groups, its hooks at their moments, its state, its file."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from library.adapters.names import to_file_names
from library.config.spec import declared, spec
from library.errors import UserError
from library.files import Tensors, save_network
from library.findings import Findings, read_figures
from library.models.family import StableDiffusion
from library.training.progress import Progress
from library.training.trainables import Movement, Trainable
from library.training.trained.network import text_encoder_argument
from library.training.trained.network_contract import OptionalOfNetwork, offered


@spec
class NetworkRates:
    """The options on a network's learning rates; field names are the options'."""

    text_encoder_lr: Sequence[float] | None = declared
    unet_lr: float | None = declared
    learning_rate: float = declared

    @property
    def as_arguments(self) -> tuple[Sequence[float] | None, float | None, float]:
        """In the order in which the contract passes them on."""
        return self.text_encoder_lr, self.unet_lr, self.learning_rate


def optimizer_groups(
    network: Any, text_encoder_lr: Sequence[float] | None, unet_lr: float | None, learning_rate: float
) -> tuple[list[dict[str, Any]], list[str]]:
    """The network's parameter groups and a name for each, whatever of the contract's shapes it answers in.

    Groups may come as a list or a generator, with or without names, their parameters as any iterable.
    """
    first = text_encoder_lr[0] if text_encoder_lr else None
    if several := offered(network, OptionalOfNetwork.prepare_optimizer_params_with_multiple_te_lrs):
        answer = several(list(text_encoder_lr) if text_encoder_lr else None, unet_lr, learning_rate)
    elif _takes_three(network.prepare_optimizer_params):
        answer = network.prepare_optimizer_params(first, unet_lr, learning_rate)
    else:
        answer = network.prepare_optimizer_params(first, unet_lr)
    groups, names = answer if isinstance(answer, tuple) else (answer, None)
    groups = [_as_group(group, learning_rate) for group in groups]
    groups = [group for group in groups if group["params"]]
    if names is None or len(names) != len(groups):
        names = [f"group{i}" for i in range(len(groups))]
    if not groups:
        raise UserError(
            "nothing is trained: every learning rate is 0, or the network has no module for the parts that are "
            "trained; set learning_rate, unet_lr or text_encoder_lr"
        )
    return groups, [str(name) for name in names]


def _takes_three(method: Any) -> bool:
    # Asked of the signature, not by calling and catching TypeError: that would hide the module's own errors.
    parameters = inspect.signature(method).parameters.values()
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return True
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(positional) >= 3


def _as_group(group: Any, learning_rate: float) -> dict[str, Any]:
    if not isinstance(group, dict):
        group = {"params": [group] if isinstance(group, Tensor) else group}
    # The dict itself is kept: a module may hold on to it to read the live learning rate.
    group["params"] = list(group["params"])
    group.setdefault("lr", learning_rate)
    return group


class NetworkTrainable(Trainable):
    """A kohya network in the loop: the contract's hooks at their moments, its state, its file."""

    name = "network"

    def __init__(
        self,
        network: Any,
        groups: list[dict[str, Any]],
        group_names: list[str],
        model: StableDiffusion,
        device: torch.device,
        *,
        save_dtype: torch.dtype | None = None,
        scale_weight_norms: float | None = None,
    ) -> None:
        self.network = network
        self._groups = groups
        self.group_names = group_names
        self._model = model
        self._device = device
        self._save_dtype = save_dtype
        self._max_norm = scale_weight_norms if self._offered(OptionalOfNetwork.apply_max_norm_regularization) else None
        self._text_encoder = text_encoder_argument(model)
        network.prepare_grad_etc(self._text_encoder, model.unet)
        trained = {id(parameter) for group in groups for parameter in group["params"]}
        for parameter in network.parameters():
            # What no optimizer updates nothing clears either: its gradients would pile up in what is clipped.
            parameter.requires_grad_(parameter.requires_grad and id(parameter) in trained)
        self._movement = Movement({name: p for name, p in network.named_parameters() if id(p) in trained})
        self.beside: Callable[[], Tensors] = dict
        """Tensors of others that go into the network's file."""

    @property
    def progress_every_n_steps(self) -> int | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The network's own, which may decide once it knows the length of the run (`announce`)."""
        return getattr(self.network, "progress_every_n_steps", None)

    @property
    def rank(self) -> int | None:
        """The rank of the network's first module, where its modules have one."""
        modules = (*getattr(self.network, "unet_loras", ()), *getattr(self.network, "text_encoder_loras", ()))
        return next((getattr(module, "lora_dim", None) for module in modules), None)

    def _offered(self, method: Callable[..., Any]) -> Callable[..., Any] | None:
        return offered(self.network, method)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return self._groups

    def clipped_parameters(self) -> list[Tensor]:
        return [parameter for parameter in self.network.get_trainable_params() if parameter.requires_grad]

    def announce(self, total_epochs: int, total_steps: int) -> list[str]:
        announce = self._offered(OptionalOfNetwork.announce)
        return announce(total_epochs, total_steps) if announce else []

    def train(self, training: bool) -> None:
        self.network.train(training)

    def epoch_starts(self) -> None:
        self.network.on_epoch_start(self._text_encoder, self._model.unet)

    def micro_batch_starts(self) -> None:
        if start := self._offered(OptionalOfNetwork.on_step_start):
            start(self._text_encoder, self._model.unet)

    def on_timesteps(self, timesteps: Tensor) -> None:
        if listen := self._offered(OptionalOfNetwork.on_timesteps):
            listen(timesteps)

    def gradients_ready(self) -> None:
        for method in (OptionalOfNetwork.update_grad_norms, OptionalOfNetwork.update_norms):
            if update := self._offered(method):
                update()

    def after_step(self) -> dict[str, float]:
        if self._max_norm:
            scaled, mean, largest = self.network.apply_max_norm_regularization(self._max_norm, self._device)
            return {"max_norm/keys_scaled": scaled, "max_norm/average_key_norm": mean, "max_norm/max_key_norm": largest}
        return {}

    def on_progress(self, progress: Progress) -> Mapping[str, Any] | None:
        on_progress = self._offered(OptionalOfNetwork.on_progress)
        return on_progress(progress) if on_progress else None

    def state_dict(self) -> dict[str, Tensor]:
        state = {f"network.{name}": tensor for name, tensor in memory_of(self.network).items()}
        return state | {f"start.{name}": tensor for name, tensor in self._movement.start.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        own = {name.removeprefix("network."): t for name, t in state.items() if name.startswith("network.")}
        restore_memory(self.network, own)
        self._movement.start = {n.removeprefix("start."): t for n, t in state.items() if n.startswith("start.")}

    def save(self, path: Path, metadata: dict[str, str]) -> None:
        def rename(tensors: Tensors) -> Tensors:
            return to_file_names(tensors, self._model) | self.beside()

        save_network(self.network, path, self._save_dtype, metadata, rename=rename)

    def save_on_trial(self, folder: Path, extension: str) -> None:
        """Write its file once and forget it: what cannot be written is better known before the training than after."""
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".trial-") as place:
            self.save(Path(place, f"trial{extension}"), {})

    def findings(self) -> Findings:
        moved, change = self._movement.measure()
        findings, figures = self._offered(OptionalOfNetwork.findings), self._offered(OptionalOfNetwork.figures)
        return Findings(
            moved=moved,
            tensors=len(self._movement.start),
            change=change,
            lines=list(findings()) if findings else [],
            failure=self._failure(),
            **read_figures(figures() if figures else {}),
        )

    def _failure(self) -> str | None:
        """What the network itself calls a failed run: a method that was on and could do nothing."""
        try:
            if conclude := self._offered(OptionalOfNetwork.conclude):
                conclude()
        except (RuntimeError, ValueError) as error:
            return str(error)
        return None


EXTRA_STATE = "_extra_state"  # as torch names what a module's get_extra_state gives


def memory_of(network: nn.Module) -> dict[str, Tensor]:
    """The state_dict where that is the network's own parameters and buffers; else these and modules' extra state."""
    state = network.state_dict()
    if is_own(network, state):
        return state
    extra = {name: tensor for name, tensor in state.items() if name.endswith(EXTRA_STATE)}
    return {**dict(network.named_parameters()), **dict(network.named_buffers()), **extra}


def restore_memory(network: nn.Module, memory: Mapping[str, Tensor]) -> None:
    """Put back what `memory_of` gave. Raises `UserError` where the network is another one."""
    own = memory_of(network)
    for name in {**own, **memory}:
        if name not in own or name not in memory:
            raise UserError(f"the state's network does not fit this one: {name} is only in one of them")
    if is_own(network, network.state_dict()):
        network.load_state_dict(memory)
        return
    with torch.no_grad():
        for name, tensor in memory.items():
            if name.endswith(EXTRA_STATE):
                network.get_submodule(name.removesuffix(EXTRA_STATE).removesuffix(".")).set_extra_state(tensor)
            else:
                own[name].copy_(tensor)


def is_own(network: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Whether a state_dict holds every parameter of the network, and nothing but its memory and extra state."""
    live = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    tensors = {name: tensor for name, tensor in state.items() if not name.endswith(EXTRA_STATE)}
    shared = all(name in live and live[name].data_ptr() == tensor.data_ptr() for name, tensor in tensors.items())
    return shared and all(name in tensors for name, _ in network.named_parameters())
