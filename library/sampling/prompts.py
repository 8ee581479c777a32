"""Sample prompts: what to draw during training, in sd-scripts' three file formats or as a list of lines.

- `.txt`: one prompt a line; `#` begins a comment line; options follow the text, as in `a cat --n dog --w 512 --d 7`.
- `.toml`: `[prompt]` with what all share, and one `[[prompt.subset]]` for each prompt, which may override it.
- `.json`: a list of lines as above, or of objects with the keys of the TOML form.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from library.bounded_text import Unreadable, parse_json, parse_toml, read_bytes, shortened
from library.config.option import Settings
from library.config.options.sampling import SAMPLERS
from library.errors import Problem, UserError, raise_all

MAX_STEPS = 998
"""With 999 or 1000 steps some of diffusers' samplers leave the model's 1000 timesteps, or divide by nothing."""
_SIZE_STEP = 8
_MIN_SIZE = 64
_MAX_SIZE = 8192


@dataclass
class SamplePrompt:
    """One picture to draw.

    `width` and `height` are None for the model's own size, `seed` is None for one that whoever draws chooses (with
    `any_seed` another one each time), `sampler` is None for the command's. `warnings` are sentences about options that
    had no effect.
    """

    prompt: str
    negative_prompt: str = ""
    width: int | None = None
    height: int | None = None
    seed: int | None = None
    scale: float = 7.5
    sample_steps: int = 30
    sample_sampler: str | None = None
    guidance_scale: float | None = None
    controlnet_image: str | None = None
    any_seed: bool = False
    warnings: list[str] = field(default_factory=list)

    def size(self, native_size: int) -> tuple[int, int]:
        """(width, height) in pixels: rounded down to multiples of 8, at least 64."""
        return _usable(self.width or native_size), _usable(self.height or native_size)


# Letter or word after `--` -> (key, type). `scale` is the strength of classifier-free guidance.
_OPTIONS: dict[str, tuple[str, type]] = {
    "n": ("negative_prompt", str),
    "w": ("width", int),
    "h": ("height", int),
    "d": ("seed", int),
    "l": ("scale", float),
    "s": ("sample_steps", int),
    "ss": ("sample_sampler", str),
    "g": ("guidance_scale", float),
    "cn": ("controlnet_image", str),
}
_LONG_DASH = re.compile(
    r"(?<!\S)-?[\u2010-\u2015\u2212\ufe58\ufe63\uff0d][-\u2010-\u2015\u2212]?"
    rf"(?=(?:{'|'.join(sorted(_OPTIONS, key=len, reverse=True))})\s)",
    re.IGNORECASE,
)
_KEYS: dict[str, type] = {"prompt": str, **dict(_OPTIONS.values())}
_NO_EFFECT = {
    "guidance_scale": "it belongs to other architectures; the strength of guidance is `--l` (`scale`)",
    "controlnet_image": "ControlNet is not supported in samples",
}


def read_prompts(source: Path | str | list[str], default_size: int | None = None) -> list[SamplePrompt]:
    """Read a prompt file, or the lines of one; every problem in it is reported at once, with its line where the format
    has lines.

    `default_size` fills in sizes that the file leaves open; without it they stay None, the model's own.
    """
    problems: list[Problem] = []
    if isinstance(source, list):
        prompts = list(_from_lines("\n".join(source), Path("sample_prompts"), problems))
    else:
        prompts = _from_file(Path(source), problems)
    raise_all(problems)
    if not prompts:
        raise UserError(f"The sample prompts {source!r} hold no prompt.")
    for prompt in prompts:
        prompt.width = prompt.width or default_size
        prompt.height = prompt.height or default_size
    return prompts


def prompt_problems(settings: Settings) -> list[Problem]:
    """What is wrong with the sample prompts of a run, for `parse(checks=...)`; with `explain` also what is left out."""
    source = settings["sample_prompts"]
    if not source or (isinstance(source, Path) and not source.is_file()):
        return []
    try:
        prompts = read_prompts(source)
    except UserError as error:
        return [Problem(str(error), understood=True)]
    if settings["explain"]:
        settings.warnings.extend(line for prompt in prompts for line in prompt.warnings)
    return []


def _from_file(path: Path, problems: list[Problem]) -> list[SamplePrompt]:
    suffix = path.suffix.lower()
    if suffix not in (".txt", ".toml", ".json"):
        raise UserError(f"The sample prompts '{path}' end in '{suffix}': write them as .txt, .toml or .json.")
    try:
        text = read_bytes(path).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except Unreadable as error:
        raise UserError(f"The sample prompts: '{path}' {error}.") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"The sample prompts '{path}' are not UTF-8 text ({error.reason}). Save them as UTF-8."
        ) from error
    except OSError as error:
        raise UserError(f"The sample prompts '{path}' cannot be read: {error.strerror}.") from error
    reader = {".txt": _from_lines, ".toml": _from_toml, ".json": _from_json}[suffix]
    try:
        return list(reader(text, path, problems))
    except Unreadable as error:
        raise UserError(f"The sample prompts: '{path}' {error}.") from error


def parse_line(line: str, where: str, problems: list[Problem]) -> SamplePrompt:
    """One line of the text format. Options begin with two dashes after a space; the first text is always the prompt.

    A longer dash, which editors make of two, is one of theirs where the letter of an option follows it.
    """
    values: dict[str, Any] = {}
    warnings: list[str] = []
    if found := _LONG_DASH.findall(line):
        warnings.append(f"{where}: `{found[0]}` is read as `--`: it is one dash that an editor made of two.")
        line = _LONG_DASH.sub("--", line)
    first, *pieces = re.split(r"(?:^|\s+)--(?=\s|[A-Za-z])", line.strip())
    for piece in pieces:
        name, _, value = piece.strip().partition(" ")
        option = _OPTIONS.get(name.lower())
        if option is None:
            known = ", ".join(f"--{letter}" for letter in _OPTIONS)
            warnings.append(
                f"{where}: `--{shortened(piece.strip())}` is not an option of a prompt and is left out ({known} are)."
            )
            continue
        key, kind = option
        parsed = _parsed(value.strip(), key, kind, f"--{name}", where, problems)
        if parsed is not None:
            values[key] = parsed
    return _made({"prompt": first.strip(), **values}, where, problems, warnings)


def _from_lines(text: str, path: Path, problems: list[Problem]) -> Iterator[SamplePrompt]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip() and not line.strip().startswith("#"):
            yield parse_line(line, f"{path} line {number}", problems)


def _from_toml(text: str, path: Path, problems: list[Problem]) -> Iterator[SamplePrompt]:
    try:
        shared = parse_toml(text).get("prompt")
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"The sample prompts '{path}' are not valid TOML: {error}.") from error
    if isinstance(shared, dict) and "prompt" in shared:
        shared.setdefault("subset", [{}])  # a single prompt needs no subset
    if not isinstance(shared, dict) or not isinstance(shared.get("subset"), list):
        raise UserError(
            f"The sample prompts '{path}' need one `[[prompt.subset]]` for each prompt, with `prompt = \"...\"` in it."
        )
    subsets = shared.pop("subset")
    for number, subset in enumerate(subsets, start=1):
        yield _from_table(shared | subset, f"{path} [[prompt.subset]] {number}", problems)


def _from_json(text: str, path: Path, problems: list[Problem]) -> Iterator[SamplePrompt]:
    try:
        entries = parse_json(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path} line {error.lineno}: the sample prompts are not valid JSON: {error.msg}.") from error
    if not isinstance(entries, list):
        raise UserError(f"The sample prompts '{path}' must be a list of texts or of objects.")
    for number, entry in enumerate(entries, start=1):
        where = f"{path} entry {number}"
        if isinstance(entry, str):
            yield parse_line(entry, where, problems)
        elif isinstance(entry, dict):
            yield _from_table(entry, where, problems)
        else:
            problems.append(Problem(f"{shortened(repr(entry))} is neither a text nor an object.", where))


def _from_table(table: Mapping[str, Any], where: str, problems: list[Problem]) -> SamplePrompt:
    warnings = [f"{where}: `{key}` is not a key of a prompt and is left out." for key in table if key not in _KEYS]
    values: dict[str, Any] = {}
    for key, kind in _KEYS.items():
        if key not in table:
            continue
        value = table[key]
        fits = isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)
        try:
            if fits:
                values[key] = kind(value)
        except OverflowError:  # a whole number beyond every float
            fits = False
        if not fits:
            problems.append(Problem(f"`{key}` = {shortened(repr(value))} should be {_a(kind)}.", where))
    if "prompt" not in table:
        problems.append(Problem("there is no `prompt`.", where))
    return _made(values, where, problems, warnings)


def _parsed(text: str, key: str, kind: type, shown: str, where: str, problems: list[Problem]) -> Any:
    """An option's value, or None after noting the problem; an empty negative prompt is one."""
    if kind is str:
        if text or key == "negative_prompt":
            return text
    else:
        try:
            return kind(text)
        except ValueError:
            pass
    problems.append(Problem(f"`{shown} {shortened(text)}`: `{key}` should be {_a(kind)}.", where))
    return None


