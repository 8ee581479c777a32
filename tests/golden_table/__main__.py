"""Write docs/kohya_parity.md; exit code 1 if a figure differs without a reason."""

import sys

from tests.golden_table.table import PAGE, compare_all, page

compared = compare_all()
PAGE.write_text(page(compared), encoding="utf-8", newline="\n")
unexplained = [line for comparisons in compared.values() for c in comparisons for line in c.unexplained]
print("\n".join(unexplained) or f"{PAGE} is written; every figure is equal or explained")
sys.exit(1 if unexplained else 0)
