"""How much disk space and time a job takes: what it took where it is done, else what finished jobs alike took.

Alike are jobs of equal options but for the pictures, the seed and the length. Nothing is guessed: where no job alike is
done, nothing is known. Imports no torch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from library.batch.jobs.config import OPTIONS, STAYS_WITH_THE_BATCH, Prepared
from library.batch.jobs.fingerprint import JobFingerprint, options_of
from library.batch.jobs.jobs_file import OF_THE_BATCH
from library.batch.jobs.ledger import DONE, Record
from library.config.image_folders import SourceSpec, concept_folders, count_images

LENGTH = ("max_train_steps", "max_train_epochs")
UNLIKE = frozenset((*LENGTH, *OF_THE_BATCH, *STAYS_WITH_THE_BATCH, "sample_prompts"))
"""Options in which jobs alike may differ."""
BY_STEPS = ("save_every_n_steps", "sample_every_n_steps")
"""With these the number of steps says how many files there are, and not the number of epochs."""


@dataclass(frozen=True)
class Forecast:
    """`size` in bytes, `seconds` on one device; None where nothing is known. `measured`: the job itself is done."""

    size: float | None = None
    seconds: float | None = None
    measured: bool = False


@dataclass(frozen=True)
class Length:
    """How long a job trains: `amount` steps, epochs, or visits of pictures, as far as that is known without torch."""

    unit: str
    amount: int


def forecasts(
    asked: Sequence[tuple[Prepared, Record]],
    known: Iterable[tuple[Prepared, Record]],
    count: Callable[[Prepared], float | None] = lambda prepared: None,
) -> list[Forecast]:
    """One for each job asked about, from those among the `known` that are done under the options that they have now.

    `count` finds the bytes of what a job will leave, asked once for all jobs alike where none is done; None where it
    cannot.
    """
    visits: dict[Path, int | None] = {}
    by_size: dict[Hashable, list[float]] = defaultdict(list)
    by_pace: dict[Hashable, list[float]] = defaultdict(list)
    beside: dict[Hashable, list[float]] = defaultdict(list)
    for prepared, record in known:
        if record.state != DONE or JobFingerprint(options_of(prepared), {}).differences(
            {"options": record.parts.get("options", {})}
        ):
            continue
        kind, length = kind_of(prepared), length_of(prepared, visits)
        if (size := record.results.get("bytes")) is not None:
            by_size[kind, files_by(prepared, length)].append(size)
        seconds = seconds_of(record)
        trained = trained_seconds(record) if prepared.job.trains else seconds
        if trained is not None and length.amount:
            by_pace[kind, length.unit].append(trained / length.amount)
        if trained is not None and seconds is not None and len(record.attempts) == 1:
            beside[kind].append(max(0.0, seconds - trained))
    found = []
    for prepared, record in asked:
        if record.state == DONE:
            found.append(Forecast(record.results.get("bytes"), seconds_of(record), measured=True))
            continue
        kind, length = kind_of(prepared), length_of(prepared, visits)
        alike = kind, files_by(prepared, length)
        if alike not in by_size:
            counted = count(prepared)
            by_size[alike] = [] if counted is None else [counted]
        sizes, paces = by_size[alike], by_pace.get((kind, length.unit))
        rest = median(beside[kind]) if kind in beside else 0.0
        seconds = length.amount * median(paces) + rest if paces else None
        found.append(Forecast(median(sizes) if sizes else None, seconds))
    return found


def kind_of(prepared: Prepared) -> Hashable:
    """Equal for jobs alike. A dataset description has options of its own, so it is like itself only."""
    settings, dataset = prepared.settings, prepared.job.dataset
    description = str(dataset.path) if dataset.is_description else ""
    values = tuple(str(settings[name]) for name in OPTIONS if name not in UNLIKE)
    return prepared.job.trains, description, values


def length_of(prepared: Prepared, visits: dict[Path, int | None]) -> Length:
    """Of a job that trains nothing: one look. `visits` remembers those of an epoch, by dataset."""
    settings, dataset = prepared.settings, prepared.job.dataset
    if not prepared.job.trains:
        return Length("looks", 1)
    epochs = settings["max_train_epochs"]
    if epochs is None:
        return Length("steps", settings["max_train_steps"])
    if dataset.path not in visits:
        visits[dataset.path] = visits_in_an_epoch(prepared)
    in_one = visits[dataset.path]
    return Length("epochs", epochs) if in_one is None else Length("visits", epochs * in_one)


def visits_in_an_epoch(prepared: Prepared) -> int | None:
    """Pictures of a folder by their repeats; None for a description, which may name them elsewhere."""
    dataset = prepared.job.dataset
    if dataset.is_description:
        return None
    if dataset.tables is not None:
        (subset,) = dataset.tables.tables["datasets"][0]["subsets"]
        subsets = [subset]
    else:
        subsets = concept_folders(dataset.path, [])
    repeats = prepared.settings.take(SourceSpec).dataset_repeats
    return sum(subset.get("num_repeats", repeats) * count_images(Path(subset["image_dir"])) for subset in subsets)


def files_by(prepared: Prepared, length: Length) -> Hashable:
    """What the number of a job's files depends on, beside its options."""
    if length.unit == "visits" and not any(prepared.settings[name] for name in BY_STEPS):
        return Length("epochs", prepared.settings["max_train_epochs"])
    return length


def trained_seconds(record: Record) -> float | None:
    """Of its steps alone, at the pace of the median step."""
    steps, pace = (record.results.get(name) for name in ("steps", "seconds_per_step"))
    return None if steps is None or pace is None else steps * pace


def seconds_of(record: Record) -> float | None:
    """Of all its attempts that have ended, together."""
    ended = [attempt.ended - attempt.begun for attempt in record.attempts if attempt.ended is not None]
    return sum(ended) if ended else None