def _made(values: dict[str, Any], where: str, problems: list[Problem], warnings: list[str]) -> SamplePrompt:
    """The prompt, with its ranges checked."""
    given: dict[str, Any] = {"prompt": "", **values}
    prompt = SamplePrompt(**given, warnings=warnings)
    warnings += [f"{where}: `{key}` has no effect: {why}." for key, why in _NO_EFFECT.items() if key in values]
    for key in ("width", "height"):
        side = values.get(key)
        if side is not None and side < _MIN_SIZE:
            problems.append(Problem(f"`{key}` {side} is too small: it should be at least {_MIN_SIZE}.", where))
        if side is not None and side > _MAX_SIZE:
            problems.append(
                Problem(f"`{key}` {shortened(str(side))} is too large: it should be at most {_MAX_SIZE}.", where)
            )
    if prompt.seed is not None and prompt.seed >= 2**63:
        problems.append(Problem(f"`seed` {shortened(str(prompt.seed))} is too large: it should be below 2^63.", where))
    if not 1 <= prompt.sample_steps <= MAX_STEPS:
        prompt.sample_steps = min(max(prompt.sample_steps, 1), MAX_STEPS)
        warnings.append(f"{where}: `sample_steps` lies outside 1 to {MAX_STEPS}; {prompt.sample_steps} is used.")
    sampler = prompt.sample_sampler
    if sampler is not None and sampler not in SAMPLERS:
        known = ", ".join(SAMPLERS)
        problems.append(Problem(f"`sample_sampler` '{sampler}' is not a sampler; known are {known}.", where))
    if prompt.seed is not None and prompt.seed < 0:
        prompt.seed, prompt.any_seed = None, True
        warnings.append(f"{where}: a negative seed means another one each time.")
    return prompt


def _usable(side: int) -> int:
    return max(_MIN_SIZE, side // _SIZE_STEP * _SIZE_STEP)


def _a(kind: type) -> str:
    return {int: "a whole number", float: "a number", str: "a text"}[kind]
