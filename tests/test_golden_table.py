"""Every figure recorded from sd-scripts is equal, or different for a reason that stands in docs/kohya_parity.md."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.golden_table.comparison import Comparison, agree, read_golden
from tests.golden_table.files import metadata_of_runs
from tests.golden_table.table import PAGE, compare_all, page


@pytest.fixture(scope="module")
def compared() -> dict[str, list[Comparison]]:
    return compare_all()


def test_every_figure_is_equal_or_different_for_a_reason(compared: dict[str, list[Comparison]]) -> None:
    assert [line for comparisons in compared.values() for c in comparisons for line in c.unexplained] == []
    assert all(c.count > 0 for comparisons in compared.values() for c in comparisons)


def test_the_page_is_what_the_command_writes(compared: dict[str, list[Comparison]]) -> None:
    assert PAGE.read_text(encoding="utf-8") == page(compared), "run `python -m tests.golden_table`"


def test_another_folder_of_recordings_is_compared_as_it_is(tmp_path: Path):
    names = read_golden("names.json.gz")
    assert len(names["runs"]) == 37
    names["runs"][0]["output_dir_top_level"][0] = "model-000009.safetensors"
    (tmp_path / "names.json").write_text(json.dumps(names), encoding="utf-8")
    (found,) = compare_all(tmp_path).values()
    assert [line.partition(":")[0] for c in found for line in c.unexplained] == [names["runs"][0]["label"]]


@pytest.mark.parametrize(
    ("old", "new", "entries"),
    [
        ('class_tokens = "blue"', 'class_tokens = "green"', ["ss_datasets"]),
        ("num_repeats = 2", "num_repeats = 3", ["ss_num_train_images", "ss_datasets"]),
        ("batch_size = 2", "batch_size = 4", ["ss_datasets"]),
    ],
)
def test_a_recorded_run_is_compared_by_the_datasets_that_it_describes(old: str, new: str, entries: list[str]):
    data = read_golden("metadata_sd15.json.gz")
    case = data["cases"]["sd15_dataset_config"]
    assert old in case["dataset_toml"]
    case["dataset_toml"] = case["dataset_toml"].replace(old, new)
    (found,) = metadata_of_runs({"cases": {"changed": case}})
    assert {line.partition(":")[0] for line in found.unexplained} >= set(entries)


def test_a_reason_for_a_figure_that_agrees_is_a_failure() -> None:
    comparison = Comparison("figures", relative=1e-6)
    comparison.add("a", 1.0, 1.0 + 1e-9)
    comparison.add("b", 1.0, 2.0, because="ours is half")
    comparison.add("c", 1.0, 2.0)
    comparison.add("d", 1.0, 1.0, because="ours is half")
    assert (comparison.equal, comparison.different.total(), len(comparison.unexplained)) == (1, 1, 2)


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        (float("inf"), "inf", True),
        (float("nan"), "nan", True),
        ([1, {"a": 0.1}], (1, {"a": 0.1 + 1e-9}), True),
        ([1, 2], [1], False),
        ({"a": 1}, {"b": 1}, False),
        ("1", 1.0, False),
    ],
)
def test_figures_agree_part_by_part(ours: object, theirs: object, same: bool) -> None:
    assert agree(ours, theirs, relative=1e-6) == same
