"""What is asked of evaluate.py: which pictures, which prompt each of them has, which metrics. All mistakes at once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from library.config.image_folders import is_image_name, what_else_is_there, why_not_a_folder
from library.config.option import Settings
from library.config.suggest import did_you_mean, missing
from library.errors import ConfigError, Problem, raise_all
from library.metrics.catalogue import Metric
from library.metrics.weights import Weights, all_metrics, not_there, read_weights


@dataclass(frozen=True)
class Asked:
    """A picture, and the prompt that it was made from, if it is known."""

    path: Path
    prompt: str | None = None


@dataclass
class Request:
    """Pictures and metrics. `notes` are worth a line before anything is measured."""

    generated: list[Asked]
    references: list[Path]
    base: list[Path]
    metrics: list[Metric]
    weights: Weights
    notes: list[str] = field(default_factory=list)

    @property
    def pairs(self) -> list[tuple[Path, Path]]:
        """Generated pictures with the reference of the same name before the ending."""
        by_name = {path.stem: path for path in self.references}
        return [(asked.path, by_name[asked.path.stem]) for asked in self.generated if asked.path.stem in by_name]

    def reason(self, metric: Metric) -> str | None:
        """Why this metric cannot be measured, to be read after "not measured, ", or None if it can."""
        if metric.compares == "prompts" and not any(asked.prompt for asked in self.generated):
            return "because no prompts are known; give `--prompts p.jsonl`, or NAME.txt beside each NAME.png"
        if metric.compares != "prompts" and not self.references:
            return "because there is nothing to compare with; give `--reference`"
        if metric.compares == "pairs" and not self.pairs:
            return "because no reference has the name of a generated picture; it compares pictures of the same name"
        if metric.of_sets and min(len(self.generated), len(self.references)) < 2:
            return "because it compares sets of pictures; give at least 2 generated pictures and 2 references"
        return not_there(metric, self.weights)


def read_request(settings: Settings) -> Request:
    """Everything that can be known before a network is loaded. Raises ConfigError with all mistakes."""
    problems: list[Problem] = []
    folders = {name: _pictures_in(settings, name, problems) for name in ("generated", "reference", "base")}
    notes: list[str] = []
    if settings["prompts"] is None:
        asked = [Asked(path, caption_beside(path)) for path in folders["generated"]]
    else:
        asked = list(_with_prompts(folders["generated"], settings["prompts"], problems, notes))
    weights = Weights()
    try:
        weights = read_weights(settings["weights"])
    except ConfigError as error:
        problems.append(Problem(str(error)))
    known = all_metrics(weights, paper_table=settings["paper_table"])
    chosen = settings["metrics"] or list(known)
    for option in ("metrics", "require"):
        for name in settings[option] or ():
            if name not in known:
                end = f"; there are {', '.join(known)}"
                problems.append(
                    Problem(f"{settings.place(option)}: {name} is no metric{did_you_mean(name, known, end=end)}")
                )
    for name in ("against", "scores"):
        if settings[name] is not None and not settings[name].is_file():
            problems.append(Problem(f"{settings.place(name)}: {missing(settings[name])}"))
    raise_all(problems, ConfigError)
    names = dict.fromkeys([*chosen, *(settings["require"] or ())])
    if settings["paper_table"]:
        names |= dict.fromkeys(all_metrics(Weights(), paper_table=True).keys() - all_metrics(Weights()).keys())
    return Request(asked, folders["reference"], folders["base"], [known[name] for name in names], weights, notes)


def _pictures_in(settings: Settings, name: str, problems: list[Problem]) -> list[Path]:
    """The pictures directly inside the folder of this option, sorted by name."""
    folder: Path | None = settings[name]
    if folder is None:
        if name == "generated":
            problems.append(Problem("`--generated` is missing: the folder of the pictures to measure"))
        return []
    if why := why_not_a_folder(folder):
        problems.append(Problem(f"{settings.place(name)}: {why}"))
        return []
    found = sorted(path for path in folder.iterdir() if is_image_name(path.name) and path.is_file())
    if not found:
        problems.append(Problem(f"{settings.place(name)} holds no pictures: {what_else_is_there(folder)}"))
    return found


def caption_beside(picture: Path) -> str | None:
    """The text of NAME.txt beside NAME.png, None where there is none."""
    file = picture.with_suffix(".txt")
    return file.read_text(encoding="utf-8-sig").strip() or None if file.is_file() else None


def _with_prompts(
    pictures: Sequence[Path], manifest: Path, problems: list[Problem], notes: list[str]
) -> Iterator[Asked]:
    """The pictures that a line of the manifest names, each with its prompt; the others are left out."""
    try:
        lines = list(read_manifest(manifest))
    except ConfigError as error:
        problems.append(Problem(str(error)))
        return
    named: Counter[Path] = Counter()
    prompts: dict[Path, str] = {}
    for number, pattern, prompt in lines:
        found = [path for path in pictures if fnmatchcase(path.name, pattern)]
        if not found and pictures:
            end = f"; the folder has {pictures[0].name}" + (" and others" if len(pictures) > 1 else "")
            guess = did_you_mean(pattern, [path.name for path in pictures], end=end)
            problems.append(Problem(f"{manifest.name} line {number}: no picture is called {pattern}{guess}"))
        named.update(found)
        prompts |= dict.fromkeys(found, prompt)
    for path, times in named.items():
        if times > 1:
            problems.append(Problem(f"{manifest.name}: {times} lines name the picture {path.name}; one prompt each"))
    if left := len(pictures) - len(named):
        notes.append(f"{left} of {len(pictures)} generated pictures are in no line of {manifest.name}, and left out")
    yield from (Asked(path, prompts[path]) for path in pictures if path in prompts)


def read_manifest(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line number, file name (or pattern with * and ?) and prompt of each line. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"`--prompts`: {missing(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"`--prompts`: {path} cannot be read as UTF-8 text ({error})") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError(f"{path.name} line {number} is not JSON ({error.msg}); {LINE}") from None
        if not (isinstance(row, Mapping) and all(isinstance(row.get(key), str) for key in ("file", "prompt"))):
            raise ConfigError(f"{path.name} line {number} must have the texts `file` and `prompt`; {LINE}")
        yield number, row["file"], row["prompt"]


LINE = 'a line reads {"file": "a.png", "prompt": "a red boat"}'
