"""Network files of PEFT, diffusers and LyCORIS' wrapper under kohya's names, which every program looks for.

| written by                     | the same factor of the same layer                                                  |
|--------------------------------|------------------------------------------------------------------------------------|
| kohya's trainers               | `lora_unet_mid_block_attentions_0_proj_in.lora_down.weight`                        |
| diffusers                      | `unet.mid_block.attentions.0.proj_in.lora_A.weight` (earlier `.lora.down.weight`)  |
| diffusers before 0.22          | `unet.(...).attn1.processor.to_q_lora.down.weight`                                 |
| PEFT                           | `base_model.model.mid_block.attentions.0.proj_in.lora_A.weight`                    |
| LyCORIS' wrapper (SimpleTuner) | `lycoris_mid_block_attentions_0_proj_in.lora_down.weight`                          |

In kohya's files the U-Net of SDXL has the names of its original layout, that of SD1 and SD2 those of diffusers; files
are brought to that too. Names of no such form stay as they are.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from library.adapters.names import rename_start, underscored
from library.errors import UserError
from library.files import Tensors
from library.models.family import TEXT_WIDTHS, Family
from library.models.original_names import inverted, unet_names
from library.models.standard import standard_configs

ADAPTER_METADATA = "lora_adapter_metadata"
"""Where diffusers writes PEFT's ranks and alphas into a file's header."""
DOWN, UP = "lora_down.weight", "lora_up.weight"
_ENDINGS = (
    (re.compile(r"\.lora_A(\.weight)?$|(\.lora|_lora|\.lora_linear_layer)\.down\.weight$"), DOWN),
    (re.compile(r"\.lora_B(\.weight)?$|(\.lora|_lora|\.lora_linear_layer)\.up\.weight$"), UP),
    (re.compile(r"\.lora_A\.\w+\.weight$"), DOWN),
    (re.compile(r"\.lora_B\.\w+\.weight$"), UP),
    (re.compile(r"\.lora_magnitude_vector(\.\w+)*$"), "lora_magnitude_vector"),
)
_OTHER_ENDING = re.compile(
    r"\.(alpha|diff|diff_b|dora_scale|(?:lora_(?:down|up|mid)|a1|a2|b1|b2)\.weight|(?:hada|lokr|oft)_\w+|on_input|[wb]_norm)$"
)
_UNET = re.compile(
    r"^(?:lycoris_)?(?:unet_|diffusion_model_)?"
    r"(?=(?:down|up|input|output)_blocks_|mid_block_|middle_block_|conv_(?:in|out)\b|time_embed|add_embedding|label_emb|out_\d)"
)
_TEXT = re.compile(r"^(?:lycoris_)?(text_encoder(?:_2)?)_(?:text_model_)?(?=embeddings_|encoder_|final_layer_norm)")
_XL = re.compile(
    r"^(?:lora_te[12]_|text_encoder_2_)|_transformer_blocks_[1-9]_|unet_up_blocks_0_attentions|unet_add_embedding|"
    r"unet_label_emb|unet_output_blocks_[01]_1_"
)
_NOT_XL = re.compile(
    r"^lora_te_|unet_down_blocks_(?:0_attentions|3_)|unet_up_blocks_(?:2_attentions|3_)|unet_input_blocks_[12]_1_|"
    r"unet_output_blocks_[678]_1_|unet_(?:in|out)put_blocks_(?:9|10|11)_"
)


def with_kohya_names(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    path: Path,
    *,
    is_sdxl: bool | None = None,
    unet_layout: bool = True,
) -> Tensors:
    """The tensors of a network file under kohya's names; order is kept.

    `is_sdxl` None: the file tells (`tells_sdxl`); names that depend on it stay where it does not. `unet_layout` False
    leaves the U-Net in the layout that the file has. The alpha of a header or config of PEFT's becomes a tensor where
    it is not the rank. Raises `UserError` where a layer is there twice.
    """
    split = {key: _split(key) for key in tensors}
    plain = {module: _plain(module) if ending else module for module, ending in split.values()}
    if is_sdxl is None:
        is_sdxl = tells_sdxl({f"{plain[m]}.{end}": tensors[key] for key, (m, end) in split.items()}, metadata)
    names = {module: _of_family(name, is_sdxl, unet_layout) or module for module, name in plain.items()}
    names |= {key: key for key, ending in split.values() if not ending}
    _refuse_twice(names, path)
    alphas = _Alphas.of_file(metadata, path)
    found: Tensors = {}
    for key, (module, ending) in split.items():
        name = names[module]
        found[key if name == module else f"{name}.{ending}"] = tensors[key]
        if ending == DOWN and alphas is not None and f"{module}.alpha" not in tensors:
            alpha = alphas.of(module, tensors[key].shape[0])
            if alpha is not None:
                found[f"{name}.alpha"] = torch.tensor(alpha)
    return found


def kohya_name(module: str, *, is_sdxl: bool) -> str:
    """A layer of another program's form under the name that kohya's files of a family give it."""
    return module if module.startswith("lora_") else _of_family(_plain(module), is_sdxl, unet_layout=True) or module


def tells_sdxl(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bool | None:
    """Whether a network is for SDXL, by its header, else its layers' names, else the width of its cross attention."""
    version = metadata.get("ss_base_model_version", "") + " " + metadata.get("modelspec.architecture", "")
    if "xl" in version:
        return True
    if "sd_v" in version or "stable-diffusion-v" in version:
        return False
    for pattern, answer in ((_XL, True), (_NOT_XL, False)):
        if any(pattern.search(key) for key in tensors):
            return answer
    for key, tensor in tensors.items():
        if key.endswith(f"attn2_to_k.{DOWN}") and tensor.ndim > 1 and tensor.shape[1] in TEXT_WIDTHS.values():
            return tensor.shape[1] == TEXT_WIDTHS[Family.SDXL]
    return None


