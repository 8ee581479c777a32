"""The only place that reads or writes weights and state.

Everything is written through `library.atomic`: a name never holds half a file. Reading is safetensors, or
`torch.load(weights_only=True)` for old formats: no file that a person gets from somewhere can run code. A folder of
state has a manifest, written last; without it, or with a file that does not agree with it, it is not a state.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from safetensors.torch import save_file
from torch import Tensor, nn

from library.atomic import atomic, atomic_folder
from library.errors import Problem, UserError
from library.formatting import json_text
from library.path_safety import path_inside

Tensors = dict[str, Tensor]

MANIFEST = "manifest.json"


def write_text(path: Path | str, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path | str, data: Any) -> None:
    write_text(path, json_text(data, indent=1) + "\n")


# --- tensors


def read_tensors(path: Path | str) -> tuple[Tensors, dict[str, str]]:
    """The tensors of a weights file, on the CPU, and its metadata (empty for old formats).

    What the file is, is seen from its first bytes and not from its extension. Raises `UserError` where it is missing,
    cut off, something else than weights, or a pickle that holds more than tensors.
    """
    path = Path(path)
    if not is_safetensors(path):
        return read_pickle(path), {}
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise damaged(path) from error


def read_metadata(path: Path | str) -> dict[str, str]:
    """Only what the file says about itself; no tensor is read. Empty for old formats."""
    path = Path(path)
    if not is_safetensors(path):
        return {}
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise damaged(path) from error


def is_finite(tensor: Tensor) -> bool:
    """Whether all values of a tensor are numbers; also in eight bits, where torch does not answer."""
    eight_bits = tensor.is_floating_point() and tensor.element_size() == 1
    return bool((tensor.float() if eight_bits else tensor).isfinite().all())


def write_tensors(path: Path | str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write `.safetensors` with its metadata, or any other extension as `torch.save` does, without metadata."""
    with atomic(path) as temporary:
        _write(temporary, tensors, metadata)


def read_nested(path: Path | str, harmless: Sequence[Any] = ()) -> tuple[Any, dict[str, str]]:
    """All that a weights file holds, as it is nested there (only old formats nest), and its metadata.

    `harmless` are classes and functions that a pickle may name beside tensors: such that building their values runs
    nothing. Raises `UserError` as `read_tensors` does.
    """
    path = Path(path)
    return read_tensors(path) if is_safetensors(path) else (_unpickled(path, harmless), {})


def write_nested(path: Path | str, content: Mapping[str, Any]) -> None:
    """Write tensors, texts and numbers nested in dictionaries as `torch.save` does, for programs that expect it so."""
    with atomic(path) as temporary, open(temporary, "wb") as file:
        torch.save(dict(content), file)


