"""What a job's result depends on, so that a second start knows whether it is still the same job.

Not where things lie, on which device or under which engine: the options without paths, the contents of the files that
they name, the pictures with their captions, and the model.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from library.batch.jobs.config import OPTIONS, Prepared
from library.batch.jobs.ledger import write_json
from library.config.dataset_specs import DatasetPlan, SubsetSpec
from library.config.datasets import plan_datasets
from library.config.image_folders import SourceSpec, is_image_name
from library.config.option import Settings
from library.config.values import is_path, written_form
from library.errors import UserError

VERSION = 1  # of what is written here: another version makes other keys
MODEL = "pretrained_model_name_or_path"
WINDOW, WINDOWS = 1 << 16, 64


@dataclass
class JobFingerprint:
    """What a job is known by: `hash` of all parts; options by name, and digests of pictures, model and files."""

    options: dict[str, Any]
    contents: dict[str, str]

    @property
    def hash(self) -> str:
        return _digest(json.dumps([VERSION, asdict(self)], sort_keys=True, default=str).encode())

    def agrees(self, key: str, parts: Mapping[str, Any]) -> bool:
        """Whether a record with this hash and these parts is of this job; one without a hash is of none yet."""
        return key in ("", self.hash) or (bool(parts) and not self.differences(parts))

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """One line for each part in which an older key (`asdict` of it) differs from this one.

        Keys of earlier versions have options that decide nothing.
        """
        lines = []
        old, new = other.get("options", {}), json.loads(json.dumps(self.options))
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name) and (name not in OPTIONS or OPTIONS[name].makes_a_job):
                lines.append(f"{name} was {_shown(old, name)} and is {_shown(new, name)}")
        old = other.get("contents", {})
        return lines + [
            f"the content of {name} has changed"
            for name in sorted(old.keys() | self.contents.keys())
            if old.get(name) != self.contents.get(name)
        ]


@dataclass
class Digests:
    """sha256 of files, each read once for its size and time; kept in `file` for the next start."""

    file: Path | None = None
    known: dict[str, list[Any]] = field(default_factory=dict)
    plans: dict[tuple[Any, ...], str] = field(default_factory=dict)
    changed: bool = False

    @classmethod
    def load(cls, file: Path) -> Digests:
        try:
            return cls(file, json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return cls(file)

    def of(self, path: Path) -> str:
        """The digest of a file; of a large one, or of a folder of weights, that of windows all over it."""
        try:
            if path.is_dir():
                weights = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix not in (".md", ".txt"))
                return _digest("".join(f"{p.relative_to(path)} {self.of(p)};" for p in weights).encode())
            facts = os.stat(path)
            mark = [facts.st_size, facts.st_mtime_ns]
            old = self.known.get(str(path))
            if old is None or old[:2] != mark:
                self.known[str(path)] = old = [*mark, sampled_digest(path, facts.st_size)]
                self.changed = True
            return old[2]
        except OSError:
            return "cannot be read"  # the job itself says what is wrong

    def save(self) -> None:
        """Keep what was read for the next start; doing without costs time only."""
        if self.changed and self.file is not None:
            with suppress(UserError, OSError):
                write_json(self.file, self.known)


def key_of(prepared: Prepared, digests: Digests) -> JobFingerprint:
    """The key of a job. Raises `UserError` where there is no picture."""
    contents = {}
    for name, value in _deciding(prepared.settings):
        if is_path(prepared.settings.options[name]):
            paths = value if isinstance(value, list) else [value]
            contents[name] = "".join(digests.of(Path(path)) for path in paths)
    contents["the pictures"] = _pictures_digest(prepared, digests)
    return JobFingerprint(options_of(prepared), contents)


def options_of(prepared: Prepared) -> dict[str, Any]:
    """The options of a key: what is set, decides the result, and names no file."""
    settings = prepared.settings
    options = {name: written_form(value) for name, value in _deciding(settings) if not is_path(settings.options[name])}
    return options | {"method trains": prepared.job.trains}


def _deciding(settings: Settings) -> Iterator[tuple[str, Any]]:
    """(name, value) of the options that are set to something else than their default and change the result."""
    for name, option in settings.options.items():
        if option.makes_a_job and settings.explicit(name) and settings[name] != option.default:
            yield name, settings[name]


def _pictures_digest(prepared: Prepared, digests: Digests) -> str:
    settings = prepared.settings
    source = settings.take(SourceSpec)
    asked = (str(prepared.job.dataset.path), str(source.reg_data_dir), source.caption_extension)
    if asked not in digests.plans:
        digests.plans[asked] = _digest("".join(_contents(plan_datasets(settings), digests, settings)).encode())
    return digests.plans[asked]


def _contents(plan: DatasetPlan, digests: Digests, settings: Settings) -> Iterator[str]:
    """A line for each file of a dataset: its subset's repeats, its name, its digest."""
    for spec in plan:
        for subset in spec.subsets:
            yield f"{subset.num_repeats} {subset.class_tokens} {subset.is_reg}\n"
            for path in _files(subset):
                yield f"{path.name} {digests.of(path)}\n"


def _files(subset: SubsetSpec) -> Iterable[Path]:
    endings = {subset.caption_extension, ".txt", ".caption", ".json"}
    for folder in (subset.image_dir, subset.conditioning_data_dir):
        if folder is not None and folder.is_dir():
            names = sorted(os.listdir(folder))
            yield from (folder / n for n in names if is_image_name(n) or os.path.splitext(n)[1] in endings)
    if subset.metadata_file is not None:
        yield subset.metadata_file


def sampled_digest(path: Path, size: int) -> str:
    """sha256 of a file's size and bytes; of one above 64 MiB only its first MiB and windows all over it.

    Reading 7 GB would take longer than all the rest of a start; another model differs in every window.
    """
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        if size <= WINDOWS << 20:
            digest.update(file.read())
        else:
            digest.update(file.read(1 << 20))
            for i in range(1, WINDOWS):
                file.seek(size * i // WINDOWS)
                digest.update(file.read(WINDOW))
    return digest.hexdigest()[:16]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _shown(options: Mapping[str, Any], name: str) -> str:
    return json.dumps(options[name], ensure_ascii=False) if name in options else "not set"
