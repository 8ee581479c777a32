"""How a written value becomes a value of its option's type.

The command line gives texts; TOML gives texts, numbers, booleans and lists. Both are read by the same rules, so that
`learning_rate = "1e-4"`, `resolution = 512` and `--resolution 512` all mean what they say. A reader raises ValueError
with the rest of a sentence that begins with the option's name and place.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from library.bounded_text import shortened
from library.config.option import Option

TRUE = ("true", "yes", "on", "1")
FALSE = ("false", "no", "off", "0")


@dataclass(frozen=True)
class Noted:
    """A value that was read with a thought; `note` says which, and completes a sentence as the errors do."""

    value: Any
    note: str


def read_value(option: Option, raw: Any) -> Any:
    """The value that `raw` means for this option, or `Noted`. Raises ValueError."""
    if is_unset(option, raw):
        return option.default
    if option.nargs == "*":
        if option.type is key_value and isinstance(raw, str):
            return one_text_of_arguments(raw)
        items = raw if isinstance(raw, list) else [raw]
        values = [in_range(option, read_one(option, item)) for item in items if item != ""]
        return values or option.default
    if isinstance(raw, list) and option.type in (str, int, float, bool, Path):
        raise ValueError(f"must be one value, not a list ({raw!r})")
    value = read_one(option, raw)
    if isinstance(value, Noted):
        return Noted(in_range(option, value.value), value.note)
    return in_range(option, value)


def is_path(option: Option) -> bool:
    """Whether an option names a file or folder of this machine."""
    return option.type in (path_or_name, Path)


def is_unset(option: Option, raw: Any) -> bool:
    """Configs made by graphical programs write "", [] or false for "nothing here"."""
    if raw is None or raw == "" or raw == []:
        return True
    return raw is False and option.default is None and not option.is_flag


def read_one(option: Option, raw: Any) -> Any:
    reader = {str: text, int: whole_number, float: number, bool: flag, Path: path}.get(option.type, option.type)
    value = reader(raw)
    if option.choices is None or value in option.choices:
        return value
    word = str(value).casefold()
    for choice in option.choices:
        if str(choice).casefold() == word:
            return choice
    if (meant := dict(option.other_words).get(word)) is not None:
        return Noted(meant, f"is {value!r}, which is read as {meant!r}")
    raise ValueError(f"is {value!r}, but must be one of {', '.join(map(str, option.choices))}")


def one_text_of_arguments(raw: str) -> Noted:
    """Arguments that somebody wrote into one text; sd-scripts would take each letter for an argument."""
    items = raw.split()
    if not all(re.fullmatch(r"[A-Za-z_]\w*=[^=:]*", item) for item in items):
        raise ValueError(f'must be a list of texts, one for each argument: ["name=value", "name=value"], not {raw!r}')
    return Noted(items, f"is one text, which is read as the list {items!r}")


def in_range(option: Option, value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if option.minimum is not None and value < option.minimum:
            raise ValueError(f"is {value:g}, but must be at least {option.minimum:g}")
        if option.maximum is not None and value > option.maximum:
            raise ValueError(f"is {value:g}, but must be at most {option.maximum:g}")
    return value


def text(raw: Any) -> str:
    if isinstance(raw, (bool, list, dict)):
        raise ValueError(f"must be a text, not {toml_word(raw)}")
    return str(raw)


def whole_number(raw: Any) -> int:
    value = _as_number(raw)
    if value is None or not value.is_integer():
        raise ValueError(f"must be a whole number, not {toml_word(raw)}")
    try:
        return int(raw) if not isinstance(raw, float) else int(value)  # "12345678901234567890" exactly
    except ValueError:
        return int(value)  # "1e3", "512.0"


def number(raw: Any) -> float:
    value = _as_number(raw)
    if value is None:
        raise ValueError(f"must be a number, not {toml_word(raw)}")
    return value


def flag(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    word = str(raw).strip().casefold()
    if word in TRUE:
        return True
    if word in FALSE:
        return False
    raise ValueError(f"must be true or false, not {toml_word(raw)}")


def path(raw: Any) -> Path:
    return Path(path_or_name(raw))


def path_or_name(raw: Any) -> str:
    """A path, or a word that stands for one (`latest`); kept as text.

    TOML reads "C:\\new\\table" as C:, a line break, ew, a tab and able: no path has such characters.
    """
    value = text(raw)
    if any(ord(character) < 32 for character in value):
        raise ValueError(f"is {value!r}: TOML took its backslashes for something else; {BACKSLASH_ADVICE}")
    return os.path.expanduser(value)


def prompts_or_file(raw: Any) -> Path | list[str]:
    """A file of prompts, or the prompts themselves, one a line: what graphical programs have in their presets."""
    if isinstance(raw, list) and all(isinstance(line, str) for line in raw):
        return [line for line in raw if line.strip()]
    value = text(raw)
    one_word = " " not in value.strip() and "\n" not in value
    if one_word or value.strip().casefold().endswith((".txt", ".toml", ".json")) or os.path.exists(value):
        return path(value)
    return [line for line in value.splitlines() if line.strip()]


def file_name(raw: Any) -> str | Noted:
    """A name for files, without folder; an ending that the saving adds itself is left out."""
    value = text(raw)
    if any(character in value for character in '/\\:*?"<>|') or any(ord(character) < 32 for character in value):
        raise ValueError(f"is {value!r}, but must be a plain name for files; folders belong into `output_dir`")
    for ending in (".safetensors", ".ckpt", ".pt"):
        if value.endswith(ending) and value != ending:
            name = value.removesuffix(ending)
            return Noted(name, f"is read as {name!r}: the ending is added when a file is saved")
    return value


BACKSLASH_ADVICE = "write Windows paths in single quotes ('C:\\models\\sd.safetensors') or with forward slashes"


def resolution(raw: Any) -> tuple[int, int]:
    """Width and height in pixels: 512, "512", "512,768", "512x768" or [512, 768]."""
    parts = raw if isinstance(raw, list) else re.split(r"[,x]", str(raw))
    try:
        sides = [whole_number(part) for part in parts]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2) or isinstance(raw, bool) or any(side < 1 for side in sides):
        raise ValueError(f'must be a width and a height in pixels, as 512 or "512,768", not {toml_word(raw)}')
    return (sides[0], sides[-1])


def bucket_step(raw: Any) -> int | Noted:
    """By how many pixels buckets differ. Old presets have 1; the VAE works on blocks of 8."""
    value = whole_number(raw)
    return Noted(8, f"is {value}, which is read as 8: the VAE works on blocks of 8 pixels") if 0 < value < 8 else value


def two_numbers(raw: Any) -> tuple[float, float]:
    """A range: "1.0,2.5" or [1.0, 2.5]."""
    parts = raw if isinstance(raw, list) else str(raw).split(",")
    values = [_as_number(part) for part in parts]
    if len(values) != 2 or values[0] is None or values[1] is None:
        raise ValueError(f'must be two numbers, as "1.0,2.5", not {toml_word(raw)}')
    return (values[0], values[1])


def names(raw: Any) -> list[str]:
    """A list of words: "clip_t,dino" or ["clip_t", "dino"]."""
    parts = raw if isinstance(raw, list) else text(raw).split(",")
    return [word for word in (text(part).strip() for part in parts) if word]


def key_value(raw: Any) -> str:
    """One argument of a plugin, "name=value". Split it with `split_key_values`."""
    value = text(raw)
    if "=" not in value or value.startswith("="):
        raise ValueError(f"has {value!r}, but each argument must read name=value")
    if re.search(r"\s[A-Za-z_]\w*=", value):
        raise ValueError(f"has several arguments in one text, {value!r}; write each as a text of its own")
    return value


def split_key_values(pairs: Sequence[str] | None) -> dict[str, str]:
    """["conv_dim=4", "conv_alpha=1"] -> {"conv_dim": "4", "conv_alpha": "1"}; a later one wins."""
    split = (pair.partition("=") for pair in pairs or [])
    return {key.strip(): value.strip() for key, _, value in split}


def plugin_arguments(pairs: Sequence[str] | None) -> dict[str, str]:
    """The arguments of a plugin by name; `null` and `None`, which graphical programs write, are as not given."""
    return {name: value for name, value in split_key_values(pairs).items() if value not in ("null", "None")}


def steps_or_ratio(raw: Any) -> int | float | Noted:
    """A number of steps (int), or a share of the run (float below 1): 100, 0.1, "10%".

    sd-scripts takes any TOML float for a share, so that 100.0 would warm up for a hundred times the run; here a float
    of 1 or more is a number of steps, with a note.
    """
    if isinstance(raw, str) and raw.strip().endswith("%"):
        share = _as_number(raw.strip()[:-1])
        if share is None or not 0 <= share <= 100:
            raise ValueError(f"must be between 0% and 100%, not {raw!r}")
        return share / 100
    value = _as_number(raw)
    if value is None or value < 0 or (value >= 1 and not value.is_integer()):
        raise ValueError(f'must be a number of steps, a share of the run below 1, or "10%", not {toml_word(raw)}')
    if 0 < value < 1:
        return value
    if isinstance(raw, float) and value:
        return Noted(int(value), f"is {raw}, which is read as {int(value)} steps, not as a share of the run")
    return int(value)


def token_count(raw: Any) -> int | Noted | None:
    """Tokens of a caption, in chunks of 75; one chunk is what models have by themselves, so 75 is None."""
    value = whole_number(raw)
    if value < 75:
        raise ValueError(f"is {value}, but must be 75, 150 or 225")
    chunks = value // 75
    used = 75 * chunks if chunks > 1 else None
    return (
        used
        if value % 75 == 0
        else Noted(used, f"is {value}, which is read as {75 * chunks}: tokens come in chunks of 75")
    )


def period(raw: Any) -> int | None:
    """Every so many steps or epochs; 0 is never."""
    return whole_number(raw) or None


def count_or_none(raw: Any) -> int | None:
    """A number of things where leaving it out means something else: graphical programs write 0 for that."""
    return whole_number(raw) or None


def one_or_more(raw: Any) -> int | Noted:
    """A number of things of which there is always one; old presets have 0."""
    return whole_number(raw) or Noted(1, "is 0, which is read as 1")


def toml_word(raw: Any) -> str:
    """A value as it would be written in TOML, for messages."""
    if isinstance(raw, bool):
        return "true" if raw else "false"
    if isinstance(raw, dict):
        return "a table"
    try:
        word = repr(raw)
    except (ValueError, RecursionError):  # a number of thousands of digits, lists without end
        return "what is too long to show"
    return shortened(word)


def written_form(value: Any) -> Any:
    """A value in a form that TOML can hold and that is read back as the same value."""
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    if isinstance(value, list):
        return [written_form(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _as_number(raw: Any) -> float | None:
    """A finite number, from a number or a text; booleans are none."""
    if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
        return None
    try:
        value = float(raw)
    except (ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None
