"""Write docs/kohya_parity.md, or compare a folder of recordings; exit code 1 if a figure differs without a reason."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.golden_table.comparison import GOLDEN
from tests.golden_table.table import PAGE, compare_all, page


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=GOLDEN, help="recordings; the page is of the default's")
    folder = parser.parse_args().folder
    compared = compare_all(folder)
    if folder == GOLDEN:
        PAGE.write_text(page(compared), encoding="utf-8", newline="\n")
    unexplained = [line for comparisons in compared.values() for c in comparisons for line in c.unexplained]
    count = sum(c.count for comparisons in compared.values() for c in comparisons)
    done = f"{PAGE} is written" if folder == GOLDEN else f"{len(compared)} files of {folder} are compared"
    print("\n".join(unexplained) or f"{done}; each of {count} figures is equal or explained")
    return 1 if unexplained or not compared else 0


if __name__ == "__main__":
    sys.exit(main())
