"""Photographs with captions to rehearse on: those that ship inside the scikit-image wheel, found by path.

The package is a development dependency and is never imported.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from library.errors import UserError

CAPTIONS = {
    "astronaut.png": "a portrait photo of a smiling astronaut in an orange suit, a flag behind her",
    "chelsea.png": "a close photo of a ginger tabby cat",
    "camera.png": "a black and white photo of a man with a camera on a tripod",
    "coffee.png": "a photo of a cup of coffee with a spoon on a wooden table",
    "coins.png": "a grey photo of old coins in rows",
    "hubble_deep_field.jpg": "a photo of many galaxies in a black sky",
    "motorcycle_left.png": "a photo of a red motorcycle in a garage",
    "rocket.jpg": "a photo of a rocket on its launch pad",
}


def write_photographs(parent: Path, count: int = len(CAPTIONS)) -> Path:
    """A `train_data_dir` with `count` of the photographs and their caption files; returns it."""
    spec = importlib.util.find_spec("skimage")  # finds the files without running the package
    places = [Path(place) / "data" for place in (spec.submodule_search_locations or [])] if spec else []
    source = next((place for place in places if (place / "astronaut.png").is_file()), None)
    if source is None:
        raise UserError(
            "The photographs of scikit-image are not on this machine. "
            "Run `python -m pip install scikit-image`, or give a folder of your own with --pictures."
        )
    folder = parent / "1_photo"
    folder.mkdir(parents=True, exist_ok=True)
    for name, caption in list(CAPTIONS.items())[:count]:
        shutil.copy(source / name, folder / name)
        (folder / name).with_suffix(".txt").write_text(caption, encoding="utf-8")
    return parent
