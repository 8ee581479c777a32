"""The table of all comparisons, as the page docs/kohya_parity.md."""

from __future__ import annotations

from pathlib import Path

from tests.golden_table.comparison import GOLDEN, Comparison, read_golden
from tests.golden_table.rooms import COMPARED

PAGE = Path(__file__).parents[2] / "docs" / "kohya_parity.md"

HEAD = """# Beside sd-scripts, figure by figure

Written by `python -m tests.golden_table`; a test fails when this page is not what that command writes. With a folder,
`python -m tests.golden_table FOLDER` compares other recordings in the same form, and writes nothing.

The golden files in `tests/golden/` hold inputs and outputs of an unmodified sd-scripts (kohya-ss/sd-scripts, commit
48d368fa). Every figure in them was put through this program. *Equal* counts those that agree within the tolerance;
where ours is another one on purpose, the reason stands below with the number of figures that it concerns. A difference
without a reason fails the tests.

Left out are examples of single random draws, which come from one generator there and from each sample's own here, and
five captions in which the word of an embedding is replaced: embeddings are trained in another way here.
"""


def compare_all(folder: Path = GOLDEN) -> dict[str, list[Comparison]]:
    """All comparisons, by golden file; of another folder those whose files it has."""
    found: dict[str, list[Comparison]] = {}
    for file, compare in COMPARED:
        data = read_golden(file, folder)
        if data is not None:
            found.setdefault(file, []).extend(compare(data))
    assert folder != GOLDEN or found.keys() == {file for file, _ in COMPARED}
    return found


def page(compared: dict[str, list[Comparison]]) -> str:
    lines = [HEAD, "| golden file | figures | compared | equal | different on purpose | tolerance |"]
    lines.append("|---|---|--:|--:|--:|---|")
    every = [(file, comparison) for file, comparisons in compared.items() for comparison in comparisons]
    for file, c in every:
        lines.append(
            f"| {file.split('.')[0]} | {c.figures} | {c.count} | {c.equal} | {c.different.total()} | {c.tolerance} |"
        )
    counted = [sum(column) for column in zip(*((c.count, c.equal, c.different.total()) for _, c in every), strict=True)]
    lines.append(f"| **all** | | **{counted[0]}** | **{counted[1]}** | **{counted[2]}** | |")
    lines += ["", "## Different on purpose", ""]
    for file, c in every:
        lines += [f"- {file.split('.')[0]}, {c.figures} ({n}): {why}" for why, n in c.different.items()]
    return "\n".join(lines) + "\n"
