"""The file of `--jobs`: what it may say, read strictly; everything that is wrong with it is reported at once.

[batch]                      output_dir, datasets, seeds, output_name, order, ...
[methods.NAME]               options of train_network.py; or `train = false`, the model as it is
[[override]]                 match = { dataset, method, seed }, set = { options }: top to bottom, the last wins
[[exclude]]                  match
[[job]]                      name, dataset, method, seed, set: one more job
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from library.config.option import Group, Option, Written, names_elsewhere, with_aliases
from library.config.options.logging import LOGGING
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.suggest import did_you_mean, missing
from library.config.toml_file import ConfigFile, read_toml
from library.config.values import file_name, flag, read_value, text, whole_number
from library.errors import Problem

AXES = ("dataset", "method", "seed")
TABLES = ("batch", "methods", "override", "exclude", "job")


def size_in_bytes(raw: Any) -> int:
    """Bytes: "5GB", "500 MB", or a number of bytes."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", text(raw).casefold())
    if not found:
        raise ValueError(f'must be a size such as "5GB", not {raw!r}')
    return int(float(found[1]) * 1000 ** " kmgt".index(found[2] or " "))


# fmt: off
BATCH_KEYS = Group("[batch]", (
    Option("output_dir",     Path,          None, "folder with a folder for each job", known_as=("output",)),
    Option("datasets",       str,           None, "folders of pictures or dataset descriptions; * and ? are read",
           nargs="*", known_as=("dataset", "train_data_dir", "data")),
    Option("seeds",          int,           [1],  "every dataset with every method under each", nargs="*", minimum=0,
           known_as=("seed",)),
    Option("output_name",    file_name,     "{dataset}-{method}-s{seed}", "what a job and its files are called",
           known_as=("name",)),
    Option("order",          str,           list(AXES), "what changes last comes first", nargs="*", choices=AXES),
    Option("max_attempts",   int,           2,    "how often a job is begun that dies without being at fault",
           minimum=1, known_as=("retries", "attempts")),
    Option("min_free_disk",  size_in_bytes, 10**9, "below this no job is begun until there is more"),
    Option("evaluate",       Path,          None, "config of evaluate.py: measure the pictures of finished jobs",
           known_as=("eval", "evaluation")),
    Option("sample_prompts", str,           None, "prompts of a job; {dataset} stands for its name"),
))
MATCH_KEYS = Group("match", (
    Option("dataset",        str,           None, "names of datasets", nargs="*"),
    Option("method",         str,           None, "names of methods", nargs="*"),
    Option("seed",           int,           None, "seeds", nargs="*"),
))
# fmt: on

OF_THE_BATCH = {
    **{option.name: option.of_batch for group in ALL_TRAIN_NETWORK for option in group if option.of_batch},
    **{option.name: "give it in the config of all jobs, or on the command line" for option in LOGGING},
}
"""Options that a job cannot have for itself, and why."""


@dataclass(frozen=True)
class Match:
    """Which jobs are meant: names with * and ?, and seeds; an empty one means all. `place` begins a sentence."""

    datasets: Sequence[str]
    methods: Sequence[str]
    seeds: Sequence[int]
    place: str

    def takes(self, dataset: str, method: str, seed: int) -> bool:
        return _any_like(dataset, self.datasets) and _any_like(method, self.methods) and seed in (self.seeds or [seed])


@dataclass(frozen=True)
class MethodRow:
    name: str
    written: tuple[Written, ...]
    trains: bool


@dataclass(frozen=True)
class Override:
    match: Match
    written: tuple[Written, ...]


@dataclass(frozen=True)
class ExtraJob:
    """A [[job]]: `dataset` is a path, or the name of a dataset that [batch] has."""

    name: str
    dataset: str
    method: str
    seed: int
    written: tuple[Written, ...]
    place: str


