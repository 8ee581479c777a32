"""The `modelspec.*` entries of a file's header: what it is, for programs that list and sort models.

The Stability AI model metadata standard, version 1.0.1: https://github.com/Stability-AI/ModelSpec
"""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from library.adapters.metadata import Metadata, ModelFacts, software_version
from library.errors import UserError

ARCHITECTURES = {
    "sd_v1": "stable-diffusion-v1",
    "sd_v1_v": "stable-diffusion-v1",
    "sd_v2": "stable-diffusion-v2-512",
    "sd_v2_v": "stable-diffusion-v2-768-v",
    "sdxl_base_v1-0": "stable-diffusion-xl-v1-base",
}
SGM = "https://github.com/Stability-AI/generative-models"  # where the names in an SDXL network come from
LARGEST_THUMBNAIL = 2 * 1024 * 1024  # bytes; it is a part of the header that every reader parses

COPIED = """
    author description license tags usage_hint merged_from trigger_phrase preprocessor is_negative_embedding
""".split()  # noqa: SIM905 (from the option metadata_{name}, where given)


def modelspec(
    settings: Mapping[str, Any],
    model: ModelFacts,
    *,
    kind: str,
    title: str,
    resolution: tuple[int, int],
    date: datetime,
) -> Metadata:
    """All entries of a file of `kind` ("lora", "textual-inversion"); resolution is (width, height) of the training.

    `title` is used where metadata_title is not given. Raises `UserError` if metadata_thumbnail cannot be read.
    """
    spec = {
        "sai_model_spec": "1.0.1",
        "architecture": f"{ARCHITECTURES[model.version]}/{kind}",
        "implementation": SGM if model.family == "sdxl" and kind == "lora" else "diffusers",
        "implementation_version": software_version(),
        "title": settings.get("metadata_title") or title,
        "resolution": f"{resolution[0]}x{resolution[1]}",
        "date": date.isoformat(timespec="seconds"),
        "prediction_type": "rectified_flow" if model.is_flow else "v" if model.is_v_prediction else "epsilon",
    }
    least, most = settings.get("min_timestep"), settings.get("max_timestep")
    if least is not None or most is not None:
        spec["timestep_range"] = f"{least or 0},{1000 if most is None else most}"
    if settings.get("clip_skip") is not None:
        spec["encoder_layer"] = str(settings["clip_skip"])
    for name in COPIED:
        if settings.get(f"metadata_{name}"):
            spec[name] = str(settings[f"metadata_{name}"])
    if settings.get("metadata_thumbnail"):
        spec["thumbnail"] = thumbnail(str(settings["metadata_thumbnail"]))
    return {f"modelspec.{name}": value for name, value in spec.items()}


def thumbnail(source: str) -> str:
    """A data URL: `source` itself if it is one, else the picture file at that path."""
    if source.startswith("data:"):
        return source
    path = Path(source)
    kind = mimetypes.guess_type(path.name)[0] or ""
    if not path.is_file() or not kind.startswith("image/"):
        raise UserError(f"`metadata_thumbnail`: `{source}` is not a picture file; give a .jpg, .png or .webp file")
    if path.stat().st_size > LARGEST_THUMBNAIL:
        raise UserError(f"`metadata_thumbnail`: `{source}` is larger than 2 MiB; make it smaller (256 px are enough)")
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
