"""What is asked of evaluate.py: which pictures, which prompt each of them has, which metrics. All mistakes at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from library.config.image_folders import is_image_name, what_else_is_there, why_not_a_folder
from library.config.option import Settings
from library.config.options.evaluate import ALL_EVALUATE
from library.config.spec import declared, spec_of
from library.config.suggest import did_you_mean, missing
from library.errors import ConfigError, Problem, raise_all
from library.metrics.catalogue import Metric
from library.metrics.prompts import PromptedPicture, known_prompt, prompts_of_manifest
from library.metrics.weights import Weights, all_metrics, not_there, read_weights


@dataclass
class Request:
    """Pictures and metrics. `notes` are worth a line before anything is measured."""

    generated: list[PromptedPicture]
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


@spec_of(*ALL_EVALUATE)
class RequestSpec:
    """The options on what is measured of which pictures; field names are the options'."""

    only: str | None = declared
    prompts: Path | None = declared
    metrics: Sequence[str] | None = declared
    require: Sequence[str] | None = declared
    weights: Path | None = declared
    paper_table: bool = declared


def read_request(settings: Settings) -> Request:
    """Everything that can be known before a network is loaded. Raises ConfigError with all mistakes."""
    spec = settings.take(RequestSpec)
    problems: list[Problem] = []
    folders = {name: _pictures_in(settings, name, problems) for name in ("generated", "reference", "base")}
    notes: list[str] = []
    if spec.prompts is None:
        asked = [PromptedPicture(path, known_prompt(path, problems)) for path in folders["generated"]]
    else:
        asked = list(prompts_of_manifest(folders["generated"], spec.prompts, problems, notes))
    weights = Weights()
    try:
        weights = read_weights(spec.weights)
    except ConfigError as error:
        problems.append(Problem(str(error)))
    known = all_metrics(weights, paper_table=spec.paper_table)
    chosen = spec.metrics or list(known)
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
    names = dict.fromkeys([*chosen, *(spec.require or ())])
    if spec.paper_table:
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
    pattern = settings.take(RequestSpec).only if name == "generated" else None
    chosen = [path for path in found if pattern is None or fnmatchcase(path.name, pattern)]
    if found and not chosen:
        there = f"{folder} has {found[0].name}" + (" and others" if len(found) > 1 else "")
        problems.append(Problem(f"{settings.place('only')} is {pattern}, which is no picture's name; {there}"))
    return chosen
