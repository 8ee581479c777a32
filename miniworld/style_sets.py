"""The held-out styles as the datasets of a batch: `python -m miniworld.style_sets --output data/styles`.

Each style becomes OUTPUT/STYLE/REPEATS_STYLE with its 15 training pictures, and OUTPUT/STYLE.txt with prompts that none
of them shows. What is there already stays, so that a second call only adds what is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started by its path: the repository is where `library` and `miniworld` are found
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from library.atomic import atomic
from library.command import run_command
from library.config.option import Group, Option
from library.config.options.config import CONFIG
from library.config.parse import parse
from library.config.suggest import did_you_mean
from library.errors import ConfigError
from miniworld.captions import class_token
from miniworld.draw import write_dataset
from miniworld.sets import style_set
from miniworld.styles import HELD_OUT_STYLES

OPTIONS = Group(
    "Which styles, and where",
    (
        Option("output", Path, Path("data/styles"), "folder with a folder for each style"),
        Option("styles", str, list(HELD_OUT_STYLES), "which of the held-out styles", nargs="*"),
        Option("repeats", int, 1, "how often an epoch takes each picture", minimum=1),
        Option("prompts", int, 4, "prompts for each style", minimum=1, maximum=32),
    ),
)
DRAWN_BY = "--w 128 --h 128 --s 20 --l 4"


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_write, argv)


def _write(argv: Sequence[str]) -> None:
    settings = parse(argv, OPTIONS, CONFIG, prog="python -m miniworld.style_sets", description=str(__doc__))
    for style in settings["styles"]:
        if style not in HELD_OUT_STYLES:
            there_are = f"; they are {', '.join(HELD_OUT_STYLES)}."
            raise ConfigError(f"`{style}` is no held-out style{did_you_mean(style, HELD_OUT_STYLES, end=there_are)}")
    for style in settings["styles"]:
        write_style(settings["output"], style, settings["repeats"], settings["prompts"])
    print(f"{len(settings['styles'])} styles with their prompts are in {settings['output']}")


def write_style(output: Path, style: str, repeats: int, prompts: int) -> None:
    """One style's dataset and its file of prompts, unless they are there."""
    folder = output / style / f"{repeats}_{class_token(style)}"
    if not folder.exists():
        write_dataset(folder, style_set(style, "train"))
    file = output / f"{style}.txt"
    if not file.exists():
        captions = [picture.caption for picture in style_set(style, "test")[:prompts]]
        lines = [f"{caption} {DRAWN_BY} --d {seed}\n" for seed, caption in enumerate(captions, start=1)]
        with atomic(file) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    sys.exit(main())
