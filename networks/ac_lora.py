"""AC-LoRA: the rank of every layer, found while training (Cui et al. 2024, "Auto Component LoRA").

A LoRA network trains at a maximum rank R. Every E epochs a RESTART looks at the singular values of each module, keeps
the part that a threshold calls signal, and replaces the rest by noise; the threshold follows the training loss. Files
hold what is left: a plain LoRA with a rank of its own for every module.

The LoRA modules come from a base module (`networks.lora`, or another that offers `unet_loras` and
`text_encoder_loras` with `lora_down`, `lora_up`, `alpha`, `scale`). The equations are in `ac_lora_spectra.py` and
`ac_lora_restart.py`, when RESTARTs come in `ac_lora_schedule.py`, the options in `ac_lora_options.py`, the base module
and its products in `ac_lora_products.py`, files in `ac_lora_export.py`. A trainer may say how far it is by
`on_progress(p)`; in one that does not, `ac_lora_observe.py` and `ac_lora_finders.py` find the same facts. All files
`ac_lora*.py` belong together and know only torch.
"""

from __future__ import annotations

import functools
import json
import logging
import sys
from typing import TYPE_CHECKING, Any, Mapping, Optional, Sequence

import torch

import networks.lora
from networks import ac_lora_report as report
from networks.ac_lora_export import alpha_of_file, cut_loras, narrow, padded, put_into, read_file
from networks.ac_lora_observe import ObservedProgress, Observer
from networks.ac_lora_options import OPTIONS as OWN_OPTIONS
from networks.ac_lora_options import Options, name_of_base_module, read_options
from networks.ac_lora_products import (
    base_module,
    function_of,
    is_split,
    loras_of,
    names_of,
    products_of,
    refuse_a_network_without_layers,
    refuse_what_is_no_product,
)
from networks.ac_lora_restart import Module, restart_modules
from networks.ac_lora_schedule import REMEDY, announcement, for_length, is_due
from networks.ac_lora_schedule import length_problems as problems_of_length
from networks.ac_lora_spectra import energy_threshold, separation_strength

logger = logging.getLogger(__name__)

OPTIONS = {**getattr(networks.lora, "OPTIONS", {}), **OWN_OPTIONS}
Base: Any = networks.lora.LoRANetwork if TYPE_CHECKING else object  # whose class the base module's network really has
STATE_VERSION = 1


def known_options(arguments: Mapping[str, str]) -> Optional[dict[str, str]]:
    """The options that hold beside `arguments`: ours and the base module's. None if that does not say what it knows."""
    try:
        options = getattr(base_module(name_of_base_module(arguments)), "OPTIONS", None)
    except ValueError:
        return None  # create_network says what is wrong
    return None if options is None else {**options, **OWN_OPTIONS}


def length_problems(arguments: Mapping[str, str], total_epochs: int, total_steps: int) -> list[str]:
    """Sentences on why a run of this length should not be begun; asked before a model is loaded."""
    options, _ = read_options(arguments)
    return problems_of_length(options, total_epochs, total_steps)


def create_network(
    multiplier, network_dim, network_alpha, vae, text_encoder, unet, neuron_dropout=None, **kwargs
) -> Any:
    """The base module's network with RESTARTs, or with the fixed ranks of `rank_pattern`."""
    given = (multiplier, network_dim, network_alpha, vae, text_encoder, unet)
    return _create("create_network", given, neuron_dropout, kwargs)


def create_arch_network(
    multiplier, network_dim, network_alpha, vae, text_encoders, unet, neuron_dropout=None, **kwargs
) -> Any:
    """The same where a trainer asks as musubi-tuner does."""
    given = (multiplier, network_dim, network_alpha, vae, text_encoders, unet)
    return _create("create_arch_network", given, neuron_dropout, kwargs)


def _create(function: str, given: tuple[Any, ...], neuron_dropout: Any, arguments: Mapping[str, Any]) -> Any:
    options, rest = read_options(arguments)
    base = base_module(options.base_module)
    network = function_of(base, function)(*given, neuron_dropout=neuron_dropout, **rest)
    if network is None:
        return None
    refuse_a_network_without_layers(network, base, given[-1], rest)
    if options.rank_pattern is not None:
        narrow(network, options.rank_pattern)
        return network
    if options.p is None and any(_is_on(value) for value in (neuron_dropout, *map(rest.get, DROPOUTS))):
        logger.warning("AC-LoRA: dropout raises the training loss, and with it lowers the threshold p and the ranks")
    return restarting(network, options)


