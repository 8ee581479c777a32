"""Where a module that somebody names would be found; nothing of it is imported."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from library.config.suggest import nearest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"lycoris": "lycoris-lora", "skimage": "scikit-image", "cv2": "opencv-python-headless"}
"""What has to be installed for a module, where its name is another."""
OF_SD_SCRIPTS = ("dylora", "lora_fa", "loha", "lokr", "oft", "lora_flux", "lora_sd3")
"""Modules of sd-scripts in its folder `networks` that are not part of this project."""


def is_importable(module: str) -> bool:
    """Whether the package at the top of a module's name can be found."""
    top = module.partition(".")[0]
    if top in sys.modules:
        return True
    try:
        return find_spec(top) is not None  # of a name without dots: nothing is imported
    except (ImportError, ValueError):
        return False


def is_nowhere(name: str, config: Path | None) -> bool:
    """Whether a network module is neither in the environment nor here, in the current folder or beside the config."""
    top, _, inner = name.removeprefix("sd_scripts.").partition(".")
    if top != "networks" or not inner:
        beside = any((folder / top).is_dir() or (folder / f"{top}.py").is_file() for folder in _folders(config))
        return not (is_importable(top) or beside)
    return not any(
        (folder / "networks" / inner.replace(".", "/")).with_suffix(end).exists()
        for folder in _folders(config)
        for end in ("", ".py")
    )


def nearest_module(name: str, config: Path | None) -> str | None:
    """For a network module that is nowhere, one of nearly the same name."""
    spelled = name.removeprefix("sd_scripts.")
    if spelled.removeprefix("networks.") in OF_SD_SCRIPTS or not is_nowhere(name, config):
        return None
    ours = [f"networks.{file.stem}" for file in (ROOT / "networks").glob("*.py") if _makes_networks(file)]
    beside = [file.stem for folder in _folders(config)[1:3] for file in folder.glob("*.py") if _makes_networks(file)]
    return nearest(spelled, [*ours, *beside])


def where_it_may_be(name: str) -> str:
    """What to do about a network module that is nowhere."""
    top, _, last = name.removeprefix("sd_scripts.").partition(".")
    if top in PACKAGES:
        return f"it comes with the package {PACKAGES[top]}: `pip install {PACKAGES[top]}`."
    if top == "networks" and last.isidentifier():
        return f"if it is one of sd-scripts, copy its networks/{last}.py into a folder `networks` beside the config."
    return "put its file beside the config, or install the package that it comes with."


def _folders(config: Path | None) -> list[Path]:
    return [ROOT, Path.cwd(), *([config.absolute().parent] if config else []), *map(Path, sys.path)]


def _makes_networks(file: Path) -> bool:
    return "def create_network(" in file.read_text(encoding="utf-8", errors="replace")
