"""What of the system a pivot trains: G, a network on G, or E; and the rest, which stays as it is."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import ModuleType

import torch
from torch import nn

from library.config.option import Settings
from library.config.values import plugin_arguments
from library.training.runtime.attention_backend import choose_attention
from library.training.runtime.environment import Environment
from library.training.runtime.memory import MemorySpec
from library.training.setup.build import SAVED_AS
from library.training.trainables import Trainable
from library.training.trained.full_module import ModuleTrainable
from library.training.trained.network import NetworkSpec, NetworkTrainable, create_network, optimizer_groups
from library.training.trained.plugins import check_arguments, import_plugin
from restoration.options import TEXT
from restoration.system.system import System

logger = logging.getLogger(__name__)


def network_plugin(settings: Settings) -> ModuleType:
    """The module of a network on G, its arguments checked."""
    module = import_plugin(settings["network_module"], "network_module", ("create_network",), settings["config_file"])
    check_arguments(module, plugin_arguments(settings["network_args"]), "network_args")
    return module


def build_trainable(
    settings: Settings,
    pivot: str,
    system: System,
    plugin: ModuleType | None,
    environment: Environment,
) -> Trainable:
    """G, a network by the plugin on G, or E; on its device, with attention and checkpointing as the options ask."""
    memory, device, dtype = (
        settings.take(MemorySpec),
        environment.processes.device,
        SAVED_AS[settings["save_precision"]],
    )
    for module in (system.unet, system.encoder):
        if line := choose_attention(module, device, xformers=memory.xformers, mem_eff_attn=memory.mem_eff_attn):
            logger.info(line)
    if memory.gradient_checkpointing:
        system.unet.enable_gradient_checkpointing()
        if pivot != TEXT:
            system.encoder.enable_gradient_checkpointing()
    if plugin is not None:
        return _network_on_g(settings, system, plugin, environment)
    name, module = ("unet", system.unet) if pivot == TEXT else ("condition_encoder", system.encoder)
    kind = "unet" if pivot == TEXT else "controlnet"
    trainable = ModuleTrainable(name, module, settings["learning_rate"], kind=kind, save_dtype=dtype)
    nn.Module.to(module, device)
    return trainable


def _network_on_g(settings: Settings, system: System, plugin: ModuleType, environment: Environment) -> NetworkTrainable:
    torch.manual_seed(environment.seed % 2**63)
    spec = replace(settings.take(NetworkSpec), network_train_unet_only=True)
    arguments = plugin_arguments(settings["network_args"])
    network = create_network(plugin, spec, arguments, system.model, settings.namespace())
    groups, names = optimizer_groups(network, None, settings["learning_rate"], settings["learning_rate"])
    network.to(device=environment.processes.device)
    return NetworkTrainable(
        network,
        groups,
        names,
        system.model,
        environment.processes.device,
        save_dtype=SAVED_AS[settings["save_precision"]],
        scale_weight_norms=spec.scale_weight_norms,
    )


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
