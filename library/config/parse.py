"""From command line and TOML to settings: command line, then TOML, then default; all problems in one error."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from library.config.command_line import read_command_line, wants_help
from library.config.config_file import FileContent, config_path, read_config_file
from library.config.option import COMMAND_LINE, DEFAULT, Option, Origin, Settings, Written, by_name, with_aliases
from library.config.toml_file import write_toml
from library.config.values import Noted, read_value, written_form
from library.console import show
from library.errors import ConfigError, Problem, raise_all

Check = Callable[[Settings], list[Problem]]


def parse(
    argv: Sequence[str], *groups: Iterable[Option], prog: str, description: str, checks: Iterable[Check] = ()
) -> Settings:
    """Read the options of a command.

    `checks` look at the settings as a whole; what they find is reported together with what could not be read.
    `--help`, `--output_config` and `--explain` print, and raise SystemExit(0). Raises ConfigError.
    """
    options = by_name(groups)
    if wants_help(argv):
        from library.config.help_text import help_text

        show(help_text(groups, prog, description))
        raise SystemExit(0)
    command_line = read_command_line(argv, with_aliases(options))
    spoken, problems = command_line.written, command_line.problems
    asked = settle(options, spoken, [])  # what cannot be read is reported below
    if asked.values.get("output_config"):
        write_config(settle(options, spoken, problems), problems)
        raise SystemExit(0)
    file = FileContent()
    if config_file := asked.values.get("config_file"):
        try:
            given = {item.option.name: asked.values[item.option.name] for item in spoken}
            file = read_config_file(config_path(config_file), with_aliases(options), given)
        except ConfigError as error:
            raise_all([Problem(str(error)), *problems], ConfigError)  # what seems missing may be in the file
    problems += file.problems
    settings = settle(options, [*file.written, *spoken], problems)
    settings.warnings[:0] = [*command_line.warnings, *file.warnings, *repeated(spoken)]
    settings.unknown = list(file.unknown)
    settings.dataset_tables = file.dataset_tables
    problems += consequences(settings, checks, problems)
    if settings.values.get("strict_config"):
        problems[:0] = map(Problem, file.unknown.values())
        file.unknown.clear()
    settings.warnings[:0] = file.unknown.values()
    if settings.values.get("explain"):
        from library.config.explain import explanation

        raise_with_notice([problem for problem in problems if not problem.understood], file.unknown.values())
        show(explanation(settings, groups, problems))
        raise SystemExit(0)
    raise_with_notice(problems, file.unknown.values())
    return settings


def settle(options: dict[str, Option], written: Iterable[Written], problems: list[Problem]) -> Settings:
    """Defaults, overwritten by each written value in order. What cannot be read is added to `problems`."""
    settings = Settings(
        options,
        values={name: option.default for name, option in options.items()},
        origins=dict.fromkeys(options, DEFAULT),
    )
    for name, item in {item.option.name: item for item in written}.items():  # the last one of each name
        settings.origins[name] = item.origin
        try:
            value = read_value(item.option, item.raw)
        except ValueError as error:
            problems.append(Problem(f"{settings.place(name)} {error}."))
            continue
        if isinstance(value, Noted):
            settings.warnings.append(f"{settings.place(name)} {value.note}.")
            value = value.value
        settings.values[name] = value
        if value is None:
            settings.origins[name] = DEFAULT
    apply_implications(settings, problems)
    return settings


def apply_implications(settings: Settings, problems: list[Problem]) -> None:
    """A flag that is on sets what it implies; a flag that contradicts gives way, another value is a problem."""
    for name, option in settings.options.items():
        for implied, value in option.implies if settings.values[name] else ():
            if settings.values[implied] == value:
                continue
            if settings.explicit(implied):
                if not settings.options[implied].is_flag:
                    other = f"{settings.place(implied)} is {settings.values[implied]!r}"
                    problems.append(Problem(f"{settings.place(name)} means {implied} = {value!r}, but {other}."))
                    continue
                settings.warnings.append(f"{settings.place(implied)} is switched on by {settings.place(name)}.")
            settings.values[implied] = value
            settings.origins[implied] = Origin("implied")


def consequences(settings: Settings, checks: Iterable[Check], problems: list[Problem]) -> list[Problem]:
    """What the checks find, without what only follows from a value that could not be read."""
    unread = [name for name in settings.values if names(problems, name)]
    found = [problem for check in checks for problem in check(settings)]
    return [problem for problem in found if not any(names([problem], name) for name in unread)]


def names(problems: Iterable[Problem], option: str) -> bool:
    return any(f"`{option}`" in problem.message or f"`--{option}`" in problem.message for problem in problems)


def raise_with_notice(problems: list[Problem], noticed: Collection[str]) -> None:
    """Raise the problems, with the unknown keys below them: a misspelled key is often why another is missing."""
    try:
        raise_all(problems, ConfigError)
    except ConfigError as error:
        below = "".join(f"\n  - {sentence}" for sentence in noticed)
        raise ConfigError(f"{error}\nAlso noticed:{below}" if noticed else str(error)) from None


def repeated(spoken: list[Written]) -> list[str]:
    """A warning for each option that is given twice: the last one counts, as in sd-scripts."""
    names = [item.option.name for item in spoken]
    times = {name: names.count(name) for name in names}
    message = "is on the command line {} times; only the last one is used."
    return [f"`--{name}` {message.format(number)}" for name, number in times.items() if number > 1]


def write_config(settings: Settings, problems: list[Problem]) -> None:
    """Write what was asked for on the command line to `--config_file`, without secrets, and say so."""
    raise_all(problems, ConfigError)
    if settings["config_file"] is None:
        raise ConfigError("`--output_config` needs `--config_file`: the name of the file to write.")
    path = config_path(settings["config_file"])
    asked = {name: value for name, value in settings.values.items() if settings.origins[name] == COMMAND_LINE}
    secrets = [name for name in asked if settings.options[name].secret]
    values = {
        name: written_form(value)
        for name, value in asked.items()
        if name not in ("config_file", "output_config", *secrets) and value != settings.options[name].default
    }
    try:
        write_toml(path, values, "Written by --output_config")
    except FileExistsError:
        raise ConfigError(f"{path} exists already and is not overwritten; choose another `--config_file`.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from None
    left_out = f" (without {', '.join(secrets)}, which stay secret)" if secrets else ""
    show(f"Wrote {len(values)} options to {path}{left_out}.")
