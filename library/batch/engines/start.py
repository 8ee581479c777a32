"""The trainers of an engine, one for each device."""

from __future__ import annotations

from collections.abc import Sequence

from library.batch.assignment import Trainer
from library.config.option import Settings
from library.errors import ConfigError


def trainers(settings: Settings, devices: Sequence[str]) -> Sequence[Trainer]:
    """Raises `ConfigError` for devices that the engine cannot have."""
    if settings["engine"] == "inline":
        if len(devices) > 1 or devices[0]:
            raise ConfigError("`--devices` is not for `--engine inline`, which trains in this process.")
        from library.batch.training import TrainerHere

        return [TrainerHere()]
    if settings["engine"] == "ray":
        from library.batch.engines.on_ray import actors

        return actors(devices, settings["gpu_share"], settings["ray_address"])
    from library.batch.engines.local import Child

    return [Child(device) for device in devices]
