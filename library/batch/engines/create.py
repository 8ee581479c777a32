"""The trainers of an engine, one for each device."""

from __future__ import annotations

from collections.abc import Sequence

from library.batch.engines.assignment import Trainer
from library.batch.engines.devices import refuse_invisible
from library.config.option import Settings
from library.errors import ConfigError


def refuse_devices(settings: Settings, devices: Sequence[str]) -> None:
    """Raise `ConfigError` for devices that the engine cannot have, as far as that is known before anything is begun."""
    if settings["engine"] == "inline" and (len(devices) > 1 or devices[0]):
        raise ConfigError("`--devices` is not for `--engine inline`, which trains in this process.")
    if settings["engine"] == "local":
        refuse_invisible(devices)
    if settings["engine"] == "ray":
        from library.batch.engines.on_ray import refuse_before_start

        refuse_before_start(devices, settings["gpu_share"], settings["ray_address"])


def trainers(settings: Settings, devices: Sequence[str]) -> Sequence[Trainer]:
    """One for each device, of `refuse_devices`. Raises `ConfigError` where a cluster has fewer GPUs."""
    if settings["engine"] == "inline":
        from library.batch.training import TrainerHere

        return [TrainerHere()]
    if settings["engine"] == "ray":
        from library.batch.engines.on_ray import actors

        return actors(devices, settings["gpu_share"], settings["ray_address"])
    from library.batch.engines.local import Child

    return [Child(device) for device in devices]
