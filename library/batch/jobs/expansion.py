"""From what a jobs file asks for to its jobs, in their order, each with a name of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path

from library.batch.jobs.datasets import DESCRIPTIONS, DatasetSource, dataset_at, find_datasets, why_no_dataset
from library.batch.jobs.job import Job
from library.batch.jobs.jobs_file import AXES, ExtraJob, JobsFile, MethodRow
from library.config.option import Option, Origin, Written
from library.config.suggest import did_you_mean, missing
from library.config.values import file_name
from library.errors import ConfigError, Problem

LEDGER = "_batch"
"""The folder beside those of the jobs: no job may be called so."""
LONGEST = 150  # bytes of a name: what is left of 255 for the names of states and temporary files


def expand(file: JobsFile, options: dict[str, Option], problems: list[Problem]) -> list[Job]:
    """All jobs of the file; what is wrong with them is added to `problems`."""
    patterns = file.batch["datasets"] or ()
    datasets = find_datasets(patterns, f"`datasets` in {file.path.name}", problems)
    found = [_job(file, options, dataset, method, seed) for dataset, method, seed in _matrix(file, datasets)]
    jobs = [job for job in found if not any(m.takes(job.dataset.name, job.method, job.seed) for m in file.excludes)]
    for extra in file.extra:
        job = _extra_job(file, options, extra, datasets, problems)
        jobs += [job] if job else []
    check_matches(file, [*found, *jobs], problems)
    check_names(jobs, problems)
    return jobs


def chosen(jobs: Sequence[Job], only: Iterable[str] | None) -> list[Job]:
    """The jobs that `--only` names. Raises ConfigError for a name that is none."""
    if not only:
        return list(jobs)
    names = [job.name for job in jobs]
    for pattern in only:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(f"`--only {pattern}` is the name of no job{did_you_mean(pattern, names)}")
    return [job for job in jobs if any(fnmatchcase(job.name, pattern) for pattern in only)]


def _matrix(file: JobsFile, datasets: Sequence[DatasetSource]) -> list[tuple[DatasetSource, MethodRow, int]]:
    """Every dataset with every method under each seed, in the order asked for: the first axis changes last.

    A model that is not trained is the same under every seed: it comes once for each dataset, under the first.
    """
    axes = {"dataset": datasets, "method": list(file.methods.values()), "seed": file.batch["seeds"]}
    order = file.batch["order"] if sorted(file.batch["order"]) == sorted(AXES) else AXES
    points = [dict(zip(order, values, strict=True)) for values in product(*(axes[name] for name in order))]
    first = file.batch["seeds"][0]
    kept = [point for point in points if point["method"].trains or point["seed"] == first]
    return [(point["dataset"], point["method"], point["seed"]) for point in kept]


def _job(
    file: JobsFile,
    options: dict[str, Option],
    dataset: DatasetSource,
    method: MethodRow,
    seed: int,
    *,
    name: str | None = None,
    written: tuple[Written, ...] = (),
) -> Job:
    """A job with its options: what makes it a job, its method's, then each override that takes it, then its own."""
    if name is None:
        try:
            name = str(file.batch["output_name"]).format(dataset=dataset.name, method=method.name, seed=seed)
        except (KeyError, ValueError, IndexError, AttributeError):
            name = f"{dataset.name}-{method.name}-s{seed}"  # a mistake in the template, which is reported already
    folder = Path(file.batch["output_dir"] or "").absolute() / name
    own = {"output_dir": str(folder), "output_name": name, "seed": seed, **dataset.options}
    if file.batch["sample_prompts"]:
        own["sample_prompts"] = file.batch["sample_prompts"].replace("{dataset}", dataset.name)
    origin = Origin("file", file.path)
    changes = [o.written for o in file.overrides if o.match.takes(dataset.name, method.name, seed)]
    chain = [method.written, *changes, written]
    what = tuple(Written(options[key], value, origin) for key, value in own.items())
    return Job(name, dataset, method.name, seed, (*what, *(item for part in chain for item in part)), method.trains)


def _extra_job(
    file: JobsFile,
    options: dict[str, Option],
    extra: ExtraJob,
    datasets: Sequence[DatasetSource],
    problems: list[Problem],
) -> Job | None:
    dataset = next((source for source in datasets if source.name == extra.dataset), None)
    dataset = dataset or dataset_at(Path(extra.dataset).expanduser())
    method = file.methods.get(extra.method)
    if dataset is None:
        problems.append(Problem(f"{extra.place}: {_no_dataset(extra.dataset)}"))
    if method is None:
        guess = did_you_mean(extra.method, file.methods)
        problems.append(Problem(f"{extra.place}: there is no [methods.{extra.method}]{guess}"))
    if dataset is None or method is None:
        return None
    return _job(file, options, dataset, method, extra.seed, name=extra.name, written=extra.written)


def _no_dataset(name: str) -> str:
    path = Path(name).expanduser()
    if path.is_dir():
        return why_no_dataset(path)
    return f"{name} is no dataset description ({', '.join(DESCRIPTIONS)})." if path.exists() else missing(path)


def check_matches(file: JobsFile, jobs: Sequence[Job], problems: list[Problem]) -> None:
    """An override or exclusion that takes no job is a mistake in a name."""
    for match in [*(override.match for override in file.overrides), *file.excludes]:
        if jobs and not any(match.takes(job.dataset.name, job.method, job.seed) for job in jobs):
            known = {job.dataset.name for job in jobs} | {job.method for job in jobs}
            guesses = [did_you_mean(name, known, end="") for name in (*match.datasets, *match.methods)]
            guess = next((guess for guess in guesses if guess), ".")
            problems.append(Problem(f"{match.place} matches no job{guess}"))


def check_names(jobs: Sequence[Job], problems: list[Problem]) -> None:
    """Each job's files need a name of their own, on disks too that see no difference between capitals and others."""
    seen: dict[str, Job] = {}
    for job in jobs:
        other = seen.setdefault(job.name.casefold(), job)
        if other is not job:
            what = f"`{job.name}` is the name of several jobs, which would write over each other"
            problems.append(Problem(f"{what}: let `output_name` hold {{dataset}}, {{method}} and {{seed}}."))
            return
        try:
            file_name(job.name)
        except ValueError as error:
            problems.append(Problem(f"the name of a job {error}."))
        if job.name.casefold() == LEDGER or job.name.startswith("."):
            problems.append(Problem(f"a job cannot be called `{job.name}`; that is a folder of the batch itself."))
        if len(job.name.encode()) > LONGEST:
            problems.append(Problem(f"the name `{job.name}` is longer than {LONGEST} bytes."))
