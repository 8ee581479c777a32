"""One option, where its value came from, and all of them together.

An option's way: declared in a group (`options/`), written on the command line or in a TOML file (`command_line.py`,
`config_file.py`), read into its type (`values.py`), put in order of precedence (`parse.py`), checked against the others
(`checks.py`), and unpacked at the top of a command with `Settings.take`.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

Spec = TypeVar("Spec")


@dataclass(frozen=True)
class Needs:
    """Another option without which one has no effect: on at all, or (with `among`) set to one of these values.

    `others` are options that would do as well.
    """

    name: str
    among: tuple[Any, ...] = ()
    others: tuple[str, ...] = ()

    def met(self, values: Mapping[str, Any]) -> bool:
        if self.name not in values:
            return True  # a command that does not have the other option means it to work without
        value = values[self.name]
        return (value in self.among if self.among else bool(value)) or any(values.get(other) for other in self.others)

    @property
    def phrase(self) -> str:
        """To be read after "without"."""
        first = f"`{self.name}`" + (f" = {' or '.join(map(str, self.among))}" if self.among else "")
        return " or ".join([first, *(f"`{other}`" for other in self.others)])


class Decides(Enum):
    """What another value of an option makes another one: the rest of a run, or only what is left of it.

    A state of another value is refused where it decides the `RESULT`, and a batch's job is another job. `THROUGH`: the
    same, but what is compared is what comes of it (a dataset, weights), not the value. `PICTURES`: says where pictures
    lie, which are compared wherever that is. `JOB`: how far a run goes and what files it leaves, so that a state may be
    gone on from, while a batch's job is another one. `NOTHING`: where, how fast, and what is shown meanwhile.
    """

    RESULT = "result"
    THROUGH = "through"
    PICTURES = "pictures"
    JOB = "job"
    NOTHING = "nothing"


RESULT, THROUGH, PICTURES, JOB, NOTHING = Decides


@dataclass(frozen=True)
class Models:
    """The base models that an option is meant for; on another one `otherwise` is reported when it is set.

    `families` are values of `library.models.family.Family`, `prediction` a prediction type; empty: any.
    """

    otherwise: str  # to be read after the option's name
    families: tuple[str, ...] = ()
    prediction: str = ""

    def fit(self, family: str, prediction: str | None) -> bool:
        """`prediction` is None where it is not known yet."""
        if self.families and family not in self.families:
            return False
        return not self.prediction or prediction in (None, self.prediction)


SWITCHES = {"flow_prediction": "flow_model"}
"""What a model says of itself, and the switch that asks for the same."""


@dataclass(frozen=True)
class Option:
    """One option of a command: `--name value` on the command line, `name = value` in TOML."""

    name: str
    type: Callable[..., Any]  # str, int, float, Path, bool (a flag), or a reader of values.py
    default: Any
    help: str  # one line
    choices: tuple[Any, ...] | None = None
    other_words: tuple[tuple[str, Any], ...] = ()  # (what some programs call a choice, the choice)
    nargs: str | None = None  # "*": a list of values
    minimum: float | None = None
    maximum: float | None = None
    aliases: tuple[str, ...] = ()  # old spellings that are accepted
    in_tables: tuple[tuple[str, str], ...] = ()  # (table, key): what it is called inside that table of a TOML file
    known_as: tuple[str, ...] = ()  # what other programs call it: never accepted, only suggested
    implies: tuple[tuple[str, Any], ...] = ()  # a flag that sets other options when it is on
    inert: str | None = None  # why it has no effect here; noted at the start when it is set
    needs: Needs | None = None  # without which it has no effect; noted at the start when it is set alone
    models: Models | None = None  # that it is meant for; noted when it is set on another one
    idle_with: str | None = None  # a switch that leaves it without effect; noted at the start when both are set
    secret: bool = False  # never written to a file
    decides: Decides = RESULT
    in_metadata: bool = False  # its value is written into a network's file, as ss_NAME
    of_sd_scripts: bool = True  # False: an option of this project
    differs: str = ""  # from sd-scripts, on purpose: what and why
    recorded_late: bool = False  # states of earlier versions lack it, so nothing can be compared
    levels: str = ""  # where a dataset description may have it, by letters: General, Dataset, Subset
    key: str = ""  # what it is called there, if otherwise
    needs_key: tuple[str, ...] = ()  # keys of datasets of which one must be on for it to have an effect
    changes_pixels: str = ""  # what it does to a picture at every visit, which cached latents exclude
    described: str = ""  # in a network's file, among the facts of each Subset, and of the Folder of `train_data_dir`
    names_a_model: bool = False  # a file or folder of weights, which a state knows by these and not by their place
    names_a_file: bool = False  # that must be there at the start
    is_rate: bool = False  # a learning rate
    open_to_initializers: bool = False  # an embedding initializer may have a default of its own for it
    positive: bool = False  # must be above 0 where it is set
    of_batch: str = ""  # why a job of a batch cannot have it for itself
    shapes_tensors: bool = False  # a state's tensors are made for its value, which cannot change at a resume

    @property
    def is_flag(self) -> bool:
        return self.type is bool

    @property
    def has_result(self) -> bool:
        """Whether a state is compared by its value."""
        return self.decides is RESULT and not self.inert

    @property
    def makes_a_job(self) -> bool:
        """Whether a batch's job is another job with another value."""
        return self.decides not in (PICTURES, NOTHING) and not self.inert


