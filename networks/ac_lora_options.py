"""The options of AC-LoRA, all of them network_args, read and checked before anything is made.

`ac_mode` sets defaults only: each of its choices has an option of its own, and they can be mixed.
"""

from __future__ import annotations

import difflib
import json
import math
import os
from dataclasses import dataclass
from typing import Any, Mapping, Optional

from safetensors import safe_open

from networks.ac_lora_restart import Choices

OPTIONS = {  # names of network_args; all values arrive as text
    "ac_mode": "paper: the paper word for word (default); product: on the values of B A, low ranks and small files",
    "ac_sum": "squared (default): the signal is measured by the sum of squared singular values; plain: of their values",
    "ac_p": "share of that sum which is signal: auto (paper's default, follows the loss) or a number (product: 0.9)",
    "ac_p_min": "lower bound of an automatic p (0; product: 0.8)",
    "ac_p_max": "upper bound of an automatic p (1; product: 0.95)",
    "ac_noise": "full (paper's default): noise on the whole matrix; tail (product's): on the discarded ranks; none",
    "ac_noise_scale": "the noise over the standard deviation of what is discarded (1; product: 0.1)",
    "ac_shrink": "hard (default), or soft: also subtract the largest discarded singular value from the kept ones",
    "ac_loss": "the loss that an automatic p follows: raw (paper's default), fvu (product's): MSE / mean target^2",
    "ac_every_n_epochs": "epochs between RESTARTs: auto (a tenth of the run; the paper: 10), a number, or 0 for none",
    "ac_every_n_steps": "optimizer steps between two RESTARTs, instead of epochs",
    "ac_min_steps": "optimizer steps that lie between two RESTARTs at least (0; product with automatic epochs: 50)",
    "ac_first_epoch": "whether the first RESTART comes after the first epoch already (true)",
    "ac_seed": "seed of the noise (0)",
    "base_module": "the network module that makes the LoRA modules (networks.lora)",
    "ac_timesteps": "off (default); on: a lower rank where it is noisy, as in networks.t_lora, and its t_min_rank",
    "export_rank": "what a file keeps: full, found (last RESTART), energy:<share> (default energy:0.999), or a rank",
    "rank_pattern": "train fixed ranks instead: JSON {module: rank}, a .json file, or the file of a finished run",
}

