"""Caption files: where the text of an image comes from.

`<stem><caption_extension>` beside the image, else the subset's class tokens, else nothing. Only the first line counts,
unless lines are alternatives to choose from.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from library.bounded_text import Unreadable, read_bytes

LONGEST = 2**20
"""Bytes of a caption file."""
OTHER_EXTENSIONS = (".txt", ".caption", ".cap")
"""What caption files are called elsewhere; named in a warning when they lie beside images without a caption."""


class BadCaption(ValueError):
    """A caption file, `path`, that cannot be read; the text says why and what to do, without naming the file."""

    path: Path | None = None


def caption_names(image_name: str, extension: str) -> list[str]:
    """The names a caption file may have, best first.

    A face-cropping tool names its pictures `<stem>_<x>_<y>_<w>_<h>`: they may share the caption of `<stem>`.
    """
    stem = os.path.splitext(image_name)[0]
    names = [stem + extension]
    parts = stem.rsplit("_", 4)
    if len(parts) == 5:
        names.append(parts[0] + extension)
    return names


def lowered(name: str) -> str:
    """A file's name with its extension in lower case."""
    stem, extension = os.path.splitext(name)
    return stem + extension.lower()


def by_extension(names: Iterable[str]) -> dict[str, str]:
    """Files by their names with the extension in lower case; of "a.txt" and "a.TXT" the former."""
    return {lowered(name): name for name in sorted(names)}


def lines_of(content: bytes) -> list[str]:
    """The lines of a caption file, without surrounding blanks. UTF-8 with or without a byte order mark.

    Raises BadCaption for any other encoding, with the byte that is not UTF-8 and its place.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BadCaption("is encoded as UTF-16; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = f"byte {error.start + 1} (0x{content[error.start]:02x})"
        raise BadCaption(f"is not UTF-8: {place} cannot be part of it; save the file as UTF-8") from error
    return [line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]


def read_caption(
    image: Path, extension: str, files: Mapping[str, str] | None = None, *, every_line: bool = False
) -> str | None:
    """The caption beside an image; None if it has no caption file, "" if that is blank. Raises BadCaption.

    `files`: the files in the image's folder as `by_extension` gives them, so that nothing that is not there is asked
    for and "a.TXT" is found as ".txt". `every_line`: all lines that are not blank, instead of the first line alone.
    """
    for wanted in caption_names(image.name, extension):
        name = wanted if files is None else files.get(lowered(wanted))
        if name is None:
            continue
        try:
            lines = lines_of(read_bytes(image.parent / name, LONGEST))
        except FileNotFoundError:
            continue
        except Unreadable as error:
            bad = BadCaption(str(error))
            bad.path = image.parent / name
            raise bad from error
        except OSError as error:
            bad = BadCaption(f"cannot be read ({error.strerror}); check its permissions")
            bad.path = image.parent / name
            raise bad from error
        except BadCaption as error:
            error.path = image.parent / name
            raise
        return "\n".join(line for line in lines if line) if every_line else lines[0]
    return None


def about_missing_captions(images: list[str], extension: str, files: Iterable[str], class_tokens: str | None) -> str:
    """One sentence on images without a caption file: how many, what they get instead, and what may be meant."""
    count = f"{len(images)} images have" if len(images) > 1 else f"'{images[0]}' has"
    instead = f"the class tokens '{class_tokens}'" if class_tokens else "an empty caption"
    message = f"{count} no {extension} file and will be trained with {instead}"
    stems = {os.path.splitext(name)[0] for name in images}
    found = Counter(os.path.splitext(name)[1].lower() for name in files if os.path.splitext(name)[0] in stems)
    beside = [(other, found[other]) for other in OTHER_EXTENSIONS if other != extension and found[other]]
    for other, number in beside[:1]:
        message += f'; there are {number} {other} files beside them: set caption_extension = "{other}" to use them'
    return message
