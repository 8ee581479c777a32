"""TensorBoard and Weights & Biases, when asked for."""

from __future__ import annotations

import importlib.util
import os
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from library.config.spec import declared, spec
from library.errors import UserError

DEFAULT_PROJECT = "network_train"


@spec
class TrackerSpec:
    """The options on logging; field names are the options'."""

    logging_dir: Path | None = declared
    log_with: str | None = declared
    log_prefix: str | None = declared
    log_tracker_name: str | None = declared
    log_tracker_config: Path | None = declared
    wandb_run_name: str | None = declared
    wandb_api_key: str | None = declared
    log_config: bool = declared

    @property
    def wanted(self) -> tuple[str, ...]:
        if self.log_with == "all":
            return ("tensorboard", "wandb")
        if self.log_with is None:
            return ("tensorboard",) if self.logging_dir else ()
        return (self.log_with,)


class Tracker(Protocol):
    def log(self, line: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


def figures_of(line: Mapping[str, Any]) -> dict[str, float]:
    """A step's line as kohya's trackers name its figures: loss/current, loss/average, lr/<group>, ..."""
    names = {"loss": "loss/current", "avr_loss": "loss/average", "gradient_norm": "norm/gradient", "epoch": "epoch"}
    figures: dict[str, float] = {
        names.get(key, key): value for key, value in line.items() if isinstance(value, int | float)
    }
    figures.pop("step", None)
    return figures | {f"lr/{group}": rate for group, rate in line.get("lr", {}).items()}


class TensorBoard:
    """Writes event files under `folder`."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def log(self, line: Mapping[str, Any]) -> None:
        for name, value in figures_of(line).items():
            self._writer.add_scalar(name, value, line["step"])

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """Sends figures to a wandb run."""

    def __init__(self, spec: TrackerSpec, config: Mapping[str, Any]) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        if spec.wandb_api_key:
            wandb.login(key=spec.wandb_api_key)
        settings: dict[str, Any] = {}
        if spec.log_tracker_config:
            with open(spec.log_tracker_config, "rb") as file:
                settings = tomllib.load(file).get("wandb", {})
        self._run = wandb.init(
            project=spec.log_tracker_name or DEFAULT_PROJECT,
            name=spec.wandb_run_name,
            dir=str(spec.logging_dir) if spec.logging_dir else None,
            config=dict(config) if spec.log_config else None,
            **settings,
        )

    def log(self, line: Mapping[str, Any]) -> None:
        self._run.log(figures_of(line), step=line["step"])

    def close(self) -> None:
        self._run.finish()


def check_trackers(spec: TrackerSpec) -> None:
    """Refuse trackers that are not installed, with what to install."""
    for name in spec.wanted:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"`log_with` asks for {name}, which is not installed: pip install {name}, or leave log_with out; "
                "the JSON log is always written"
            )


def tensorboard_folder(spec: TrackerSpec, logging_dir: Path, stamp: str) -> Path:
    """A run's own folder in `logging_dir`, by the time at which it began."""
    return logging_dir / f"{spec.log_prefix or ''}{stamp}" / (spec.log_tracker_name or DEFAULT_PROJECT)


def create_trackers(spec: TrackerSpec, config: Mapping[str, Any]) -> list[Tracker]:
    """The trackers asked for, which `check_trackers` has found. Raises `UserError` where one lacks its folder."""
    trackers: list[Tracker] = []
    for name in spec.wanted:
        if name == "tensorboard":
            if spec.logging_dir is None:
                raise UserError(f"`log_with = {spec.log_with}` needs `logging_dir`, the folder for TensorBoard's files")
            trackers.append(TensorBoard(tensorboard_folder(spec, spec.logging_dir, time.strftime("%Y%m%d%H%M%S"))))
        else:
            if spec.logging_dir is not None:
                os.makedirs(spec.logging_dir, exist_ok=True)
            trackers.append(WeightsAndBiases(spec, config))
    return trackers
