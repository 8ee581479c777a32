"""The configs of the published models, for single files, which hold weights alone.

They lie beside this file as data (`configs/*.json`), one file a family, with one entry for each part.
"""

from __future__ import annotations

import json
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from library.models.family import Family, PredictionType

Configs = dict[str, dict[str, Any]]

_FOLDER = Path(__file__).parent / "configs"
_SD2_BASE_SAMPLE_SIZE = 64  # SD2's epsilon models were trained at 512, its v models at 768 pixels


def standard_configs(family: Family, prediction_type: PredictionType = "epsilon") -> Configs:
    """Configs of "unet", "vae", "text_encoder" (and "text_encoder_2") and "scheduler"; a copy that may be changed."""
    configs = deepcopy(_read(family))
    if family is Family.SD2 and prediction_type == "epsilon":
        configs["unet"]["sample_size"] = _SD2_BASE_SAMPLE_SIZE
    configs["scheduler"]["prediction_type"] = prediction_type
    return configs


@cache
def _read(family: Family) -> Configs:
    return json.loads((_FOLDER / f"{family.value}.json").read_text(encoding="utf-8"))
