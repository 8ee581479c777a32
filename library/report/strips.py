"""The sample pictures of a run as one strip for each prompt: before the training, step by step, and the training
picture that the last one is a copy of, if it is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from library.formatting import every_nth
from library.image_files import open_image
from library.report.nearest import LIKENESS_OF_A_COPY, MOST_COMPARED, nearest
from library.report.pictures import data_uri
from library.report.run_files import RunFiles

BUDGET = 4_500_000
"""Bytes of a page that sample pictures may take together."""
LARGE, SMALL = 512, 256
"""Pixels of their longer side: large where all of them are no more than half of the budget."""
SAMPLES = "sample"
NEAREST = "-nearest"


@dataclass(frozen=True)
class Frame:
    """One picture of a strip; `previous` and `following` are the ids of its neighbours."""

    id: str
    label: str
    alt: str
    uri: str
    note: str = ""
    previous: str | None = None
    following: str | None = None


@dataclass(frozen=True)
class Strip:
    """One prompt; `shape` is width over height of its last sample, within bounds that a strip can show."""

    prompt: str
    note: str
    frames: list[Frame]
    shape: float = 1.0
    likeness: float | None = None
    """Of the last sample and the training picture most like it; that picture is shown only where this is a copy's."""


@dataclass(frozen=True)
class Strips:
    """All prompts; `left_out` says which steps are not shown, if any are not."""

    strips: list[Strip]
    left_out: str = ""

    @property
    def longest(self) -> int:
        """Pictures of the longest strip."""
        return max((len(strip.frames) for strip in self.strips), default=0)

    @property
    def has_copies(self) -> bool:
        """Whether a sample is a copy of a training picture."""
        return any(frame.id.endswith(NEAREST) for strip in self.strips for frame in strip.frames)


@dataclass(frozen=True)
class _Taken:
    """Sample files of one step, in the prompts' order."""

    step: int
    files: list[Path]


def sample_strips(run: RunFiles, best_step: int | None, *, with_training_pictures: bool = True) -> Strips:
    """The strips of all prompts whose pictures are still there."""
    taken = _samples(run)
    if not taken:
        return Strips([])
    side, keep = _what_fits(taken)
    steps = chosen([moment.step for moment in taken], keep, best_step)
    shown = [moment for moment in taken if moment.step in steps]
    count = max(len(moment.files) for moment in shown)
    strips = [_strip(run, shown, index, side, best_step, with_training_pictures) for index in range(count)]
    left = len(taken) - len(shown)
    note = f"{len(shown)} of {len(taken)} moments are shown, more of the early ones; all are in the folder sample."
    return Strips([strip for strip in strips if strip.frames], note if left else "")


def chosen(steps: Sequence[int], keep: int, best: int | None) -> list[int]:
    """At most `keep` (3 or more) of the steps: first, last, the one nearest to the best, the others spaced as powers:
    a run changes fastest at its beginning."""
    if len(steps) <= keep:
        return list(steps)
    kept = {steps[0], steps[-1]}
    if best is not None:
        kept.add(min(steps, key=lambda step: abs(step - best)))
    span = len(steps) - 1
    for density in range(keep, 20 * keep):  # rounding makes early places meet: finer, until enough are apart
        for number in range(1, density):
            if len(kept) >= keep:
                return sorted(kept)
            kept.add(steps[round(span ** (number / density))])
    return sorted(kept)


def _samples(run: RunFiles) -> list[_Taken]:
    """One for each step that has pictures, the newest where a step has several."""
    by_step: dict[int, list[Path]] = {}
    for event in run.all("samples"):
        names = [name for name in event.get("files", ()) if isinstance(name, str)]
        by_step[event["step"]] = [run.folder / SAMPLES / Path(name).name for name in names]
    return [_Taken(step, files) for step, files in sorted(by_step.items()) if files]


def _what_fits(taken: Sequence[_Taken]) -> tuple[int, int]:
    """How large pictures may be, and how many moments there is room for; estimated from the last moment's."""
    for side in (LARGE, SMALL):
        moment = sum(len(data_uri(file, side) or "") for file in taken[-1].files) or 1
        if moment * len(taken) <= BUDGET / 2 or side == SMALL:
            return side, max(3, BUDGET // moment)
    raise AssertionError


def _strip(
    run: RunFiles, shown: Sequence[_Taken], index: int, side: int, best: int | None, with_training_pictures: bool
) -> Strip:
    prompt, seeds = "", set()
    frames: list[Frame] = []
    last: Path | None = None
    for moment in shown:
        path = moment.files[index] if index < len(moment.files) else None
        uri = data_uri(path, side) if path is not None else None
        if path is None or uri is None:
            continue
        texts = texts_of(path)
        prompt, last = texts.get("prompt", prompt), path
        seeds.add(texts.get("seed"))
        label = "before training" if moment.step == 0 else f"step {moment.step:,}"
        note = "lowest validation loss" if moment.step == best else ""
        alt = f"{prompt or f'picture {index + 1}'}, {label}"
        frames.append(Frame(f"p{index}-s{moment.step}", label, alt, uri, note))
    likeness = None
    if last is not None and with_training_pictures:
        likeness, copied = _copied(run, last, index, side)
        frames += copied
    seed = f"seed {next(iter(seeds))}" if len(seeds) == 1 and None not in seeds else ""
    changing = "the seed changes from step to step: add --d to the prompt" if len(seeds) > 1 else ""
    return Strip(prompt or f"Picture {index + 1}", seed or changing, _linked(frames), _shape_of(last), likeness)


def _copied(run: RunFiles, sample: Path, index: int, side: int) -> tuple[float | None, list[Frame]]:
    """How like the sample the nearest training picture is, and that picture where it is a copy's likeness."""
    event = run.last("images") or {}
    files = [Path(name) for name in event.get("pictures", ())]
    some = [files[i] for i in every_nth(len(files), MOST_COMPARED)]
    found = nearest(sample, some)
    if found is None or found.cosine < LIKENESS_OF_A_COPY:
        return (None if found is None else found.cosine), []
    uri = data_uri(some[found.index], side)
    if uri is None:
        return found.cosine, []
    alt = f"nearest training picture: {some[found.index].name}" + (", as its mirror image" if found.mirrored else "")
    note = f"the sample is a copy of it: likeness {found.cosine:.2f}"
    return found.cosine, [Frame(f"p{index}{NEAREST}", "training picture", alt, uri, note)]


def _shape_of(picture: Path | None) -> float:
    if picture is None:
        return 1.0
    with open_image(picture) as image:
        return round(min(2.0, max(0.6, image.width / image.height)), 2)


def _linked(frames: list[Frame]) -> list[Frame]:
    ids = [None, *(frame.id for frame in frames), None]
    return [replace(f, previous=ids[i], following=ids[i + 2]) for i, f in enumerate(frames)]


def texts_of(picture: Path) -> dict[str, str]:
    """What a picture file says of itself; only its header is read."""
    try:
        with open_image(picture) as image:
            return {str(name): text for name, text in image.info.items() if isinstance(text, str)}
    except (OSError, ValueError, SyntaxError):
        return {}
