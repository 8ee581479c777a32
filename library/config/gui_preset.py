"""A preset that the kohya_ss GUI has saved (JSON), as the training config that it stands for.

The GUI leaves out what is empty or 0, calls some options otherwise, and makes a network module of a type and several
numbers. Keys that only arrange the GUI itself are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from library.config.toml_file import ConfigFile

CALLED_OTHERWISE = {
    "epoch": "max_train_epochs",
    "max_resolution": "resolution",
    "optimizer": "optimizer_type",
    "lora_network_weights": "network_weights",
    "sdxl_no_half_vae": "no_half_vae",
    "sdxl_cache_text_encoder_outputs": "cache_text_encoder_outputs",
}
ZERO_MEANS_ZERO = ("learning_rate", "unet_lr", "text_encoder_lr", "max_data_loader_n_workers", "keep_tokens", "seed")
"""Everywhere else the GUI takes a 0 for "not asked for"."""
OF_THE_GUI = (
    *("LoRA_type", "additional_parameters", "block_lr_zero_threshold", "down_lr_weight", "mid_lr_weight"),
    *("up_lr_weight", "noise_offset_type", "num_cpu_threads_per_process", "stop_text_encoder_training_pct"),
    *("stop_text_encoder_training", "model_list", "train_on_input", "no_token_padding", "lr_warmup", "xformers"),
    *("optimizer_args", "lr_scheduler_args", "conv_dim", "conv_alpha", "rank_dropout", "module_dropout", "unit"),
    *("use_cp", "decompose_both", "factor", "train_norm", "use_tucker", "use_scalar", "rank_dropout_scale"),
    *("dora_wd", "bypass_mode", "constrain", "rescaled", "full_matrix", "block_dims", "block_alphas"),
    *("conv_block_dims", "conv_block_alphas", "LyCORIS_preset", "save_as_bool", "color_mode"),
)
NETWORKS = {
    "Standard": ("networks.lora", None),
    "Kohya LoCon": ("networks.lora", None),
    "LoRA-FA": ("networks.lora_fa", None),
    "Kohya DyLoRA": ("networks.dylora", None),
    "LyCORIS/LoCon": ("lycoris.kohya", "locon"),
    "LyCORIS/LoHa": ("lycoris.kohya", "loha"),
    "LyCORIS/LoKr": ("lycoris.kohya", "lokr"),
    "LyCORIS/DyLoRA": ("lycoris.kohya", "dylora"),
    "LyCORIS/iA3": ("lycoris.kohya", "ia3"),
    "LyCORIS/Diag-OFT": ("lycoris.kohya", "diag-oft"),
    "LyCORIS/BOFT": ("lycoris.kohya", "boft"),
    "LyCORIS/GLoRA": ("lycoris.kohya", "glora"),
    "LyCORIS/Native Fine-Tuning": ("lycoris.kohya", "full"),
}
"""LoRA_type of the GUI -> network module and its algo."""
OF_A_CONVOLUTION = ("conv_dim", "conv_alpha")
OF_ALL = ("rank_dropout", "module_dropout", "block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas")
OF_BLOCKS = ("down_lr_weight", "mid_lr_weight", "up_lr_weight", "block_lr_zero_threshold")
OF_LYCORIS = ("use_cp", "use_tucker", "use_scalar", "decompose_both", "factor", "train_norm", "dora_wd", "bypass_mode")


def as_training_config(preset: ConfigFile) -> ConfigFile:
    """The same with the options' names; every key keeps its line."""
    tables: dict[str, Any] = {}
    lines: dict[tuple[str | int, ...], int] = {}

    def put(name: str, value: Any, source: str) -> None:
        tables[name] = value
        if (source,) in preset.lines:
            lines[name,] = preset.lines[source,]

    for key, value in preset.tables.items():
        name = CALLED_OTHERWISE.get(key, key)
        taken = key == "epoch" and asked_for("max_train_epochs", preset.tables.get("max_train_epochs"))
        if key not in OF_THE_GUI and asked_for(name, value) and not taken:
            put(name, whole(value), key)
    if attention := {True: "xformers", "xformers": "xformers", "sdpa": "sdpa"}.get(preset.tables.get("xformers", "")):
        put(attention, True, "xformers")
    if asked_for("lr_warmup", preset.tables.get("lr_warmup")):
        put("lr_warmup_steps", f"{preset.tables['lr_warmup']}%", "lr_warmup")
    for name in ("optimizer_args", "lr_scheduler_args"):
        if words := str(preset.tables.get(name) or "").split():
            put(name, words, name)
    kind = preset.tables.get("LoRA_type", "Standard")
    module, algorithm = NETWORKS.get(kind, ("", None))
    if "network_module" not in tables:  # a training config that somebody keeps as JSON has its own
        put("network_module", module or str(kind), "LoRA_type")
    if arguments := network_arguments(preset.tables, kind, algorithm):
        put("network_args", arguments, "LoRA_type")
    return ConfigFile(preset.path, tables, lines)


def network_arguments(preset: Mapping[str, Any], kind: str, algorithm: str | None) -> list[str]:
    """What the GUI passes on to the network module."""
    names = [*OF_ALL, *(OF_BLOCKS if algorithm is None else OF_LYCORIS)]
    if kind != "Standard":
        names += OF_A_CONVOLUTION
    arguments = [f"algo={algorithm}"] if algorithm else []
    if algorithm and preset.get("LyCORIS_preset"):
        arguments.append(f"preset={preset['LyCORIS_preset']}")
    if kind == "Kohya DyLoRA" or algorithm == "dylora":
        names.append("unit")
    if preset.get("factor") == -1:  # LyCORIS' own default
        names = [name for name in names if name != "factor"]
    return arguments + [f"{name}={whole(preset[name])}" for name in names if asked_for(name, preset.get(name))]


def asked_for(name: str, value: Any) -> bool:
    """Whether the GUI would pass a value on."""
    if value is None or value == "" or value is False or value == []:
        return False
    try:
        return float(value) != 0 or name in ZERO_MEANS_ZERO
    except (TypeError, ValueError):
        return True


def whole(value: Any) -> Any:
    """The GUI's sliders save 4 as 4.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
