"""The names of kohya's own `library` that network modules written for sd-scripts import.

Such a module says `from library.utils import setup_logging`; here `library` is another package. Once `offer()` has been
called, the few names below can be imported as they can there, also from inside a function while a file is saved. A file
of ours would win over one of the same name, and any other name of kohya's stays unknown: `unknown_import` tells which.
"""

from __future__ import annotations

import ast
import contextlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from library.files import tensor_hashes


def setup_logging(args: Any = None, log_level: str | None = None, reset: bool = False) -> None:
    """Nothing: what a module logs goes where the logging of this process goes."""


def precalculate_safetensors_hashes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[str, str]:
    """The hash of the tensors, and the older one of a window, by which web UIs know a network file."""
    hashes = tensor_hashes(tensors, metadata)
    return hashes["sshs_model_hash"], hashes["sshs_legacy_hash"]


_of_sdxl: ContextVar[type | None] = ContextVar(
    "the class of the U-Net of SDXL for which a network is made", default=None
)


class _Asked(type):
    def __subclasscheck__(cls, subclass: type) -> bool:
        return subclass is _of_sdxl.get() or super().__subclasscheck__(subclass)


class SdxlUNet2DConditionModel(nn.Module, metaclass=_Asked):
    """kohya's own U-Net of SDXL, whose parts have the original's names. No U-Net is one here: ours has diffusers'
    names, and a module that asks must count its blocks and name its parts by these.

    Modules over `networks.network_base` (sd-scripts 0.11: loha, lokr) ask with `issubclass` which model it is, and
    nothing of its blocks: for them the U-Net of SDXL is one while a network is made.
    """


class InferSdxlUNet2DConditionModel(SdxlUNet2DConditionModel):
    """The same for inference."""


OFFERED: dict[str, Sequence[Any]] = {
    "library.utils": [setup_logging],
    "library.train_util": [precalculate_safetensors_hashes],
    "library.model_io": [precalculate_safetensors_hashes],  # where it lies from 0.11 on
    "library.sdxl_original_unet": [SdxlUNet2DConditionModel, InferSdxlUNet2DConditionModel],
}
NAMES = {module: [thing.__name__ for thing in things] for module, things in OFFERED.items()}


class _Offer(MetaPathFinder, Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self, origin=__file__) if fullname in OFFERED else None

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__.update({thing.__name__: thing for thing in OFFERED[module.__name__]})


def offer() -> None:
    """Let modules import the offered names from now on."""
    if not any(isinstance(finder, _Offer) for finder in sys.meta_path):
        sys.meta_path.append(_Offer())  # last: what really exists comes first


@contextlib.contextmanager
def creating(module: ModuleType, unet: Any = None) -> Iterator[None]:
    """For the block in which a module makes a network, choosing layers of the model by the names of their classes.

    The U-Net's attention layers are called as in kohya's U-Net; it is the one name that differs, and LyCORIS' preset
    `attn-only` and kohya's networks.oft look for it. Lists of such names that belong to the module's classes are put
    back afterwards: kohya's modules lengthen theirs, and the next network would train more layers than this one.
    """
    classes = [thing for thing in vars(module).values() if isinstance(thing, type)]
    lists = [value for kind in classes for value in vars(kind).values() if isinstance(value, list)]
    kept = [list(value) for value in lists]
    own = Attention.__name__
    Attention.__name__ = "CrossAttention"
    is_asked = hasattr(module, "detect_arch_config") and _is_of_sdxl(unet)
    before = _of_sdxl.set(type(unet) if is_asked else None)
    try:
        yield
    finally:
        _of_sdxl.reset(before)
        Attention.__name__ = own
        for value, items in zip(lists, kept, strict=True):
            value[:] = items


def _is_of_sdxl(unet: Any) -> bool:
    """Whether a U-Net of diffusers takes the size of the picture beside the text."""
    return getattr(getattr(unet, "config", None), "addition_embed_type", None) == "text_time"


def unknown_import(error: ImportError) -> str | None:
    """What of kohya's `library` an import wanted that is not offered; None where it is about something else."""
    name = error.name or ""
    if isinstance(error, ModuleNotFoundError):
        return name if name.startswith("library.") else None
    wanted = re.match(r"cannot import name '(\w+)'", str(error))
    return f"{name}.{wanted[1]}" if wanted and (name == "library" or name in OFFERED) else None


def unknown_imports_in_functions(source: Path) -> list[tuple[int, str]]:
    """(line, name) of what a file's functions import of kohya's `library` without being offered: calling them fails."""
    tree = ast.parse(source.read_bytes())
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    found = {place for function in functions for node in ast.walk(function) for place in _imported(node)}
    return sorted((line, name) for line, name in found if name.startswith("library.") and not _is_offered(name))


def _imported(node: ast.AST) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.Import):
        yield from ((node.lineno, alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and not node.level:
        yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def _is_offered(name: str) -> bool:
    module, _, thing = name.rpartition(".")
    return name in OFFERED or thing in NAMES.get(module, ())


def offered_text() -> str:
    """The offered names in one line."""
    return ", ".join(f"{module}.{name}" for module, names in NAMES.items() for name in names)