def create_network_from_weights(
    multiplier, file, vae, text_encoder, unet, weights_sd=None, for_inference=False, neuron_dropout=None, **kwargs
):
    """A network with the ranks of a file, which become the maximum ranks. For inference it is the base module's."""
    options, rest = read_options(kwargs)
    base = base_module(options.base_module)
    network, weights = function_of(base, "create_network_from_weights")(
        multiplier, file, vae, text_encoder, unet, weights_sd=weights_sd, for_inference=for_inference, **rest
    )
    if network is None:
        return None, weights
    refuse_a_network_without_layers(network, base, unet)
    return (network if for_inference else restarting(network, options)), weights


def create_arch_network_from_weights(
    multiplier, weights_sd, text_encoders=None, unet=None, for_inference=False, **kwargs
) -> Any:
    """As musubi-tuner asks: the network alone for inference, and with the weights where training goes on from them."""
    options, rest = read_options(kwargs)
    base = base_module(options.base_module)
    network = function_of(base, "create_arch_network_from_weights")(
        multiplier, weights_sd, text_encoders=text_encoders, unet=unet, for_inference=for_inference, **rest
    )
    refuse_a_network_without_layers(network, base, unet)
    return network if for_inference else (restarting(network, options), weights_sd)


def prepare_network(network: Any, args: Any) -> None:
    """musubi-tuner asks the module, not the network, whether it takes the trainer's options."""
    network.prepare_network(args)


def _is_on(dropout: Any) -> bool:
    """Whether a rate of dropout, a number or text as sd-scripts gives it, is above 0."""
    try:
        return bool(dropout) and float(dropout) != 0
    except ValueError:
        return True  # the base module says what is wrong with it


DROPOUTS = ("dropout", "rank_dropout", "module_dropout")


def restarting(network: Any, options: Options) -> Any:
    """Turn a base module's network into one that makes RESTARTs.

    Its class becomes a subclass of what it was: every method, hook and tensor name of the base module stays as it is.
    """
    for name in ("unet_loras", "text_encoder_loras"):
        if not hasattr(network, name):
            raise ValueError(f"`base_module = {options.base_module}`: its network has no {name}, so it cannot be used")
    network.__class__ = type("ACLoRANetwork", (ACLoRANetwork, type(network)), {})
    network.begin(options)
    return network