def _split(key: str) -> tuple[str, str]:
    """(module, what follows) with factors called as kohya calls them; ("key", "") for what is no part of a layer."""
    for pattern, ending in _ENDINGS:
        if match := pattern.search(key):
            return key[: match.start()], ending
    match = _OTHER_ENDING.search(key)
    return (key[: match.start()], match[1]) if match else (key, "")


def _plain(module: str) -> str:
    """A module as kohya writes it, but for what depends on the family: "lora_unet_...", "text_encoder_2_..."."""
    if module.startswith(("lora_", "oft_", "loha_", "bundle_emb.")):
        return module
    name = module.removeprefix("base_model.model.").replace(".processor.", ".").replace(".", "_")
    if text := _TEXT.match(name):
        inner = re.sub(r"(?<=self_attn_)to_(q|k|v|out)$", r"\1_proj", name[text.end() :])
        return f"{text[1]}_text_model_{inner}"
    if unet := _UNET.match(name):
        return "lora_unet_" + re.sub(r"_to_out$", "_to_out_0", name[unet.end() :])
    return module


def _of_family(name: str, is_sdxl: bool | None, unet_layout: bool) -> str | None:
    """The name in files of the family; None where that cannot be known."""
    if name.startswith("text_encoder_2_text_model_"):
        return "lora_te2_" + name.removeprefix("text_encoder_2_")
    if name.startswith("text_encoder_text_model_"):
        return None if is_sdxl is None else f"lora_te{'1' * is_sdxl}_" + name.removeprefix("text_encoder_")
    if name.startswith("lora_unet_") and unet_layout and is_sdxl is not None:
        return "lora_unet_" + rename_start(name.removeprefix("lora_unet_"), _unet_table(is_sdxl))
    return name


@cache
def _unet_table(is_sdxl: bool) -> dict[str, str]:
    """What is not in the layout of kohya's files: what it is there."""
    names = unet_names(standard_configs(Family.SDXL if is_sdxl else Family.SD1)["unet"])
    return underscored(inverted(names) if is_sdxl else names)


def _refuse_twice(names: Mapping[str, str], path: Path) -> None:
    seen: dict[str, str] = {}
    for module, name in names.items():
        if seen.setdefault(name, module) != module:
            raise UserError(
                f"`{path}`: `{seen[name]}` and `{module}` are two names of one layer (`{name}`): the file holds a "
                "network twice; keep one of them"
            )


class _Alphas:
    """What PEFT's config says of alphas: for all layers of a part, and for some by their names."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config

    @classmethod
    def of_file(cls, metadata: Mapping[str, str], path: Path) -> _Alphas | None:
        """From the header, else from the config that PEFT writes beside its file; None where there is neither."""
        text = metadata.get(ADAPTER_METADATA)
        beside = path.with_name("adapter_config.json")
        try:
            if text is None and path.stem == "adapter_model" and beside.is_file():
                text = beside.read_text(encoding="utf-8")
            config = json.loads(text) if text is not None else None
        except (OSError, ValueError, RecursionError):
            return None
        return cls(config) if isinstance(config, dict) else None

    def of(self, module: str, rank: int) -> float | None:
        """The alpha of a layer as kohya's files mean it; None where it is the rank, or nothing says so."""
        parts = [part for part in ("text_encoder_2", "text_encoder", "unet") if module.startswith(f"{part}.")]
        prefix = f"{parts[0]}." if parts else ""
        inner = module.removeprefix(prefix).removeprefix("base_model.model.")
        alpha = self._config.get(f"{prefix}lora_alpha")
        pattern = self._config.get(f"{prefix}alpha_pattern")
        for name, value in pattern.items() if isinstance(pattern, dict) else ():
            if inner == name or inner.endswith(f".{name}"):
                alpha = value
        if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not math.isfinite(alpha):
            return None
        if self._config.get(f"{prefix}use_rslora") is True:
            alpha *= math.sqrt(rank)
        return None if alpha == rank else float(alpha)
