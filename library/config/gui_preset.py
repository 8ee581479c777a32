"""A preset that the kohya_ss GUI has saved (JSON), as the training config that it stands for.

What the GUI would hand to the trainer is what is trained: it leaves out what is empty or 0, knows the noise by a type,
makes a network module of another type and several numbers, and takes steps before epochs. Keys that only arrange the
GUI itself are passed over. What a preset leaves out has the value that a GUI just opened shows.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from library.config.gui_fields import (
    ARGUMENT_SHOWN,
    CALLED_OTHERWISE,
    ELSEWHERE,
    KOHYA,
    LORA_PLUS,
    LOST,
    LYCORIS,
    NOISE,
    ONLY_WITH_SDXL,
    OTHER_MODELS,
    OTHER_TABS,
    OTHER_TYPES,
    SHOWN,
    TEXT_IS,
    TEXT_IS_ZERO,
    is_passed_over,
)
from library.config.toml_file import ConfigFile
from library.config.toml_lines import Keys
from library.errors import ConfigError

MARKS = ("LoRA_type", "max_resolution", "optimizer", "lr_warmup", "epoch", "model_list", "noise_offset_type")
PICTURES = (".jpg", ".jpeg", ".png", ".webp")
"""What the GUI counts to know how many steps an epoch has."""


@dataclass
class Preset:
    """The training config; further words for the command line, and where they are; what is worth knowing."""

    config: ConfigFile
    words: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def is_from_the_gui(file: ConfigFile) -> bool:
    """Whether it is no training config that somebody keeps as JSON, under the names of the options."""
    marked = any(mark in file.tables and not isinstance(file.tables[mark], dict) for mark in MARKS)
    return file.path.suffix == ".json" and marked and "network_module" not in file.tables


def as_training_config(file: ConfigFile, asked: Mapping[str, Any]) -> Preset:
    """The same with the options' names; every key keeps its line. Raises ConfigError for other models and tabs.

    `asked` is what is on the command line: the pictures of a run, by which the GUI counts its steps.
    """
    refuse_other_trainings(file)
    shown = as_the_gui_shows(file.tables)
    tables: dict[str, Any] = {}
    lines: dict[Keys, int] = {}

    def put(name: str, value: Any, *sources: str) -> None:
        tables[name] = whole(value)
        if line := next((file.lines[source,] for source in sources if (source,) in file.lines), None):
            lines[name,] = line

    for key, value in shown.items():
        if key not in ELSEWHERE and not is_passed_over(key) and is_asked_for(value):
            put(CALLED_OTHERWISE.get(key, key), value, key)
    for key in NOISE.get(str(shown["noise_offset_type"]), ()):
        if is_asked_for(shown.get(key)) and (key != "multires_noise_discount" or "multires_noise_iterations" in tables):
            put(key, shown[key], key)
    for key, name in ONLY_WITH_SDXL.items():
        if shown.get("sdxl") and shown.get(key):
            put(name, True, key)
    for name, value, source in (
        *rates(shown, file),
        *lengths(shown, {**file.tables, **asked}),
        *attention(shown),
        *warm_up(shown, {**file.tables, **asked}),
    ):
        put(name, value, source)
    put("max_data_loader_n_workers", shown["max_data_loader_n_workers"], "max_data_loader_n_workers")
    for name in ("optimizer_args", "lr_scheduler_args"):
        if words := unquoted_words(shown.get(name)):
            put(name, words, name)
    if shown.get("sample_prompts") or asked.get("sample_prompts"):
        put("sample_sampler", shown["sample_sampler"], "sample_sampler")
    if is_asked_for(shown.get("log_with")):
        put("wandb_run_name", shown.get("wandb_run_name") or shown.get("output_name") or "", "wandb_run_name")
    module, arguments = network(shown)
    put("network_module", module, "LoRA_type")
    if arguments:
        put("network_args", arguments, "LoRA_type")
    return Preset(ConfigFile(file.path, tables, lines), unquoted_words(shown.get("additional_parameters")), lost(file))


def refuse_other_trainings(file: ConfigFile) -> None:
    """Presets for models that this trainer does not have, and of tabs that train no network."""
    kind = str(file.tables.get("LoRA_type") or "")
    for key, model in OTHER_MODELS.items():
        if file.tables.get(key) is True:
            raise ConfigError(f"`{key}` {file.origin(key).phrase}: a preset for {model}{ONLY}")
    if kind in OTHER_TYPES:
        raise ConfigError(f"`LoRA_type` {file.origin('LoRA_type').phrase} is {kind!r}, for {OTHER_TYPES[kind]}{ONLY}")
    for key, tab in OTHER_TABS.items() if not kind else ():
        if key in file.tables:
            raise ConfigError(
                f"{file.path.name} is a preset of the GUI's tab {tab} (`{key}` {file.origin(key).phrase}); presets of "
                "its tab LoRA are read: choose one of them, or write the options into a TOML file."
            )


ONLY = "; this trainer is for Stable Diffusion 1, 2 and XL: choose a preset for one of them."


def as_the_gui_shows(preset: Mapping[str, Any]) -> dict[str, Any]:
    """What its fields hold once a preset is opened: old names and values brought up to date, gaps filled."""
    shown = {key: value for key, value in preset.items() if value is not None}
    shown.setdefault("optimizer", "AdamW8bit" if shown.get("use_8bit_adam") else "AdamW")
    for key in {*TEXT_IS_ZERO, *TEXT_IS} & set(shown):
        shown[key] = number(shown[key], TEXT_IS.get(key, 0))
    if shown.get("use_wandb") == "True":
        shown["log_with"] = "wandb"
    if shown.get("save_model_as") not in (None, "safetensors", "ckpt"):
        shown["save_model_as"] = "safetensors"
    return {**SHOWN, **shown}


def rates(shown: Mapping[str, Any], file: ConfigFile) -> Iterator[tuple[str, Any, str]]:
    """A rate of 0 for one of U-Net and text encoder leaves that one out; two of 0 mean `learning_rate` for both."""
    unet, text = number(shown["unet_lr"], 0), number(shown["text_encoder_lr"], 0)
    if not (unet or text or number(shown["learning_rate"], 0)):
        raise ConfigError(
            f"`learning_rate` {file.origin('learning_rate').phrase} is 0, as `unet_lr` and `text_encoder_lr` are: "
            "nothing would be trained; give one of them."
        )
    if unet:
        yield "unet_lr", unet, "unet_lr"
    if text:
        yield "text_encoder_lr", text, "text_encoder_lr"
    if unet and not text:
        yield "network_train_unet_only", True, "text_encoder_lr"
    if text and not unet:
        yield "network_train_text_encoder_only", True, "unet_lr"


def lengths(shown: Mapping[str, Any], at_hand: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Epochs and steps. `epoch` only counts where neither is given, and becomes steps by what is in the folder."""
    epochs, steps = (number(shown.get(name), 0) for name in ("max_train_epochs", "max_train_steps"))
    if epochs:
        yield "max_train_epochs", epochs, "max_train_epochs"
    if steps:
        yield "max_train_steps", steps, "max_train_steps"
    elif not epochs and not at_hand.get("dataset_config"):
        counted = steps_of(shown["epoch"], at_hand)
        yield ("max_train_steps", counted, "epoch") if counted else ("max_train_epochs", shown["epoch"], "epoch")


