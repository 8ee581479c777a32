"""Which prompt each generated picture was made from: told by a manifest, a text beside it, or the picture itself."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from library.bounded_text import Unreadable, parse_json
from library.config.suggest import did_you_mean, missing
from library.errors import ConfigError, Problem
from library.image_files import open_image


@dataclass(frozen=True)
class PromptedPicture:
    """A picture, and the prompt that it was made from, if it is known."""

    path: Path
    prompt: str | None = None


def known_prompt(picture: Path, problems: list[Problem]) -> str | None:
    """The text of NAME.txt beside NAME.png, else what the picture says of itself, else None."""
    file = picture.with_suffix(".txt")
    if not file.is_file():
        return prompt_inside(picture)
    try:
        return file.read_text(encoding="utf-8-sig").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(f"the prompt '{file}' cannot be read as UTF-8 text ({error}); save it as UTF-8"))
        return None


def prompt_inside(picture: Path) -> str | None:
    """The prompt that the trainer here writes into its samples as `prompt`, and A1111 at the start of `parameters`.

    ComfyUI's `prompt` is a graph in JSON, which names no prompt: None.
    """
    try:
        with open_image(picture) as file:
            texts = {name: str(file.info[name]) for name in ("prompt", "parameters") if name in file.info}
    except Exception:  # decoders fed with damaged bytes raise whatever they like; measuring it tells what is wrong
        return None
    if "prompt" in texts:
        return None if texts["prompt"].lstrip().startswith("{") else texts["prompt"].strip() or None
    prompt, _, _ = texts.get("parameters", "").partition("\nNegative prompt:")
    return prompt.partition("\nSteps: ")[0].strip() or None


def prompts_of_manifest(
    pictures: Sequence[Path], manifest: Path, problems: list[Problem], notes: list[str]
) -> Iterator[PromptedPicture]:
    """The pictures that a line of the manifest names, each with its prompt; the others are left out."""
    try:
        lines = list(read_manifest(manifest))
    except ConfigError as error:
        problems.append(Problem(str(error)))
        return
    by_name = {path.name: path for path in pictures}
    named: Counter[Path] = Counter()
    prompts: dict[Path, str] = {}
    for number, pattern, prompt in lines:
        if pattern in by_name:  # a name may hold what a pattern would read as a class of letters
            found = [by_name[pattern]]
        else:
            found = [path for path in pictures if fnmatchcase(path.name, pattern)]
        if not found and pictures:
            end = f"; the folder has {pictures[0].name}" + (" and others" if len(pictures) > 1 else "")
            guess = did_you_mean(pattern, [path.name for path in pictures], end=end)
            problems.append(Problem(f"{manifest.name} line {number}: no picture is called {pattern}{guess}"))
        named.update(found)
        prompts |= dict.fromkeys(found, prompt)
    for path, times in named.items():
        if times > 1:
            problems.append(Problem(f"{manifest.name}: {times} lines name the picture {path.name}; one prompt each"))
    if left := len(pictures) - len(named):
        notes.append(f"{left} of {len(pictures)} generated pictures are in no line of {manifest.name}, and left out")
    yield from (PromptedPicture(path, prompts[path]) for path in pictures if path in prompts)


def read_manifest(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line number, file name (or pattern with * and ?) and prompt of each line. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"`--prompts`: {missing(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"`--prompts`: {path} cannot be read as UTF-8 text ({error})") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except json.JSONDecodeError as error:
            raise ConfigError(f"{path.name} line {number} is not JSON ({error.msg}); {LINE}") from None
        except Unreadable as error:
            raise ConfigError(f"{path.name} line {number} {error}") from None
        if not (isinstance(row, Mapping) and all(isinstance(row.get(key), str) for key in ("file", "prompt"))):
            raise ConfigError(f"{path.name} line {number} must have the texts `file` and `prompt`; {LINE}")
        yield number, row["file"], row["prompt"]


LINE = 'a line reads {"file": "a.png", "prompt": "a red boat"}'