class Group(tuple[Option, ...]):
    """Options that `--help` shows together under a title.

    `decides` is for those of them that do not say it; without `of_sd_scripts` all are of this project.
    """

    title: str

    def __new__(
        cls, title: str, options: Iterable[Option], decides: Decides = RESULT, of_sd_scripts: bool = True
    ) -> Group:
        completed = (
            replace(
                option,
                decides=decides if option.decides is RESULT else option.decides,
                of_sd_scripts=option.of_sd_scripts and of_sd_scripts,
            )
            for option in options
        )
        group = super().__new__(cls, completed)
        group.title = title
        return group


@dataclass(frozen=True)
class Origin:
    """Where a value was written."""

    kind: str  # "default", "implied", "plugin", "file", "command line"
    file: Path | None = None
    line: int | None = None

    @property
    def phrase(self) -> str:
        """To be read after a name: "in style.toml line 14", "on the command line"."""
        if self.kind == "command line":
            return "on the command line"
        if self.file is None:
            return "by default"
        return f"in {self.file.name} line {self.line}" if self.line else f"in {self.file.name}"


DEFAULT = Origin("default")
COMMAND_LINE = Origin("command line")


@dataclass(frozen=True)
class Written:
    """A value as somebody wrote it, before it is read into its option's type."""

    option: Option
    raw: Any
    origin: Origin


@dataclass(frozen=True)
class DatasetTables:
    """[general] and [[datasets]] that are inside a training config, with the way to their lines."""

    tables: Mapping[str, Any]
    origin_of: Callable[..., Origin]
    path: Path


