"""Every figure recorded from sd-scripts is equal, or different for a reason that stands in docs/kohya_parity.md."""

from __future__ import annotations

import pytest

from tests.golden_table.comparison import Comparison, agree
from tests.golden_table.table import PAGE, compare_all, page


@pytest.fixture(scope="module")
def compared() -> dict[str, list[Comparison]]:
    return compare_all()


def test_every_figure_is_equal_or_different_for_a_reason(compared: dict[str, list[Comparison]]) -> None:
    assert [line for comparisons in compared.values() for c in comparisons for line in c.unexplained] == []
    assert all(c.count > 0 for comparisons in compared.values() for c in comparisons)


def test_the_page_is_what_the_command_writes(compared: dict[str, list[Comparison]]) -> None:
    assert PAGE.read_text(encoding="utf-8") == page(compared), "run `python -m tests.golden_table`"


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
