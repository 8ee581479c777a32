"""Which method is better, and whether that is shown: differences between pairs of jobs, and ranks. Pure functions.

A pair is two methods on one dataset under one seed. Jobs on one dataset are not independent of each other, so where
there are several datasets each counts once, by the mean over its seeds; with one dataset its seeds are what counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean

from library.batch.jobs.ledger import Record
from library.batch.results.metrics_files import VALIDATION, comparable, metrics_of, value_of
from library.metrics.statistics import Mean, holm, t_interval, verdict

Place = tuple[str, int]
"""A dataset and a seed."""


@dataclass(frozen=True)
class Measure:
    """A figure that jobs have, and which way is better."""

    name: str
    higher_is_better: bool

    @property
    def title(self) -> str:
        way = "higher" if self.higher_is_better else "lower"
        return f"{self.name.replace('_', ' ')} ({way} is better)"


@dataclass(frozen=True)
class MethodDifference:
    """A method less the one that it is compared with, and what was counted: "datasets" or "seeds".

    `p` is that of the mean, adjusted to all differences that are shown together.
    """

    method: str
    mean: Mean
    unit: str
    p: float | None = None

    @property
    def counted(self) -> str:
        """ "3 datasets", "1 seed"."""
        return f"{self.mean.n} {self.unit if self.mean.n != 1 else self.unit.removesuffix('s')}"

    def verdict(self, measure: Measure) -> str:
        return verdict(self.mean, self.p, higher_is_better=measure.higher_is_better)


def measures(records: Sequence[Record]) -> list[Measure]:
    """What at least two methods have been measured by: the held-out loss first."""
    better: dict[str, bool] = {}
    if any(VALIDATION in record.results for record in records):
        better[VALIDATION] = False
    for record in records:
        for name, facts in metrics_of(record).items():
            better.setdefault(name, facts["better"] == "higher")
    found = [Measure(name, higher) for name, higher in better.items()]
    return [measure for measure in found if len(values(records, measure.name)) > 1]


def values(records: Sequence[Record], name: str) -> dict[str, dict[Place, float]]:
    """{method: {(dataset, seed): value}} of the jobs that are done and were measured by it in the same way."""
    found: dict[str, dict[Place, float]] = {}
    for record in comparable(records, name):
        value = value_of(record, name)
        assert value is not None
        found.setdefault(record.method, {})[record.dataset, record.seed] = value
    return found


def reference(records: Sequence[Record]) -> str:
    """The method that the others are compared with: the model as it is, else the first one."""
    return (untrained(records) or [records[0].method])[0]


def untrained(records: Sequence[Record]) -> list[str]:
    """The methods that leave the model as it is."""
    return [r.method for r in records if r.parts.get("options", {}).get("method trains") is False]


def adjusted(tables: Sequence[Sequence[MethodDifference]]) -> list[list[MethodDifference]]:
    """The differences of all tables that are shown together, with p by Holm's rule over all of them."""
    tested = [d for table in tables for d in table if d.mean.p is not None]
    p = dict(zip(map(id, tested), holm([d.mean.p for d in tested if d.mean.p is not None]), strict=True))
    return [[replace(d, p=p.get(id(d))) for d in table] for table in tables]


def differences(records: Sequence[Record], name: str, against: str) -> list[MethodDifference]:
    """Each other method less `against`, over the pairs that both have."""
    measured = values(records, name)
    theirs = measured.get(against, {})
    once = against in untrained(records)
    found = []
    for method, ours in measured.items():
        pairs = {place: (value, _same_place(theirs, place, once=once)) for place, value in ours.items()}
        gaps = {place: value - other for place, (value, other) in pairs.items() if other is not None}
        if method != against and gaps:
            units = _by_dataset(gaps)
            over = [mean(group) for group in units.values()] if len(units) > 1 else list(gaps.values())
            found.append(MethodDifference(method, t_interval(over), "datasets" if len(units) > 1 else "seeds"))
    return found


def ranks(records: Sequence[Record], measure: Measure) -> dict[str, float]:
    """The mean over datasets of each method's rank there, 1 the best; of datasets on which all methods were measured.

    Equal values share their ranks' mean.
    """
    measured = {method: _dataset_means(at) for method, at in values(records, measure.name).items()}
    shared = set.intersection(*(set(of) for of in measured.values())) if measured else set()
    sign = -1 if measure.higher_is_better else 1
    totals: dict[str, list[float]] = {method: [] for method in measured}
    for dataset in shared:
        for method, of in measured.items():
            ours = sign * of[dataset]
            others = [sign * other[dataset] for other in measured.values()]
            below, equal = sum(o < ours for o in others), sum(o == ours for o in others)
            totals[method].append(below + (equal + 1) / 2)
    return {method: mean(found) for method, found in totals.items() if found}


def _same_place(theirs: Mapping[Place, float], place: Place, *, once: bool) -> float | None:
    """The other method's value there; of one that is looked at `once` for each dataset, the same for all seeds."""
    if place in theirs or not once:
        return theirs.get(place)
    of_dataset = [value for (dataset, _), value in theirs.items() if dataset == place[0]]
    return of_dataset[0] if len(of_dataset) == 1 else None


def _by_dataset(found: Mapping[Place, float]) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {}
    for (dataset, _), value in found.items():
        groups.setdefault(dataset, []).append(value)
    return groups


def _dataset_means(found: Mapping[Place, float]) -> dict[str, float]:
    return {dataset: mean(group) for dataset, group in _by_dataset(found).items()}
