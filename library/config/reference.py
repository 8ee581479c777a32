"""Write the options of sd-scripts into docs/coming-from-sd-scripts.md: python -m library.config.reference

Each of them works, differs on purpose, has no effect, or is refused; options that only this program has stand in a
table of their own. A test fails when the page is not what this command writes.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from library.config.option import Group, Option
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.config.values import written_form
from library.console import show

PAGE = Path(__file__).resolve().parents[2] / "docs" / "coming-from-sd-scripts.md"
BEGIN, END = "<!-- options: begin -->", "<!-- options: end -->"
WORKS, DIFFERENT, INERT, REFUSED = "works", "differs", "no effect", "refused"


def status(option: Option) -> str:
    if option.inert:
        return INERT
    return REFUSED if option.differs.startswith("refused") else DIFFERENT if option.differs else WORKS


def why(option: Option) -> str:
    """What differs, why it has no effect, or what it needs to have one."""
    if option.inert:
        return option.inert
    needs = f"no effect without {option.needs.phrase}" if option.needs else ""
    return "; ".join(filter(None, [option.differs.removeprefix("refused: "), needs]))


def row(option: Option) -> str:
    names = ", ".join(f"`{name}`" for name in (option.name, *option.aliases))
    default = "" if option.default in (None, "", False) else f"`{written_form(option.default)}`"
    cells = [names, status(option), option.help, default, why(option)]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def tables() -> Iterator[str]:
    """One table for each group of options, counted first."""
    kohyas = [option for group in ALL_TRAIN_NETWORK for option in group if option.of_sd_scripts]
    names = sum(1 + len(option.aliases) for option in kohyas)
    counts = {what: sum(status(option) == what for option in kohyas) for what in (WORKS, DIFFERENT, INERT, REFUSED)}
    yield (
        f"{names} names are {len(kohyas)} options: {counts[WORKS]} work as there, {counts[DIFFERENT]} work and differ "
        f"on purpose, {counts[INERT]} have no effect and say so at the start, {counts[REFUSED]} are refused."
    )
    for group in ALL_TRAIN_NETWORK:
        mine = [option for option in group if option.of_sd_scripts]
        if mine:
            title = group.title if isinstance(group, Group) else "Options"
            yield f"\n### {title}\n\n| option | here | what it does | default | remark |\n|---|---|---|---|---|"
            yield from map(row, mine)
    yield "\n### Only here\n\n| option | what it does | default |\n|---|---|---|"
    for option in (option for group in ALL_TRAIN_NETWORK for option in group if not option.of_sd_scripts):
        default = "" if option.default in (None, "", False) else f"`{written_form(option.default)}`"
        yield f"| `{option.name}` | {option.help} | {default} |"


def page(text: str) -> str:
    """The page with the tables between its marks. Raises ValueError if it has no marks."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{PAGE.name} needs the lines {BEGIN} and {END} once each")
    between = "\n".join([BEGIN, *tables(), END])
    return re.sub(f"{BEGIN}.*{END}", lambda _: between, text, flags=re.DOTALL)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
    show(f"{PAGE} is written")


if __name__ == "__main__":
    main()