DEFAULTS: dict[str, dict[str, Any]] = {
    "paper": {
        "ac_p": None, "ac_p_min": 0.0, "ac_p_max": 1.0, "ac_noise": "full", "ac_noise_scale": 1.0, "ac_loss": "raw",
        "ac_min_steps": 0,
    },
    "product": {
        "ac_p": 0.9, "ac_p_min": 0.8, "ac_p_max": 0.95, "ac_noise": "tail", "ac_noise_scale": 0.1, "ac_loss": "fvu",
        "ac_min_steps": 50,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What network_args ask for, checked."""

    mode: str
    choices: Choices
    p: Optional[float]  # None: automatic
    p_bounds: tuple[float, float]
    loss: str
    every_n_epochs: Optional[int]  # None: automatic
    every_n_steps: Optional[int]
    min_steps: int
    first_epoch: bool
    seed: int
    base_module: str
    export: "Export"
    rank_pattern: Optional[dict[str, int]]

    @property
    def is_off(self) -> bool:
        return self.every_n_epochs == 0 and not self.every_n_steps

    @property
    def needs_loss(self) -> bool:
        return self.p is None and not self.is_off


@dataclass(frozen=True)
class Export:
    """What `export_rank` says: how many slots of a module a file keeps."""

    kind: str = "energy"  # full, found, energy, rank
    value: float = 0.999

    def __str__(self) -> str:
        return (
            f"energy:{self.value:g}"
            if self.kind == "energy"
            else f"{self.value:g}" * (self.kind == "rank") or self.kind
        )


def read_options(given: Mapping[str, Any]) -> tuple[Options, dict[str, Any]]:
    """The options of AC-LoRA, and the rest, which is the base module's. ValueError with all problems at once."""
    own = {name: value for name, value in given.items() if name in OPTIONS and value not in (None, "")}
    rest = {name: value for name, value in given.items() if name not in OPTIONS}
    read = OptionReader(own)
    read.refuse_unknown(rest)
    mode = read.choice("ac_mode", ("paper", "product"), "paper")
    defaults = DEFAULTS[mode]
    product = mode == "product"
    every_n_epochs = None
    if own.get("ac_every_n_epochs", "auto") != "auto":
        every_n_epochs = read.number("ac_every_n_epochs", None, kind=int)
    every_n_steps = read.number("ac_every_n_steps", None, kind=int, low=1)
    if every_n_steps and every_n_epochs:
        read.problems.append("ac_every_n_epochs and ac_every_n_steps exclude each other; give one of them")
    asked = every_n_epochs is not None or every_n_steps is not None  # who says how often, is not held to a minimum
    p = defaults["ac_p"]
    if "ac_p" in own:
        p = None if own["ac_p"] == "auto" else read.number("ac_p", None, high=1)
    bounds = (
        read.number("ac_p_min", defaults["ac_p_min"], high=1),
        read.number("ac_p_max", defaults["ac_p_max"], high=1),
    )
    by_timestep = read.choice("ac_timesteps", ("off", "on"), "off") == "on"
    if by_timestep and own.get("base_module", MASKED) != MASKED:
        read.problems.append(f"ac_timesteps = on takes its modules from {MASKED}; leave base_module out")
    if bounds[0] > bounds[1]:
        read.problems.append(
            f"ac_p_min = {bounds[0]:g} is above ac_p_max = {bounds[1]:g}; lower one or raise the other"
        )
    options = Options(
        mode=mode,
        choices=Choices(
            of_product=product,
            squared=read.choice("ac_sum", ("squared", "plain"), "squared") == "squared",
            noise=read.choice("ac_noise", ("full", "tail", "none"), defaults["ac_noise"]),
            noise_scale=read.number("ac_noise_scale", defaults["ac_noise_scale"]),
            soft=read.choice("ac_shrink", ("hard", "soft"), "hard") == "soft",
        ),
        p=p,
        p_bounds=bounds,
        loss=read.choice("ac_loss", ("raw", "fvu"), defaults["ac_loss"]),
        every_n_epochs=every_n_epochs,
        every_n_steps=every_n_steps,
        min_steps=read.number("ac_min_steps", 0 if asked else defaults["ac_min_steps"], kind=int),
        first_epoch=read.choice("ac_first_epoch", ("true", "false"), "true") == "true",
        seed=read.number("ac_seed", 0, kind=int),
        base_module=name_of_base_module(own),
        export=read.export("export_rank"),
        rank_pattern=read.rank_pattern("rank_pattern"),
    )
    if read.problems:
        raise ValueError("; ".join(read.problems))
    return options, rest


MASKED = "networks.t_lora"
"""The network module whose modules are masked by timestep; after a RESTART the first slots carry most."""


def name_of_base_module(given: Mapping[str, Any]) -> str:
    """The network module that makes the LoRA modules, by these network_args."""
    if str(given.get("ac_timesteps") or "").strip().lower() == "on":
        return MASKED
    return str(given.get("base_module") or "networks.lora")


class OptionReader:
    """Reads options that arrive as text, and collects all that is wrong with them."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = given
        self.problems: list[str] = []

    def refuse_unknown(self, rest: Mapping[str, Any]) -> None:
        """Names that are nobody's but look like ours; all others are for the base module to judge."""
        for name in rest:
            near = difflib.get_close_matches(name, OPTIONS, 1, 0.75)
            if near or name.startswith("ac_"):
                near = near or difflib.get_close_matches(name, OPTIONS, 1, 0)
                self.problems.append(f"{name} is not an option of AC-LoRA; did you mean {near[0]}?")

    def choice(self, name: str, known: tuple[str, ...], default: str) -> str:
        text = str(self.given.get(name, default)).strip().lower()
        if known == ("true", "false"):
            text = {"1": "true", "yes": "true", "0": "false", "no": "false"}.get(text, text)
        if text not in known:
            self.problems.append(f"{name} must be {' or '.join(known)}, not {text!r}")
            return default
        return text

    def number(self, name: str, default: Any, kind: type = float, low: float = 0, high: float = math.inf) -> Any:
        if name not in self.given:
            return default
        try:
            number = float(self.given[name])
            if not math.isfinite(number) or kind(number) != number or not low <= number <= high:
                raise ValueError
            return kind(number)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            limit = f"from {low:g} to {high:g}" if high < math.inf else f"of at least {low:g}"
            auto = "auto or " * (name in ("ac_p", "ac_every_n_epochs"))
            self.problems.append(f"{name} must be {auto}{what} {limit}, not {self.given[name]!r}")
            return default

    def export(self, name: str) -> Export:
        text = str(self.given.get(name, "energy:0.999")).strip().lower()
        kind, _, value = text.partition(":")
        try:
            if text in ("full", "found"):
                return Export(text, 0)
            if kind == "energy" and 0 < float(value) <= 1:
                return Export("energy", float(value))
            if int(text) >= 1:
                return Export("rank", int(text))
        except ValueError:
            pass
        self.problems.append(f"{name} must be full, found, energy:<a share such as 0.999> or a rank, not {text!r}")
        return Export()

    def rank_pattern(self, name: str) -> Optional[dict[str, int]]:
        if name not in self.given:
            return None
        try:
            pattern = read_pattern(str(self.given[name]).strip())
            ranks = pattern.values() if isinstance(pattern, dict) else [None]
            if not pattern or not all(isinstance(rank, int) and rank >= 0 for rank in ranks):
                raise ValueError("it is not an object of module names and ranks")
            return pattern
        except (OSError, ValueError) as error:
            self.problems.append(f'{name} must be JSON such as {{"lora_unet_...": 4}}, or a file with it: {error}')
            return None


def read_pattern(text: str) -> dict[str, int]:
    """Ranks by module: from JSON, from a .json file, or from the shapes in a LoRA's .safetensors file."""
    if os.path.splitext(text)[1] == ".safetensors":
        with safe_open(text, "pt") as file:
            downs = [key for key in file.keys() if key.endswith(".weight") and ".lora_down." in key]  # noqa: SIM118
            ranks = {key.partition(".")[0]: file.get_slice(key).get_shape()[0] for key in downs}
            # The parts of a split module lie in one tensor; their ranks are in the metadata of a finished run.
            found = json.loads((file.metadata() or {}).get("ss_ac_lora_ranks", "{}"))
            return {**ranks, **{name: rank for name, rank in found.items() if name.partition(".")[0] in ranks}}
    if os.path.splitext(text)[1] == ".json":
        with open(text, encoding="utf-8") as file:
            return json.load(file)
    return json.loads(text)
