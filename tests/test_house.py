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
    "library.atomic library.command library.console library.launch",
    "library.errors library.findings library.formatting",
)
"""Every room of the house, the top floor first. A room may import those of lower floors and no others."""

HEIGHT = {room: -floor for floor, rooms in enumerate(FLOORS) for room in rooms.split()}


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


@pytest.mark.parametrize("module", sorted(m for m in modules() if re.match(r"networks\.(ac_)?lora", m)))
def test_network_modules_are_python_3_10_and_import_only_torch_and_safetensors(module: str):
    """They also run inside other trainers, where `library` is another package."""
    tree = ast.parse(modules()[module].read_text(encoding="utf-8"), feature_version=(3, 10))
    found = {name.split(".")[0] for name in _imported(tree)}
    assert found - sys.stdlib_module_names <= {"torch", "safetensors", "networks"}
    assert imported(module) <= {m for m in modules() if re.match(r"networks\.(ac_)?lora", m)}
    assert not (ROOT / "networks" / "__init__.py").exists()
