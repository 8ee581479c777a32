"""Draw one of the proof sets as a kohya dataset folder: `python -m miniworld.draw --style blueprint --output DIR`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import cv2

if not __package__:  # started by its path: the repository is where `library` and `miniworld` are found
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from library.atomic import atomic_folder
from library.command import run_command
from library.config.option import Group, Option, Settings
from library.config.options.config import CONFIG
from library.config.parse import parse
from library.config.suggest import did_you_mean
from library.errors import ConfigError, Problem, UserError, raise_all
from miniworld.captions import class_token
from miniworld.identities import HELD_OUT
from miniworld.scenes import ScenePicture
from miniworld.sets import SPLITS, identity_set, one_image_set, style_set
from miniworld.styles import HELD_OUT_STYLES, PRETRAINING_STYLES, STYLES

OPTIONS = Group(
    "What to draw, and where",
    (
        Option("style", str, None, "draw a set in this style (see --list)"),
        Option("identity", str, None, "draw a set of this person (see --list)"),
        Option("split", str, "train", "the pictures to learn from, or those to be tested on", choices=SPLITS),
        Option("one_image", bool, False, "only the one picture from which a person is to be learnt"),
        Option("output", Path, None, "folder to write; the pictures go to OUTPUT/REPEATS_CLASS"),
        Option("repeats", int, 10, "how often an epoch takes each picture: the number in the folder's name", minimum=1),
        Option("word", str, "sks", "the word that stands for a person in the captions"),
        Option("seed", int, 0, "another seed draws other pictures of the same style or person", minimum=0),
        Option("overwrite", bool, False, "replace the pictures of an earlier run in the same folder"),
        Option("list", bool, False, "print the styles and the people, and draw nothing"),
    ),
)

_NOT_IN_FILE_NAMES = '/\\:*?"<>|\n\t'


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(_draw, argv)


def _draw(argv: Sequence[str]) -> None:
    settings = parse(
        [_with_underscores(argument) for argument in argv],
        OPTIONS,
        CONFIG,
        prog="python -m miniworld.draw",
        description="Write a proof set of the drawn world as a kohya dataset folder: PNG pictures with .txt captions.",
    )
    for warning in settings.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if settings["list"]:
        print(_listing())
        return
    raise_all(_problems(settings), ConfigError)
    pictures, folder_class = _pictures(settings)
    folder = Path(settings["output"]) / f"{settings['repeats']}_{folder_class}"
    neighbours = _refuse_to_mix(folder, overwrite=settings["overwrite"])
    write_dataset(folder, pictures)
    size = pictures[0].image.shape[0]
    count = "1 picture" if len(pictures) == 1 else f"{len(pictures)} pictures"
    print(f"Wrote {count} of {size} x {size} px, each with its caption, to {folder}")
    if neighbours:
        print(f"{folder.parent} also holds {', '.join(neighbours)}, which a training on it would take too")


def _with_underscores(argument: str) -> str:
    """`--one-image` is `--one_image`; values keep their dashes."""
    name, equals, value = argument.partition("=")
    return name.replace("-", "_").replace("__", "--", 1) + equals + value if argument.startswith("--") else argument


def _listing() -> str:
    people = ", ".join(f"{name} ({identity.gender})" for name, identity in HELD_OUT.items())
    return (
        f"Styles held out of pretraining: {', '.join(HELD_OUT_STYLES)}\n"
        f"Styles of pretraining: {', '.join(PRETRAINING_STYLES)}\n"
        f"People held out of pretraining: {people}"
    )


def _problems(settings: Settings) -> list[Problem]:
    """Everything that is wrong with the options, all at once."""
    found: list[Problem] = []
    style, identity = settings["style"], settings["identity"]
    if (style is None) == (identity is None):
        found.append(Problem("Give either `--style` or `--identity`; `--list` shows what there is."))
    if style is not None and style not in STYLES:
        found.append(_unknown("style", style, STYLES))
    if identity is not None and identity not in HELD_OUT:
        found.append(_unknown("identity", identity, tuple(HELD_OUT)))
    if settings["one_image"] and (identity is None or settings["split"] == "test"):
        found.append(Problem("`--one_image` belongs to the training pictures of an `--identity`."))
    if not settings["word"].strip() or set(settings["word"]) & set(_NOT_IN_FILE_NAMES):
        found.append(Problem(f"`--word` is {settings['word']!r}, which cannot be part of a folder's name."))
    if settings["output"] is None:
        found.append(Problem("`--output` is missing: the folder to write."))
    return found


def _unknown(option: str, value: str, known: Sequence[str]) -> Problem:
    there_are = f". There are {', '.join(known)}."
    return Problem(f"`{value}` is no {option} (`--{option}`){did_you_mean(value, known, end=there_are)}")


def _pictures(settings: Settings) -> tuple[list[ScenePicture], str]:
    """The set that was asked for, and the class in its folder's name."""
    if settings["style"] is not None:
        return style_set(settings["style"], settings["split"], settings["seed"]), class_token(settings["style"])
    name, seed, word = settings["identity"], settings["seed"], settings["word"]
    person = f"{word} {HELD_OUT[name].gender}"
    if settings["one_image"]:
        return one_image_set(name, seed, word), person
    return identity_set(name, settings["split"], seed, word), person


def _refuse_to_mix(folder: Path, *, overwrite: bool) -> list[str]:
    """Raise if the output folder holds anything, unless it may be written over; returns what else lies in it."""
    output = folder.parent
    if output.exists() and not output.is_dir():
        raise UserError(f"`{output}` is a file; choose a folder for `--output`.")
    there = sorted(path.name for path in output.iterdir()) if output.is_dir() else []
    if there and not overwrite:
        raise UserError(
            f"`{output}` is not empty (it holds `{there[0]}`); choose another `--output`, or add `--overwrite` to "
            f"replace `{folder.name}` in it."
        )
    return [name for name in there if name != folder.name]


def write_dataset(folder: Path, pictures: Sequence[ScenePicture]) -> None:
    """Pictures as 01.png ... with their captions in 01.txt ...; the folder appears when all of them are written."""
    with atomic_folder(folder) as unfinished:
        for number, picture in enumerate(pictures, start=1):
            _, png = cv2.imencode(".png", cv2.cvtColor(picture.image, cv2.COLOR_RGB2BGR))
            # through Python's own files: OpenCV cannot open every file name on Windows
            (unfinished / f"{number:02d}.png").write_bytes(png.tobytes())
            (unfinished / f"{number:02d}.txt").write_text(picture.caption + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
