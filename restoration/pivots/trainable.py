"""What of the system a pivot trains: G, a network on G, or E; and the rest, which stays as it is."""

from __future__ import annotations

import logging
from types import ModuleType

from torch import nn

from library.config.option import Settings
from library.config.values import plugin_arguments
from library.training.runtime.attention_backend import choose_attention
from library.training.runtime.environment import Environment
from library.training.runtime.memory import MemorySpec
from library.training.saving.file_names import SavingSpec
from library.training.setup.build import SAVED_AS, build_network
from library.training.trainables import Trainable
from library.training.trained.full_module import ModuleTrainable
from library.training.trained.plugins import check_arguments, import_plugin
from restoration.options import TEXT
from restoration.pivots.pivot import PivotSpec
from restoration.system.system import System

logger = logging.getLogger(__name__)


def network_plugin(spec: PivotSpec) -> ModuleType | None:
    """The module of a network on G, its arguments checked; None where all of G's weights are trained."""
    if not spec.network_module:
        return None
    module = import_plugin(spec.network_module, "network_module", ("create_network",), spec.config_file)
    check_arguments(module, plugin_arguments(spec.network_args), "network_args")
    return module


def build_trainable(
    settings: Settings,
    pivot: str,
    system: System,
    plugin: ModuleType | None,
    environment: Environment,
) -> Trainable:
    """G, a network by the plugin on G, or E; on its device, with attention and checkpointing as the options ask."""
    memory, device, spec = settings.take(MemorySpec), environment.processes.device, settings.take(PivotSpec)
    for module in (system.unet, system.encoder):
        if line := choose_attention(module, device, xformers=memory.xformers, mem_eff_attn=memory.mem_eff_attn):
            logger.info(line)
    if memory.gradient_checkpointing:
        system.unet.enable_gradient_checkpointing()
        if pivot != TEXT:
            system.encoder.enable_gradient_checkpointing()
    if plugin is not None:
        arguments = plugin_arguments(spec.network_args)
        alone = settings.changed(network_train_unet_only=True, unet_lr=spec.learning_rate)
        return build_network(alone, plugin, arguments, system.model, environment)
    name, module = ("unet", system.unet) if pivot == TEXT else ("condition_encoder", system.encoder)
    kind = "unet" if pivot == TEXT else "controlnet"
    dtype = SAVED_AS[settings.take(SavingSpec).save_precision]
    trainable = ModuleTrainable(name, module, spec.learning_rate, kind=kind, save_dtype=dtype)
    nn.Module.to(module, device)
    return trainable


def freeze(system: System, trainable: Trainable, environment: Environment) -> None:
    """What is not trained goes to the device in the precision of the forward pass."""
    device, dtype = environment.processes.device, environment.precision.dtype
    for module in untrained(system, trainable):
        nn.Module.to(module.requires_grad_(False), device=device, dtype=dtype)


def untrained(system: System, trainable: Trainable) -> list[nn.Module]:
    """Which of G and E keep all their weights."""
    trained = {id(parameter) for parameter in trainable.parameters}
    modules: tuple[nn.Module, ...] = (system.unet, system.encoder)
    return [module for module in modules if not any(id(parameter) in trained for parameter in module.parameters())]
