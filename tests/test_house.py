"""Which room may know which: data walks one way, from the commands down to the ground, as CONTRIBUTING.md draws it."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WINGS = ("library", "networks", "embeddings", "restoration", "miniworld")

FLOORS = (
    "miniworld sdxl_train_network train_batch",
    "train_network restoration embeddings library.batch",
    "library.training networks evaluate",
    "library.sampling library.data library.metrics library.adapters",
    "library.models",
    "library.report library.streamed_weights library.kohya_names",
    "library.files library.diffusion library.image_files",
    "library.config",
    "library.atomic library.command library.launch",
    "library.console",
    "library.errors library.findings library.formatting library.path_safety library.bounded_text",
)
"""Every room of the house, the top floor first. A room may import those of lower floors and no others."""

HEIGHT = {room: -floor for floor, rooms in enumerate(FLOORS) for room in rooms.split()}

TRAINING = (
    "plan",
    "setup loop",
    "summary",
    "run",
    "callbacks",
    "step trained",
    "work",
    "log optim",
    "runtime",
    "saving step_figures trainables rectified_flow",
    "clock objectives nan_guard progress signals",
)
"""The same inside library/training, its folders and the files in front."""

TRAINING_HEIGHT = {part: -floor for floor, parts in enumerate(TRAINING) for part in parts.split()}

MOST_IN_FRONT = 20
"""A folder with more files than these wants folders inside."""


@cache
def modules() -> dict[str, Path]:
    """Every module but the tests, by its dotted name."""
    files = [*ROOT.glob("*.py"), *(file for wing in WINGS for file in (ROOT / wing).rglob("*.py"))]
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def room_of(module: str) -> str:
    """library.data.preflight.page belongs to library.data, restoration.pivots.build to restoration."""
    return ".".join(module.split(".")[: 2 if module.startswith("library.") else 1])


@cache
def imported(module: str) -> frozenset[str]:
    """The modules of the house that one imports: at its top, inside a function, or for the type checker only."""
    return frozenset(_imported(ast.parse(modules()[module].read_text(encoding="utf-8")))) & modules().keys()


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports name the whole path"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from names & modules().keys() or {node.module or ""}


def test_every_room_stands_on_a_floor():
    assert {room_of(module) for module in modules()} - {"library"} == HEIGHT.keys()


def test_nothing_imports_upwards():
    arrows = [(module, known) for module in modules() for known in imported(module)]
    across = [(module, known) for module, known in arrows if room_of(module) != room_of(known)]
    upward = [f"{a} imports {b}" for a, b in across if HEIGHT[room_of(a)] <= HEIGHT[room_of(b)]]
    assert len(across) > 500
    assert upward == []


def part_of_training(module: str) -> str:
    """library.training.callbacks.validation belongs to callbacks, library.training.loop to loop."""
    return module.split(".")[2]


def test_every_part_of_the_training_has_its_floor_and_imports_lower_ones_only():
    inside = [module for module in modules() if module.startswith("library.training.")]
    arrows = [(a, b) for a in inside for b in imported(a) & set(inside) if part_of_training(a) != part_of_training(b)]
    height = TRAINING_HEIGHT
    upward = [f"{a} imports {b}" for a, b in arrows if height[part_of_training(a)] <= height[part_of_training(b)]]
    assert {part_of_training(module) for module in inside} == height.keys()
    assert len(arrows) > 100
    assert upward == []


def test_no_folder_is_so_full_that_nobody_finds_a_file():
    """Folders whose files stand side by side with equal rights (options, network modules) may be longer."""
    folders = {file.parent for name, file in modules().items() if name.split(".")[0] in WINGS}
    counts = {str(f.relative_to(ROOT)): len([p for p in f.glob("*.py") if p.name != "__init__.py"]) for f in folders}
    free = {"library/config", "library/config/options", "miniworld", "miniworld/prove", "networks"}
    assert {folder: n for folder, n in counts.items() if n > MOST_IN_FRONT and folder not in free} == {}


def test_no_files_import_each_other_in_a_circle():
    try:
        TopologicalSorter({module: imported(module) for module in modules()}).prepare()
    except CycleError as circle:
        pytest.fail(" imports ".join(reversed(circle.args[1])))


@pytest.mark.parametrize("method", ["ac.?lora", "cross.?init", "dual.?pivot"])
def test_the_engine_names_no_method(method: str):
    files = [file for file in (ROOT / "library").rglob("*") if file.suffix in (".py", ".html", ".js", ".css")]
    naming = [str(file) for file in files if re.search(method, file.read_text(encoding="utf-8"), re.IGNORECASE)]
    assert len(files) > 200
    assert naming == []


def network_modules() -> list[str]:
    """The modules of networks/ that offer `create_network`, with what they import from there."""
    source = {m: f.read_text(encoding="utf-8") for m, f in modules().items() if m.startswith("networks.")}
    found = {m for m, text in source.items() if re.search(r"^def create_network\b", text, re.MULTILINE)}
    while more := {known for m in found for known in imported(m) if known.startswith("networks.")} - found:
        found |= more
    return sorted(found)


@pytest.mark.parametrize("module", network_modules())
def test_network_modules_are_python_3_10_and_import_only_torch_and_safetensors(module: str):
    """They also run inside other trainers, where `library` is another package."""
    tree = ast.parse(modules()[module].read_text(encoding="utf-8"), feature_version=(3, 10))
    found = {name.split(".")[0] for name in _imported(tree)}
    assert found - sys.stdlib_module_names <= {"torch", "safetensors", "networks"}
    assert imported(module) <= set(network_modules())
    assert not (ROOT / "networks" / "__init__.py").exists()


def test_the_network_modules_are_found_by_what_they_offer():
    assert {"networks.lora", "networks.ac_lora", "networks.lora_arguments"} <= set(network_modules())
    assert "networks.resize_lora" not in network_modules()
