"""The trainers of an engine, one for each device."""

from __future__ import annotations

from collections.abc import Sequence

from library.batch.engines.assignment import Trainer
from library.batch.engines.devices import refuse_invisible
from library.config.options.batch import BATCH
from library.config.spec import declared, spec_of
from library.errors import ConfigError


@spec_of(BATCH)
class EngineSpec:
    """The options on what trains the jobs; field names are the options'."""

    engine: str = declared
    gpu_share: float = declared
    ray_address: str | None = declared


def refuse_devices(spec: EngineSpec, devices: Sequence[str]) -> None:
    """Raise `ConfigError` for devices that the engine cannot have, as far as that is known before anything is begun."""
    if spec.engine == "inline" and (len(devices) > 1 or devices[0]):
        raise ConfigError("`--devices` is not for `--engine inline`, which trains in this process.")
    if spec.engine == "local":
        refuse_invisible(devices)
    if spec.engine == "ray":
        from library.batch.engines.on_ray import refuse_before_start

        refuse_before_start(devices, spec.gpu_share, spec.ray_address)


def trainers(spec: EngineSpec, devices: Sequence[str]) -> Sequence[Trainer]:
    """One for each device, of `refuse_devices`. Raises `ConfigError` where a cluster has fewer GPUs."""
    if spec.engine == "inline":
        from library.batch.training import TrainerHere

        return [TrainerHere()]
    if spec.engine == "ray":
        from library.batch.engines.on_ray import actors

        return actors(devices, spec.gpu_share, spec.ray_address)
    from library.batch.engines.local import Child

    return [Child(device) for device in devices]