@contextlib.contextmanager
def temporary_tensors(
    path: Path | str, tensors: Mapping[str, Tensor], renamed: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> Iterator[Path]:
    """A file with the tensors under other names: `path` itself if they agree, else a copy that lives for the block."""
    if list(tensors) == list(renamed):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        copy = Path(folder, Path(path).stem + ".safetensors")
        _write(copy, renamed, metadata)
        yield copy


class SavesWeights(Protocol):
    """What a network module's network offers for saving (kohya's contract)."""

    def save_weights(self, file: str, dtype: torch.dtype | None, metadata: dict[str, str]) -> Any: ...


def save_network(
    network: SavesWeights,
    path: Path | str,
    dtype: torch.dtype | None,
    metadata: Mapping[str, str],
    rename: Callable[[Tensors], Tensors] = lambda tensors: tensors,
) -> None:
    """Let a network write itself, then bring its file to the names, the checks and the hashes that files here have.

    `rename` maps the network's names to the file's. What the network adds to the metadata is kept. Raises `UserError`,
    with the file of that name left as it was, if a tensor is not finite.
    """
    with atomic(path) as temporary:
        network.save_weights(str(temporary), dtype, dict(metadata))
        tensors, own_metadata = read_tensors(temporary)
        tensors = rename(tensors)
        _refuse_non_finite(tensors, Path(path))
        header = {**metadata, **own_metadata}
        _write(temporary, tensors, {**header, **tensor_hashes(tensors, header)})


def tensor_hashes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """The two hashes by which web UIs recognise a network file, as kohya's trainers compute them.

    `sshs_model_hash` is the sha256 of all tensor bytes; `sshs_legacy_hash` the first 8 digits of that of a window of
    64 KiB at 1 MiB, in a file whose header holds the `ss_` entries only (of nothing, if the file is smaller).
    """
    training = {name: value for name, value in metadata.items() if name.startswith("ss_")}
    content = safetensors_bytes(dict(tensors), training)
    start = 8 + int.from_bytes(content[:8], "little")  # safetensors: length of the header, header, tensors
    return {
        "sshs_model_hash": hashlib.sha256(memoryview(content)[start:]).hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(content[0x100000:0x110000]).hexdigest()[:8],
    }


# --- hashes of files

_hashes: dict[tuple[Path, int, int], str] = {}


def file_hash(path: Path | str) -> str:
    """sha256 of a file, 64 hex digits. Read once for each (path, size, modification time) in a process."""
    path = Path(path).resolve()
    facts = path.stat()
    key = (path, facts.st_size, facts.st_mtime_ns)
    if key not in _hashes:
        with open(path, "rb") as file:
            _hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _hashes[key]


def legacy_file_hash(path: Path | str) -> str:
    """The older short hash of a checkpoint: 8 hex digits of a window of 64 KiB at 1 MiB."""
    with open(path, "rb") as file:
        file.seek(0x100000)
        return hashlib.sha256(file.read(0x10000)).hexdigest()[:8]


# --- state folders


def write_state(folder: Path | str, writer: Callable[[Path], None]) -> None:
    """Let `writer` fill a temporary folder, add the manifest as its last file, and give it its name.

    manifest.json: {"version": 1, "files": {name: {"size": bytes, "sha256": 64 hex digits}}}, names with "/".
    """
    with atomic_folder(folder) as temporary:
        writer(temporary)
        files = {}
        for path in sorted(path for path in temporary.rglob("*") if path.is_file()):
            name = path.relative_to(temporary).as_posix()
            with open(path, "rb") as file:
                files[name] = {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
        write_json(temporary / MANIFEST, {"version": 1, "files": files})


def read_manifest(folder: Path | str, *, full: bool = False) -> dict[str, dict[str, Any]]:
    """The manifest's files, after checking that they are there with their sizes, and if `full` with their hashes.

    Raises `UserError` where the folder is not a state or not a whole one.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    if not folder.is_dir():
        raise UserError(f"`{folder}` is not a state: there is no such folder")
    if not path.is_file():
        raise UserError(
            f"`{folder}` is not a state: it has no {MANIFEST}, which is written last; resume an earlier one"
        )
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        for name, facts in files.items():
            file = path_inside(folder, name)
            if file is None:
                raise UserError(f"`{path}` is damaged: it names `{name}`, which is no file of it; resume another state")
            if not file.is_file() or file.stat().st_size != facts["size"]:
                raise UserError(
                    f"`{folder}` is not a whole state: `{name}` is missing or cut off; resume an earlier one"
                )
            if full and file_hash(file) != facts["sha256"]:
                raise UserError(f"`{folder}` is damaged: `{name}` is not what was written; resume an earlier state")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"`{path}` is damaged; resume an earlier state") from error
    return files


# --- what can be known before anything is written


def check_writable(folder: Path | str) -> list[Problem]:
    """Whether files can be made in `folder`, which need not exist yet; leaves nothing behind."""
    folder = Path(folder).absolute()
    parent = _existing_parent(folder)
    if not parent.is_dir():
        return [Problem(f"`{folder}` cannot be a folder: `{parent}` is a file; choose another name")]
    try:
        with tempfile.TemporaryFile(dir=parent):
            return []
    except OSError as error:
        reason = error.strerror or str(error)
        return [
            Problem(f"the folder `{parent}` cannot be written ({reason}); change its permissions or choose another")
        ]


def check_free_space(folder: Path | str, need: int) -> list[Problem]:
    """Whether the disk of `folder` has `need` bytes left."""
    parent = _existing_parent(Path(folder).absolute())
    free = shutil.disk_usage(parent).free
    if free >= need:
        return []
    text = f"the disk of `{folder}` has {_size(free)} left, but {_size(need)} will be written"
    return [Problem(f"{text}; free some space, or choose another folder")]


# --- how


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None) -> None:
    plain: Tensors = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        plain[name] = tensor.detach().cpu().contiguous()
        storage = plain[name].untyped_storage().data_ptr()
        if storage in seen:  # safetensors writes no memory twice
            plain[name] = plain[name].clone()
        seen.add(storage)
    if path.suffix == ".safetensors":
        save_file(plain, str(path), dict(metadata) if metadata else None)
    else:
        with open(path, "wb") as file:
            torch.save(plain, file)


def is_safetensors(path: Path) -> bool:
    if not path.is_file():
        raise UserError(f"`{path}` does not exist or is not a file")
    with open(path, "rb") as file:
        start = file.read(64)
    if start.startswith((b"version https://git-lfs", b"<", b"\n<")):
        what = "a Git LFS pointer" if start.startswith(b"version") else "a web page"
        raise UserError(f"`{path}` is {what} and not the weights themselves; download the file again")
    if len(start) < 10:
        raise damaged(path)
    # Eight bytes of header length, then JSON. The first byte may be any multiple of 8, so also what begins a pickle.
    if start[8:9] == b"{":
        return True
    is_pickle = start.startswith((b"PK", b"\x80"))  # a zip archive as torch.save makes, or a bare pickle before 2020
    return not is_pickle


def _unpickled(path: Path, harmless: Sequence[Any] = ()) -> Any:
    try:
        # A file object, since a path's extension would make torch choose another reader.
        with open(path, "rb") as file, torch.serialization.safe_globals([nn.ParameterDict, *harmless]):
            return _without_modules(torch.load(file, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:
        raise UserError(
            f"`{path}` is a pickle that holds more than weights, and loading it could run any program; "
            "get it as .safetensors, or convert it where you trust it"
        ) from error
    except (RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        raise damaged(path) from error


def _without_modules(content: Any) -> Any:
    """A `ParameterDict`, which the first programs for embeddings wrote, as the dictionary of its tensors.

    Only its own attributes are looked at, and of these only tensors: a file may have set them to anything.
    """
    if isinstance(content, nn.ParameterDict):
        own = vars(content)
        stored = [own, own.get("_parameters"), own.get("_buffers")]
        pairs = [pair for part in stored if isinstance(part, dict) for pair in part.items()]
        return {name: value.detach() for name, value in pairs if isinstance(value, Tensor)}
    if isinstance(content, dict):
        return {name: _without_modules(value) for name, value in content.items()}
    return content


def read_pickle(path: Path) -> Tensors:
    content = _unpickled(path)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise UserError(
            f"`{path}` holds no weights (a dictionary of tensors is expected, not {type(content).__name__})"
        )
    return tensors


def damaged(path: Path) -> UserError:
    size = _size(path.stat().st_size)
    return UserError(f"`{path}` ({size}) is damaged or not complete; copy or download it again, or use an earlier file")


def _refuse_non_finite(tensors: Tensors, path: Path) -> None:
    if not tensors:
        raise UserError(f"`{path}` was not written: the network has no tensors")
    bad = [name for name, tensor in tensors.items() if not is_finite(tensor)]
    if bad:
        dtype = str(tensors[bad[0]].dtype).removeprefix("torch.")
        raise UserError(
            f"`{path}` was not written: {len(bad)} of {len(tensors)} tensors are not finite in {dtype}, the first is "
            f"{bad[0]}. Training has diverged (a lower learning rate helps), or the values need a wider save_precision"
        )


def _existing_parent(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def _size(count: float) -> str:
    if count < 1024:
        return f"{count:.0f} bytes"
    for unit in ("KiB", "MiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} GiB"