class ACLoRANetwork(Base):
    """What AC-LoRA adds to a network: RESTARTs, their state, and files that are cut.

    All that must survive a resume is in the network's extra state, as text: unlike a buffer it keeps its values when
    the network is cast to half precision. It never reaches a file of weights.
    """

    def begin(self, options: Options) -> None:
        for lora in loras_of(self):
            refuse_what_is_no_product(lora)
        self.options = options
        self.progress_every_n_steps = options.every_n_steps
        self.restarts: list[dict[str, Any]] = []
        self.window = {"loss_sum": 0.0, "relative_mse_sum": 0.0, "count": 0}
        self.epochs_seen = 0  # epochs that were complete when progress was last reported
        self.is_observing = True
        self.observer = Observer(self)
        self.trainer_options: Any = None
        self._written: Optional[tuple[int, int]] = None
        self._tensors_to_save: Optional[dict[str, torch.Tensor]] = None
        self._has_warned_of_loss = False
        self._is_loss_alone = False  # whether the targets' size, which ac_loss=fvu divides by, is not known

    # --- the trainer's calls

    def prepare_network(self, args: Any) -> None:
        """Keep the trainer's options; they change while it prepares itself."""
        self.trainer_options = args
        getattr(super(), "prepare_network", lambda args: None)(args)

    def announce(self, total_epochs: int, total_steps: int, observed: bool = False) -> list[str]:
        """Lines worth saying before the first step of a run of this length.

        A trainer that calls this is one that will call `on_progress`; it is not observed.
        """
        self.is_observing = observed
        self.options = for_length(self.options, total_epochs, total_steps)
        self.progress_every_n_steps = self.options.every_n_steps
        return announcement(self.options, total_epochs, total_steps)

    def on_epoch_start(self, *models: Any, **named: Any) -> None:
        super().on_epoch_start(*models, **named)
        if self.is_observing:
            self.observer.epoch_starts(sys._getframe(1))

    def on_step_start(self, *models: Any, **named: Any) -> None:
        getattr(super(), "on_step_start", lambda *models, **named: None)(*models, **named)
        if self.is_observing:
            self.observer.step_starts()

    def on_progress(self, p: Any) -> Optional[dict[str, Any]]:
        """Called between two optimizer steps how far training is; makes a RESTART if one is due, and returns its event.

        `p` has epochs_done (from 1), total_epochs, global_step, total_steps, and since the last call loss_sum,
        relative_mse_sum and count, which are sums over all processes.
        """
        if self.is_observing:
            self.is_observing = False
            self.observer.stop()
        return self.progressed(p)

    def progressed(self, p: Any) -> Optional[dict[str, Any]]:
        self._is_loss_alone = isinstance(p, ObservedProgress)
        for name in self.window:
            self.window[name] += getattr(p, name)
        due = is_due(self.options, p, self.restarts[-1]["step"] if self.restarts else 0, self.epochs_seen)
        self.epochs_seen = p.epochs_done
        if not due:
            return None
        window, self.window = self.window, {"loss_sum": 0.0, "relative_mse_sum": 0.0, "count": 0}
        return self.restart(p, self.mean_loss(window)) if p.global_step < p.total_steps else None

    # --- RESTART

    def mean_loss(self, window: Mapping[str, float]) -> Optional[float]:
        """L, the mean of the loss since the last RESTART; None if there is none and no p is computed from it."""
        if not self.options.needs_loss:
            return window["loss_sum"] / window["count"] if window["count"] else None
        if not window["count"]:
            raise RuntimeError(
                "AC-LoRA's threshold follows the training loss, but this trainer shows it none: set ac_p to a number "
                "(0.9, say), which needs no loss, or use a trainer that calls network.on_progress"
            )
        name = "relative_mse_sum" if self.options.loss == "fvu" else "loss_sum"
        loss = window[name] / window["count"]
        if loss > 1 and not self._has_warned_of_loss:
            self._has_warned_of_loss = True
            remedy = "ac_p to a number (0.9, say)" if self._is_loss_alone else "ac_loss=fvu, or ac_p to a number"
            logger.warning(
                f"AC-LoRA: the training loss is {loss:.3g}, and above 1 the threshold p = 1 - loss^alpha keeps "
                f"nothing but rank 1; set {remedy}"
            )
        return loss

    def matrices(self) -> list[Module]:
        """Name, A and B of every product: of every module, or of each part of a split one."""
        return products_of(loras_of(self))

    def sizes(self) -> dict[str, int]:
        return {module.name: module.down.shape[0] for module in self.matrices()}

    def restart(self, p: Any, loss: Optional[float]) -> Optional[dict[str, Any]]:
        """One RESTART of all modules that are trained, as an event. None if all of them are still zero."""
        options = self.options
        threshold = options.p
        if threshold is None:
            assert loss is not None
            position = (
                p.global_step / max(p.total_steps, 1) * p.total_epochs if options.every_n_steps else p.epochs_done
            )
            strength = separation_strength(max(position - 1, 0), p.total_epochs)
            threshold = energy_threshold(loss, strength, *options.p_bounds)
        trained = [m for m in self.matrices() if m.down.requires_grad and m.up.requires_grad]
        number = len(self.restarts) + 1
        done = restart_modules(trained, threshold, options.choices, options.seed, number)
        alive = [r for r in done.values() if r.rank]
        if not alive:
            return None
        event = {
            "event": "restart",
            "restart": number,
            "epoch": p.epochs_done,
            "step": p.global_step,
            "p": threshold,
            "loss": loss,
            "mean_rank": report.mean([r.rank for r in alive]),
            "kept_energy": report.mean([r.energy for r in alive]),
            "ranks": {name: r.rank for name, r in done.items()},
            "energy": {name: round(r.energy, 6) for name, r in done.items()},
        }
        event = shared_between_processes(trained, event)
        self.restarts.append(event)
        return event

    # --- state

    def get_extra_state(self) -> torch.Tensor:
        if self.is_observing:
            self.observer.collect()
        state = {
            "version": STATE_VERSION,
            "restarts": self.restarts,
            "window": self.window,
            "epochs_seen": self.epochs_seen,
            "observed": self.observer.state(),
        }
        return torch.frombuffer(bytearray(json.dumps(state).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: torch.Tensor) -> None:
        read = json.loads(bytes(state.cpu().tolist()))
        if read["version"] != STATE_VERSION:
            raise ValueError(f"this state of AC-LoRA is of version {read['version']}, not {STATE_VERSION}")
        self.restarts, self.window, self.epochs_seen = read["restarts"], read["window"], read["epochs_seen"]
        self.observer.load_state(read["observed"])

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        if self._tensors_to_save is not None:  # the base module is writing its file
            return self._tensors_to_save
        return super().state_dict(*args, **kwargs)

    # --- files

    def tensors_for_file(self) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
        """The network's tensors as `export_rank` wants them, and the ranks that they have."""
        tensors = {name: t for name, t in super().state_dict().items() if not name.endswith("_extra_state")}
        loras = loras_of(self)
        if self.options.export.kind == "full":
            tensors.update(
                {f"{lora.lora_name}.alpha": alpha_of_file(lora, tensors) for lora in loras if is_split(lora)}
            )
            return tensors, self.sizes()
        found = {name: rank for name, rank in self.restarts[-1]["ranks"].items() if rank} if self.restarts else {}
        cut = cut_loras(loras, self.options.export, found)
        put_into(tensors, cut, loras)
        ranks = {
            name: down.shape[0]
            for lora in loras
            for name, (down, _) in zip(names_of(lora), cut[lora.lora_name], strict=True)
        }
        return tensors, ranks

    def save_weights(self, file, dtype, metadata) -> None:
        """Let the base module write the cut tensors in its own way; the entries ss_ac_lora_* say what was done."""
        self._tensors_to_save, ranks = self.tensors_for_file()
        try:
            if not getattr(self.trainer_options, "no_metadata", False):
                own = report.metadata(self.restarts, self.options.mode, str(self.options.export), ranks)
                metadata = {**(metadata or {}), **own}
            sizes = [(m.down.numel() + m.up.numel(), m.down.shape[0], ranks[m.name]) for m in self.matrices()]
            self._written = (sum(n * rank // size for n, size, rank in sizes), sum(n for n, _, _ in sizes))
            super().save_weights(file, dtype, metadata)
        finally:
            self._tensors_to_save = None
        if self.is_observing:
            self.observer.saved()

    def load_weights(self, file):
        """Go on from a file, cut or not: its slots, then fresh ones up to the maximum rank."""
        loras = loras_of(self)
        tensors = padded(read_file(file), loras, str(file))
        load = super().load_state_dict
        if any(map(is_split, loras)):  # the base module's own would split the parts once more
            load = functools.partial(torch.nn.Module.load_state_dict, self)
        result = load(tensors, strict=False)
        result.missing_keys[:] = [name for name in result.missing_keys if not name.endswith("_extra_state")]
        return result

    # --- what it did

    def findings(self) -> list[str]:
        return report.lines(self.restarts, self.sizes(), self._written)

    def figures(self) -> dict[str, Any]:
        return report.figures(self.restarts)

    def conclude(self) -> None:
        """RuntimeError if the method was on and did nothing."""
        if not self.restarts and not self.options.is_off:
            raise RuntimeError(
                f"AC-LoRA made no RESTART in this run, so what was trained is a plain LoRA: {REMEDY}; "
                "ac_every_n_epochs=0 says that none is wanted"
            )


def shared_between_processes(modules: Sequence[Module], event: dict[str, Any]) -> dict[str, Any]:
    """The weights and figures of the first process on all of them: decompositions may differ in their last bits."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return event
    for module in modules:
        distributed.broadcast(module.down.detach(), 0)
        distributed.broadcast(module.up.detach(), 0)
    shared = [event]
    distributed.broadcast_object_list(shared, src=0)
    return shared[0]