def steps_of(epochs: float, at_hand: Mapping[str, Any]) -> int:
    """The steps that the GUI counts for some epochs: of all pictures in a batch, whatever their shapes; 0: unknown."""
    folder = at_hand.get("train_data_dir")
    if not folder or not os.path.isdir(str(folder)):
        return 0
    pictures = 0
    for part in Path(str(folder)).iterdir():
        repeats = part.name.partition("_")[0]
        if part.is_dir() and repeats.isdecimal():
            pictures += int(repeats) * sum(name.lower().endswith(PICTURES) for name in os.listdir(part))
    batch = number(at_hand.get("train_batch_size"), 1) or 1
    accumulated = number(at_hand.get("gradient_accumulation_steps"), 1) or 1
    return math.ceil(pictures / batch / accumulated * epochs * (2 if at_hand.get("reg_data_dir") else 1))


def attention(shown: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    if shown["xformers"] in (True, "xformers"):
        yield "xformers", True, "xformers"
    elif shown["xformers"] == "sdpa":
        yield "sdpa", True, "xformers"


def warm_up(shown: Mapping[str, Any], at_hand: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Steps, else a percentage; with a dataset description of the steps that are given."""
    steps, percent = number(shown.get("lr_warmup_steps"), 0), number(shown["lr_warmup"], 0)
    whole_run = number(shown.get("max_train_steps"), 0)
    if steps > 0 and (whole_run or not at_hand.get("dataset_config")):
        yield "lr_warmup_steps", int(steps), "lr_warmup_steps"
    elif percent and whole_run and at_hand.get("dataset_config"):
        yield "lr_warmup_steps", round(percent * whole_run / 100), "lr_warmup"
    elif percent:
        yield "lr_warmup_steps", f"{percent}%", "lr_warmup"


def network(shown: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The network module and its arguments."""
    kind = str(shown.get("LoRA_type") or "Standard")
    if kind in LYCORIS:
        algorithm, always = LYCORIS[kind]
        module, always, else_not_zero = "lycoris.kohya", ("LyCORIS_preset", *always), ()
        arguments = [f"algo={algorithm}"]
    else:
        (module, always, else_not_zero), arguments = KOHYA.get(kind, (kind, (), KOHYA["Standard"][2])), []
    values = {**ARGUMENT_SHOWN, **{key: value for key, value in shown.items() if value != ""}}
    values["block_size"] = values["unit"]
    arguments += [argument(name, values[name]) for name in always]
    for name in (*else_not_zero, *LORA_PLUS):
        value = values.get(name)
        if is_asked_for(value) and not (name == "factor" and value == -1):
            arguments.append(argument(name, value))
    if kind in ("Kohya LoHa", "Kohya LoKr") and not is_asked_for(values["conv_dim"]):
        arguments = [text for text in arguments if not text.startswith("conv_")]
    return module, arguments


ARGUMENTS_CALLED = {"LyCORIS_preset": "preset", "constrain": "constraint"}


def argument(name: str, value: Any) -> str:
    called = ARGUMENTS_CALLED.get(name, name)
    return f"{called}={whole(value) if not isinstance(value, str) else ''.join(value.split())}"


def lost(file: ConfigFile) -> list[str]:
    """One line for what would change the training, and for keys that nobody knows."""
    names = [f"`{key}`" for key, nothing in LOST.items() if file.tables.get(key, nothing) not in (nothing, "", None, 0)]
    if not names:
        return []
    return [
        f"Not taken over from {file.path.name}: {', '.join(names)}; processes and compiling are arguments of "
        "`accelerate launch`, and inpainting models are not trained."
    ]


def is_asked_for(value: Any) -> bool:
    """Whether the GUI would write a value into its config: not what is empty or 0."""
    if value is None or value is False or value == "" or value == []:
        return False
    return number(value, 1) != 0


def unquoted_words(text: Any) -> list[str]:
    """Arguments in one text, as the GUI takes them: its quotes mean nothing."""
    return str(text or "").replace('"', "").split()


def number(value: Any, otherwise: float) -> float:
    """A number that may be written as text; whole ones as int."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return otherwise
    return whole(found) if math.isfinite(found) else otherwise


def whole(value: Any) -> Any:
    """The GUI's sliders save 4 as 4.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
