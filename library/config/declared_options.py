"""The options that a plugin's file declares (`OPTIONS = {...}`), read from its text: nothing is imported.

A dict may hold others (`**networks.lora.OPTIONS`) and come from other files; what is more than that is left to the
import, which the engine makes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from library.config.module_search import ROOT

MODULE_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


class _NotTold(Exception):
    """What a module declares cannot be read from its text."""


def declared_options(module: str, arguments: dict[str, str], config: Path | None) -> list[str] | None:
    """The names of the options, or None where only the import shows it.

    A module whose options depend on its arguments (`known_options`) is left alone where one of these names a module.
    """
    folders = [ROOT, Path.cwd(), *([config.absolute().parent] if config else [])]
    try:
        file = _file_of(module.removeprefix("sd_scripts."), folders)
        tree = _tree(file)
        depends = any(isinstance(part, ast.FunctionDef) and part.name == "known_options" for part in tree.body)
        if depends and any(MODULE_PATH.fullmatch(value) for value in arguments.values()):
            return None
        return list(_names(ast.Name("OPTIONS"), tree, lambda name: _tree(_file_of(name, folders))))
    except (_NotTold, RecursionError):
        return None


def _file_of(module: str, folders: Sequence[Path]) -> Path:
    top = module.partition(".")[0]
    for folder in folders:
        file = folder.joinpath(*module.split(".")).with_suffix(".py")
        if file.is_file() and _comes_first(top, folder):
            return file
    raise _NotTold


def _comes_first(top: str, folder: Path) -> bool:
    """Whether an import would not find a package of that name elsewhere first."""
    try:
        spec = find_spec(top)  # of a name without dots: nothing is imported
    except (ImportError, ValueError):
        return False
    places = [] if spec is None else [*(spec.submodule_search_locations or ()), spec.origin or ""]
    return not places or any(place and Path(place).resolve().is_relative_to(folder.resolve()) for place in places)


def _tree(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        raise _NotTold from None


def _names(value: ast.expr, tree: ast.Module, read: Callable[[str], ast.Module]) -> Iterator[str]:
    """The keys of a dict; `read` gives the text of another module."""
    match value:
        case ast.Dict(keys=keys, values=values):
            for key, inner in zip(keys, values, strict=True):
                if key is None:
                    yield from _names(inner, tree, read)
                elif isinstance(key, ast.Constant) and isinstance(key.value, str):
                    yield key.value
                else:
                    raise _NotTold
        case ast.Call(func=ast.Name(id="getattr"), args=[module, ast.Constant(value=str(name)), *_]):
            yield from _names(ast.Attribute(module, name), tree, read)
        case ast.Attribute(value=module, attr=name):
            other = read(_module_called(ast.unparse(module), tree))
            yield from _names(ast.Name(name), other, read)
        case ast.Name(id=name):
            yield from _of_name(name, tree, read)
        case _:
            raise _NotTold


def _of_name(name: str, tree: ast.Module, read: Callable[[str], ast.Module]) -> Iterator[str]:
    for part in reversed(tree.body):
        targets = part.targets if isinstance(part, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            assert isinstance(part, ast.Assign)
            yield from _names(part.value, tree, read)
            return
        if isinstance(part, ast.ImportFrom) and part.module and not part.level:
            for alias in part.names:
                if (alias.asname or alias.name) == name:
                    yield from _names(ast.Name(alias.name), read(part.module), read)
                    return
    raise _NotTold


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Those of a module, and those of its `if`s, as of `if TYPE_CHECKING`."""
    for part in body:
        yield part
        if isinstance(part, ast.If):
            yield from _statements([*part.body, *part.orelse])


def _module_called(name: str, tree: ast.Module) -> str:
    """The import path of what a file calls `name`: "networks.lora", or an alias."""
    for part in _statements(tree.body):
        if isinstance(part, ast.Import):
            for alias in part.names:
                if (alias.asname or alias.name) == name:
                    return alias.name
        if isinstance(part, ast.ImportFrom) and part.module and not part.level:
            for alias in part.names:
                if (alias.asname or alias.name) == name:
                    return f"{part.module}.{alias.name}"
    raise _NotTold
