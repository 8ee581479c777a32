"""Prompts: token ids and weights in their chunks, and what lines and files of sample prompts mean."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from library.errors import Problem, UserError
from library.models.text import chunked
from library.models.weighted_prompts import token_weights, weighted_ids
from library.sampling.prompts import SamplePrompt, parse_line, read_prompts
from tests.golden_table.comparison import Comparison

BLANKS = "blanks around a weight, `(red: 1.5 )`, do not make text of it"
PADS = {"sd1": 49407, "sd2": 0, "sdxl_te1": 49407, "sdxl_te2": 0}


class Words:
    """A stand-in for CLIP's tokenizer on words that are one token each, numbered in the order in which they come."""

    bos_token_id, eos_token_id = 49406, 49407

    def __init__(self, layout: str) -> None:
        self.pad_token_id = PADS[layout]
        self.known: dict[str, int] = {}

    def __call__(self, text: str, **options: Any) -> SimpleNamespace:
        words = re.findall(r"[a-z]+|\d|[^\sa-z\d]", text)
        return SimpleNamespace(input_ids=[self.known.setdefault(word, 100_000 + len(self.known)) for word in words])


def same_pattern(ours: list[int], theirs: list[int]) -> list[int]:
    """Our ids in their numbering, if one word always has one id; else our own numbers."""
    pairs = set(zip(ours, theirs, strict=False))
    one_to_one = len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    return list(theirs) if one_to_one and len(ours) == len(theirs) else ours


def written_out(chunk: list[Any]) -> list[int]:
    """The file's notation: a last element [id, n] stands for n more copies."""
    return [*chunk[:-1], *[chunk[-1][0]] * chunk[-1][1]] if isinstance(chunk[-1], list) else chunk


def weighted_prompts(data: dict[str, Any]) -> Iterator[Comparison]:
    words: Any = Words("sd1")
    short = Comparison("weights of a prompt's tokens", relative=1e-6)
    for row in data["rows"]:
        ids, weights = weighted_ids(row["prompt"], words)
        ours = [same_pattern(ids, row["ids"]), weights]
        short.add(row["prompt"], ours, [row["ids"], row["weights"]], BLANKS if ": " in row["prompt"] else None)
    yield short

    long = Comparison("weights in the chunks of prompts that are too long", relative=1e-6)
    for row in data["long"]:
        layout, length = row["tokenizer"].split("/")[0], int(row["tokenizer"].split("/")[1])
        words = Words(layout)
        ids, weights = weighted_ids(row["prompt"], words)
        chunks = chunked(ids, length, words)
        theirs = [token for chunk in row["ids"] for token in written_out(chunk)]
        flat = token_weights([weights], length)[0, :, 0].tolist()
        middles = [flat[1:-1][first : first + 75] for first in range(0, length, 75)]
        kept = [[1.0, *middle, 1.0] for middle in middles]
        pattern = same_pattern([token for chunk in chunks for token in chunk], theirs)
        long.add(row["prompt"], [pattern, kept], [theirs, row["weights"]])
    yield long


def caption_tokens(data: dict[str, Any]) -> Iterator[Comparison]:
    for layout, pad in PADS.items():
        c = Comparison(f"chunks of token ids, {layout}, 75 to 225 tokens")
        marks: Any = SimpleNamespace(bos_token_id=49406, eos_token_id=49407, pad_token_id=pad)
        for row in data["rows"]:
            ids = caption_ids([written_out(chunk) for chunk in row["ids"][f"{layout}/225"]["chunks"]], marks)
            for length in (75, 150, 225):
                theirs = [written_out(chunk) for chunk in row["ids"][f"{layout}/{length}"]["chunks"]]
                c.add(f"{row['caption']} {length}", chunked(ids, length, marks), theirs)
        yield c


def caption_ids(chunks: list[list[int]], marks: Any) -> list[int]:
    """A caption's own ids out of its chunks, without start, end and padding."""
    ids: list[int] = []
    for _, *inner in chunks:
        while inner and inner[-1] == marks.pad_token_id:
            inner.pop()
        if marks.pad_token_id != marks.eos_token_id and inner and inner[-1] == marks.eos_token_id:
            inner.pop()
        ids += inner
    return ids


AT_THE_START = "option letters at the very start of a prompt are text"
ANY_BLANKS = "more spaces than one before a value or an option change nothing"
REFUSED = "a value of the wrong kind, or an unknown sampler, is refused at the start with its line"
STEPS = "998 steps at most: with 999 or 1000 some samplers fail"
OTHER_LINES = {
    "a cat --s 2000": STEPS,
    "d 943583 a cat": AT_THE_START,
    "w 640 a cat": AT_THE_START,
    "n blue house": AT_THE_START,
    "a cat --w 640  --h   448 ": ANY_BLANKS,
    "a cat --w abc": REFUSED,
    "a cat --d 1.5": REFUSED,
    "a cat --l 7,5": REFUSED,
    "a cat --ss  ddim extra": REFUSED,
}
OTHER_FILES = {
    0: "an indented # begins a comment too",
    1: "a file without a prompt is refused at the start",
    3: "a prompt of its own may override what all share",
    7: "a single prompt needs no subset",
}


def sample_prompts(data: dict[str, Any]) -> Iterator[Comparison]:
    lines = Comparison("prompt lines")
    for row in data["lines"]:
        problems: list[Problem] = []
        prompt = parse_line(row["line"], "p.txt line 1", problems)
        ours = "refused" if problems else given(prompt)
        lines.add(row["line"], ours, meant(row["out"]), OTHER_LINES.get(row["line"]))
    yield lines

    files = Comparison("prompt files")
    for number, row in enumerate(data["files"]):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, row["file"])
            path.write_text(row["content"], encoding="utf-8")
            try:
                ours: Any = [given(prompt) for prompt in read_prompts(path)]
            except UserError:
                ours = "refused"
        theirs = [meant(entry) for entry in row["out"]] if "out" in row else "refused"
        files.add(row["file"], ours, theirs, OTHER_FILES.get(number))
    yield files


NO_OPTIONS = asdict(SamplePrompt(""))


def given(prompt: SamplePrompt) -> dict[str, Any]:
    """What a prompt says beyond the defaults."""
    values = asdict(prompt)
    del values["warnings"], values["any_seed"]  # that another seed is drawn each time is what no seed means there
    return {key: value for key, value in values.items() if value != NO_OPTIONS[key] or key == "prompt"}


def meant(recorded: dict[str, Any]) -> dict[str, Any]:
    """What a recorded prompt says beyond the defaults."""
    return {k: v for k, v in recorded.items() if (k != "enum" and v != NO_OPTIONS[k]) or k == "prompt"}
