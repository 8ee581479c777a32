"""Headers of what is made out of other files: what kind of model they are for, and what they were made from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal, cast

from library.adapters.layers import NetworkFile, update_of
from library.adapters.metadata import Metadata, ModelFacts
from library.adapters.modelspec import modelspec
from library.adapters.save_network import common
from library.models.family import TEXT_WIDTHS

_SIZES = {"sd1": 512, "sd2": 768, "sdxl": 1024}


def base_model(networks: Sequence[NetworkFile], *, is_sd2: bool | None = None) -> ModelFacts | None:
    """What the networks were trained on, from their headers, else from their names and shapes; None if nothing says it.

    `is_sd2` is what a person says (kohya's `--v2`), which counts where the files are silent.
    """
    versions = [network.metadata.get("ss_base_model_version", "") for network in networks]
    is_v = any(
        text.endswith("_v") or network.metadata.get("modelspec.prediction_type") in ("v", "v_prediction")
        for text, network in zip(versions, networks, strict=True)
    )
    is_flow = any(network.metadata.get("modelspec.prediction_type") == "rectified_flow" for network in networks)
    version = next((text for text in versions if text.startswith(("sd_v1", "sd_v2", "sdxl"))), "")
    family = {"sd_v1": "sd1", "sd_v2": "sd2", "sdxl_": "sdxl"}.get(version[:5]) or _family_of_layers(networks)
    if family is None and is_sd2:
        family = "sd2"
    if family is None:
        return None
    return ModelFacts(cast(Literal["sd1", "sd2", "sdxl"], family), is_v, "", is_flow=is_flow)


def _family_of_layers(networks: Sequence[NetworkFile]) -> str | None:
    for network in networks:
        for name, layer in network.layers.items():
            if "unet_input_blocks" in name or name.startswith(("lora_te1_", "lora_te2_")):
                return "sdxl"
            if name.replace(".", "_").endswith("attn2_to_k"):
                width = update_of(layer).down.shape[1]
                return next((family.value for family, own in TEXT_WIDTHS.items() if own == width), None)
    return None


def merged_metadata(
    networks: Sequence[NetworkFile],
    model: ModelFacts | None,
    ranks: Iterable[int],
    alphas: Iterable[float],
    *,
    title: str,
    arguments: Mapping[str, str] | None = None,
    brief: bool = False,
) -> Metadata:
    """The header of networks merged into one: what loading needs, and unless `brief`, a modelspec with their titles."""
    header = {"ss_network_module": "networks.lora", "ss_network_dim": common(ranks), "ss_network_alpha": common(alphas)}
    if arguments:
        header["ss_network_args"] = json.dumps(dict(arguments))
    if model is not None:
        header |= {"ss_v2": str(model.family == "sd2"), "ss_base_model_version": model.version}
    if not brief and model is not None:
        header |= specified(model, "lora", title, [network_title(network) for network in networks])
    return header


def specified(model: ModelFacts, kind: str, title: str, merged_from: Sequence[str]) -> Metadata:
    """The modelspec of a file of `kind`; `merged_from` are the titles of what it was made from."""
    size = 512 if model.version == "sd_v2" else _SIZES[model.family]
    settings = {"metadata_merged_from": ", ".join(merged_from)}
    return modelspec(settings, model, kind=kind, title=title, resolution=(size, size), date=datetime.now().astimezone())


def network_title(network: NetworkFile) -> str:
    return title_of(network.path, network.metadata)


def title_of(path: Path, metadata: Metadata) -> str:
    return metadata.get("modelspec.title") or path.stem