@dataclass(frozen=True)
class JobsFile:
    """What a jobs file asks for; `batch` has a value for each key of [batch]."""

    path: Path
    batch: Mapping[str, Any]
    methods: Mapping[str, MethodRow]
    overrides: Sequence[Override]
    excludes: Sequence[Match]
    extra: Sequence[ExtraJob]


def read_jobs_file(path: Path, options: Mapping[str, Option]) -> tuple[JobsFile, list[Problem]]:
    """The file and what is wrong with it; `options` are those of the training. Raises ConfigError if it is no TOML."""
    reading = _JobsReading(read_toml(path), with_aliases(options))
    return reading.read(), reading.problems


@dataclass
class _JobsReading:
    file: ConfigFile
    options: Mapping[str, Option]
    problems: list[Problem] = field(default_factory=list)

    def read(self) -> JobsFile:
        for name in [name for name in self.file.tables if name not in TABLES]:
            self._problem(f"`{name}` {self._place(name)} is nothing that a jobs file has{did_you_mean(name, TABLES)}")
        batch = self._values(BATCH_KEYS, self._table("batch"), "batch")
        values = {option.name: batch.get(option.name, option.default) for option in BATCH_KEYS}
        self._check_batch(values)
        methods = {name: self._method(name, table) for name, table in self._table("methods").items()}
        overrides = [
            Override(self._match(table, "override", i), self._set(table, "override", i))
            for i, table in self._list("override", ("match", "set"))
        ]
        excludes = [self._match(table, "exclude", i) for i, table in self._list("exclude", ("match",))]
        extra = [self._job(table, i) for i, table in self._list("job", ("name", *AXES, "set"))]
        if not methods:
            self._problem(
                f'{self.file.path.name} has no method; [methods.lora] network_module = "networks.lora" is one'
            )
        jobs = [job for job in extra if job is not None]
        return JobsFile(self.file.path, values, methods, overrides, excludes, jobs)

    def _check_batch(self, values: Mapping[str, Any]) -> None:
        if values["output_dir"] is None:
            self._problem(
                f"[batch] in {self.file.path.name} has no `output_dir`: the folder of everything that is left"
            )
        if values["datasets"] is None and not self.file.tables.get("job"):
            self._problem(f'[batch] in {self.file.path.name} has no `datasets`, for example ["data/styles/*"]')
        for name, allowed in (("output_name", AXES), ("sample_prompts", ("dataset",))):
            for unknown in unknown_fields(values[name] or "", allowed):
                there_are = f"; there are {', '.join(allowed)}."
                place = f"`{name}` {self._place('batch', name)}"
                self._problem(f"{place} has {{{unknown}}}{did_you_mean(unknown, allowed, end=there_are)}")
        if values["evaluate"] is not None and not values["evaluate"].is_file():
            self._problem(f"`evaluate` {self._place('batch', 'evaluate')}: {missing(values['evaluate'])}")
        if sorted(values["order"]) != sorted(AXES):
            self._problem(f"`order` {self._place('batch', 'order')} must name each of {', '.join(AXES)} once")

    def _method(self, name: str, table: Any) -> MethodRow:
        where = ("methods", name)
        if not isinstance(table, dict):
            self._problem(f"`{name}` {self._place(*where)} must be a table: [methods.{name}]")
            return MethodRow(name, (), True)
        trains = True
        rest = dict(table)
        if "train" in rest:
            try:
                trains = flag(rest.pop("train"))
            except ValueError as error:
                self._problem(f"`train` {self._place(*where, 'train')} {error}.")
        return MethodRow(name, self._written(rest, *where), trains)

    def _job(self, table: Mapping[str, Any], i: int) -> ExtraJob | None:
        texts = {}
        for name, read in (("name", file_name), ("dataset", text), ("method", text), ("seed", whole_number)):
            if name not in table:
                self._problem(f"[[job]] {self._place('job', i)} has no `{name}`")
                continue
            try:
                texts[name] = read(table[name])
            except ValueError as error:
                self._problem(f"`{name}` {self._place('job', i, name)} {error}.")
        written = self._set(table, "job", i, required=False)
        if len(texts) < 4:
            return None
        place = f"[[job]] {self._place('job', i)}"
        return ExtraJob(texts["name"], texts["dataset"], texts["method"], texts["seed"], written, place)

    def _match(self, table: Mapping[str, Any], *where: str | int) -> Match:
        place = f"[[{where[0]}]] {self._place(*where)}"
        match = table.get("match")
        if not isinstance(match, dict) or not match:
            self._problem(f'{place} has no `match`, for example match = {{ dataset = "rabbids*" }}')
            match = {}
        values = self._values(MATCH_KEYS, match, *where, "match")
        return Match(values.get("dataset") or (), values.get("method") or (), values.get("seed") or (), place)

    def _set(self, table: Mapping[str, Any], *where: str | int, required: bool = True) -> tuple[Written, ...]:
        settings = table.get("set")
        if not isinstance(settings, dict) or not settings:
            if required or settings is not None:
                place = f"[[{where[0]}]] {self._place(*where)}"
                self._problem(f"{place} has no `set`, for example set = {{ network_dim = 8 }}")
            return ()
        return self._written(settings, *where, "set")

    def _written(self, table: Mapping[str, Any], *where: str | int) -> tuple[Written, ...]:
        """Options of the training as they are in a table; those that cannot be read are problems."""
        written = []
        for name, raw in table.items():
            option, origin = self.options.get(name), self.file.origin(*where, name)
            if option is None:
                guess = did_you_mean(name, self.options, names_elsewhere(self.options))
                self._problem(f"`{name}` {origin.phrase} is not an option{guess}")
            elif option.name in OF_THE_BATCH:
                self._problem(f"`{name}` {origin.phrase} cannot be set here: {OF_THE_BATCH[option.name]}")
            else:
                try:
                    read_value(option, raw)
                    written.append(Written(option, raw, origin))
                except ValueError as error:
                    self._problem(f"`{name}` {origin.phrase} {error}.")
        return tuple(written)

    def _values(self, keys: Group, table: Mapping[str, Any], *where: str | int) -> dict[str, Any]:
        known = {option.name: option for option in keys}
        values = {}
        for name, raw in table.items():
            place = f"`{name}` {self._place(*where, name)}"
            if name not in known:
                self._problem(f"{place} is no key of {keys.title}{did_you_mean(name, known, names_elsewhere(known))}")
                continue
            try:
                values[name] = read_value(known[name], raw)
            except ValueError as error:
                self._problem(f"{place} {error}.")
        return values

    def _table(self, name: str) -> Mapping[str, Any]:
        table = self.file.tables.get(name, {})
        if not isinstance(table, dict):
            self._problem(f"`{name}` {self._place(name)} must be a table: [{name}]")
            return {}
        return table

    def _list(self, name: str, keys: Sequence[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
        tables = self.file.tables.get(name, [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            self._problem(f"`{name}` {self._place(name)} must be a list of tables: [[{name}]]")
            return
        for i, table in enumerate(tables):
            for key in [key for key in table if key not in keys]:
                guess = did_you_mean(key, keys)
                self._problem(f"`{key}` {self._place(name, i, key)} is no key of [[{name}]]{guess}")
            yield i, table

    def _place(self, *where: str | int) -> str:
        return self.file.origin(*where).phrase

    def _problem(self, message: str) -> None:
        self.problems.append(Problem(message if message.endswith(("?", ".")) else f"{message}."))


def unknown_fields(template: str, allowed: Sequence[str]) -> list[str]:
    """What is in braces of a template and is none of the `allowed` names."""
    try:
        return [
            name for _, name, _, _ in string.Formatter().parse(template) if name is not None and name not in allowed
        ]
    except ValueError:  # a brace that is never closed
        return [template.partition("{")[2]]


def _any_like(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)
