"""Write docs/kohya_parity.md, or compare a folder of recordings; exit code 1 if a figure differs without a reason."""

import sys
from pathlib import Path

from tests.golden_table.comparison import GOLDEN
from tests.golden_table.table import PAGE, compare_all, page

folder = Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN
compared = compare_all(folder)
if folder == GOLDEN:
    PAGE.write_text(page(compared), encoding="utf-8", newline="\n")
unexplained = [line for comparisons in compared.values() for c in comparisons for line in c.unexplained]
count = sum(c.count for comparisons in compared.values() for c in comparisons)
done = f"{PAGE} is written" if folder == GOLDEN else f"{len(compared)} files of {folder} are compared"
print("\n".join(unexplained) or f"{done}; each of {count} figures is equal or explained")
sys.exit(1 if unexplained or not compared else 0)