@dataclass
class Settings:
    """The values of all options of one run, each with its origin.

    `warnings` are sentences to show before the run starts; `unknown` are keys of the config file that no option has.
    """

    options: dict[str, Option]
    values: dict[str, Any]
    origins: dict[str, Origin]
    warnings: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    dataset_tables: DatasetTables | None = None
    _namespace: argparse.Namespace | None = field(default=None, repr=False, compare=False)

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)

    def explicit(self, name: str) -> bool:
        """Whether a person wrote this value, rather than leaving it to the default or to another option."""
        return self.origins[name].kind in ("file", "command line")

    def place(self, name: str) -> str:
        """The option's name with its place, to begin a sentence with: "`seed` in style.toml line 3"."""
        if not self.explicit(name):
            return f"`{name}`"
        dashes = "--" if self.origins[name].kind == "command line" else ""
        return f"`{dashes}{name}` {self.origins[name].phrase}"

    def take(self, spec: type[Spec]) -> Spec:
        """An instance of the dataclass `spec`, its fields filled with the options of the same names.

        A field that is no option keeps the dataclass's own default; one without a default is a mistake in the program.
        """
        fields = dataclasses.fields(spec)  # pyright: ignore[reportArgumentType]
        return spec(**{f.name: self.values[f.name] for f in fields if f.init and f.name in self.values})

    def changed(self, **values: Any) -> Settings:
        """The same settings but for these values, with a namespace of their own."""
        return replace(self, values=self.values | values, _namespace=None)

    def namespace(self) -> argparse.Namespace:
        """Every option as network modules of sd-scripts expect it: plain attributes, paths as texts.

        The same object each time: a module may keep it and see later what the trainer has filled in.
        """
        if self._namespace is None:
            self._namespace = argparse.Namespace(**{name: plain(value) for name, value in self.values.items()})
        return self._namespace

    def effective(self) -> dict[str, Any]:
        """All values, with the default in place of those that have no effect."""
        return {name: o.default if o.inert else self.values[name] for name, o in self.options.items()}

    def public(self) -> dict[str, Any]:
        """What may be shown to others: the effective values without secrets, as texts and numbers."""
        values = self.effective()
        return {name: plain(values[name]) for name, option in self.options.items() if not option.secret}

    def notes(self) -> list[str]:
        """All that is worth saying before the run starts."""
        return [*self.warnings, *self.effect_notes()]

    def model_notes(self, family: str, prediction: str | None) -> list[str]:
        """One line for each option that was set and is not meant for a model of this family and prediction type."""
        switch = SWITCHES.get(prediction or "")
        asked = {name: option for name, option in self._asked().items() if not self._is_idle(option)}
        idle = {name for name, option in asked.items() if switch and option.idle_with == switch}
        lines = [f"{self.place(name)} has no effect on this model, which is one of `{switch}`" for name in sorted(idle)]
        return lines + [
            f"{self.place(name)} {option.models.otherwise}"
            for name, option in asked.items()
            if option.models and not option.models.fit(family, prediction) and name not in idle
        ]

    def _asked(self) -> dict[str, Option]:
        """The options that a person set to something."""
        return {n: o for n, o in self.options.items() if self.explicit(n) and not is_off(self.values[n], o.default)}

    def _is_idle(self, option: Option) -> bool:
        """Whether a switch that is on leaves it without effect."""
        return bool(option.idle_with and self.values.get(option.idle_with))

    def effect_notes(self) -> list[str]:
        """One line for each option that was set and has no effect."""
        asked = self._asked()
        lines = [f"{self.place(name)} has no effect: {option.inert}" for name, option in asked.items() if option.inert]
        lines += [
            f"{self.place(name)} has no effect with `{option.idle_with}`"
            for name, option in asked.items()
            if self._is_idle(option)
        ]
        return lines + [
            f"{self.place(name)} has no effect without {option.needs.phrase}{_unless(option.needs)}"
            for name, option in asked.items()
            if option.needs and not option.inert and not option.needs.met(self.values)
        ]


def _unless(needs: Needs) -> str:
    """Where a model may say of itself what an option asks for."""
    return ", unless the model itself says that it is one" if needs.name in SWITCHES.values() else ""


def is_off(value: Any, default: Any) -> bool:
    """Whether a value asks for nothing: the default, or none of it ("no" in `dynamo_backend`)."""
    return value == default or not value or value == "no"


def plain(value: Any) -> Any:
    """Paths become texts, lists are copied; everything else stays."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def by_name(groups: Iterable[Iterable[Option]]) -> dict[str, Option]:
    """All options of the groups; a name that is declared twice is a mistake in the program."""
    options: dict[str, Option] = {}
    for option in (option for group in groups for option in group):
        if option.name in options:
            raise ValueError(f"option {option.name} is declared twice")
        options[option.name] = option
    return options


def with_aliases(options: Mapping[str, Option]) -> dict[str, Option]:
    """Also the old spellings that are still accepted."""
    return {**{alias: option for option in options.values() for alias in option.aliases}, **options}


def by_table(options: Mapping[str, Option]) -> dict[tuple[str, str], Option]:
    """What options are called in tables that have keys of their own: (table, key) -> option."""
    return {place: option for option in options.values() for place in option.in_tables}


def names_elsewhere(options: Mapping[str, Option]) -> dict[str, str]:
    """What other programs call our options."""
    return {other: option.name for option in options.values() for other in option.known_as}
