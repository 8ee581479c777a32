"""Restoring a folder: which weights, which text, picture after picture, whatever some of them are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from library.config.option import Settings
from library.config.spec import declared
from library.errors import UserError
from library.files import read_metadata
from library.image_files import BadImage, load
from library.metrics.networks.face_detector import DetectedFace, FaceDetector
from library.training.runtime.mixed_precision import DTYPES
from restoration.damage.ranges import REFERENCE_SIDE
from restoration.image_folders import at_size, maker_of, to_pixels, to_tensor, working_size
from restoration.options import PersonFileSpec, restoration_spec
from restoration.pivots.person import base_mark, give_weights, read_person
from restoration.pivots.pivot import person_file
from restoration.restoring.alignment import align, cut_out, paste_back
from restoration.restoring.colour import has_one_tone
from restoration.restoring.sampling import Sampling, restore
from restoration.restoring.which_face import (
    ChosenFaces,
    KnownPerson,
    NoFaceChosen,
    choose_faces,
    describe_face,
    from_the_left,
)
from restoration.system.cleaner import Cleaner, load_cleaner
from restoration.system.load import load_encoder, load_named_restorer
from restoration.system.system import System

logger = logging.getLogger(__name__)

Say = Callable[[str], None]


@dataclass
class FolderRestorer:
    """All that restoring needs, on its device. `text` is what G reads in the conditional branch."""

    system: System
    text: Tensor
    cleaner: Cleaner
    sampling: Sampling
    side: int
    blur: float = 0.0
    """Sigma of a blur before restoring, in pixels of a picture of `side`: who was there is to be forgotten (swap)."""

    def restore(self, pictures: list[np.ndarray], names: list[str]) -> list[np.ndarray]:
        """uint8 pictures of one working size to restored ones of their own sizes."""
        working = [at_size(p, working_size((p.shape[1], p.shape[0]), self.side)) for p in pictures]
        if self.blur:
            working = [cv2.GaussianBlur(p, (0, 0), self.blur) for p in working]
        batch = torch.stack([to_tensor(p) for p in working]).to(self.system.unet.device)
        restored = restore(self.system, batch, self.text, names, self.sampling, self.cleaner)
        if not restored.isfinite().all():
            raise RuntimeError("the restored picture is not finite: the weights of G or E are damaged")
        own = [(p.shape[1], p.shape[0]) for p in pictures]
        return [at_size(to_pixels(r), size) for r, size in zip(restored, own, strict=True)]


@restoration_spec
class RestoringSpec:
    """The options on what restores pictures; field names are the options'."""

    device: str | None = declared
    mixed_precision: str = declared
    resolution: int | None = declared
    cleaner: str | None = declared
    blind: bool = declared
    mode: str = declared
    swap_blur: float = declared
    edit: str | None = declared
    prompt: str | None = declared
    encoder_weights: Path | None = declared
    network_module: str | None = declared


def open_studio(settings: Settings) -> FolderRestorer:
    """Load what the options name: the restorer, and unless `blind`, the person's G_p and E_pr."""
    spec = settings.take(RestoringSpec)
    device = torch.device(spec.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    restorer = load_named_restorer(settings)
    system = restorer.system
    sampling = settings.take(Sampling)
    prompt = ""
    if spec.blind:
        sampling = replace(sampling, gamma=1.0)  # eq. 4: the null text throughout
    else:
        prompt, gamma = _personalise(settings, spec, system)
        sampling = sampling if settings.explicit("gamma") else replace(sampling, gamma=gamma)
    text = system.text([prompt])
    for line in restorer.notes:
        logger.info(line)
    for module in (system.unet, system.encoder):
        nn.Module.to(module, device=device, dtype=DTYPES[spec.mixed_precision])
    nn.Module.to(system.model.vae, device=device)  # in float32, as the conditions of the training were made
    side = spec.resolution or system.model.native_size
    blur = spec.swap_blur * side / REFERENCE_SIDE if spec.mode == "swap" else 0.0
    return FolderRestorer(system, text, load_cleaner(spec.cleaner, device, restorer.cleaner), sampling, side, blur)


def _personalise(settings: Settings, spec: RestoringSpec, system: System) -> tuple[str, float]:
    """Put G_p and E_pr into the system; returns the prompt and the gamma that the person was trained for."""
    files = settings.take(PersonFileSpec)
    file = files.g_p
    if not file.is_file():
        raise UserError(
            f"'{file}' does not exist: train it with restoration/train.py, give it as `unet_weights`, or restore "
            "without a person by --blind"
        )
    person = read_person(file)
    prompt = spec.prompt if settings.explicit("prompt") or person is None else person.prompt
    if prompt is None:
        raise UserError(f"'{file}' does not say whose it is; give the `prompt` that it was trained with")
    if person is not None and person.base and person.base != base_mark(system.unet):
        logger.info(f"'{file.name}' was trained on another model than '{system.model.source}': results will be poor")
    encoder = spec.encoder_weights or file.with_name(f"{files.stem('model')}.safetensors")
    if encoder.is_file():
        base = read_metadata(encoder).get("pivot_base")
        if base and base != base_mark(system.unet):
            logger.info(
                f"'{encoder.name}' was trained on another model than '{system.model.source}': results will be poor"
            )
        system.encoder = load_encoder(encoder, system.model)
    elif spec.encoder_weights:
        raise UserError(f"`encoder_weights = {encoder}` does not exist; leave it out to use the restorer's own")
    else:
        logger.info(f"there is no '{encoder.name}' of step 2: the restorer's own ControlNet is used")
    give_weights(system.model, file, spec.network_module)
    if spec.mode == "edit":
        if not spec.edit:
            raise UserError('`mode = edit` needs `edit`: words for the prompt, such as "smiling"')
        prompt = f"{prompt}, {spec.edit}"
    return prompt, person.gamma if person else 0.5


def restorer_of(settings: Settings) -> str:
    """By what pictures are restored, as their files tell it: the person's weights by name, or no one's."""
    return "blind restoring" if settings.take(RestoringSpec).blind else person_file(settings).name


def check_makers(files: Iterable[Path], maker: str) -> None:
    """Refuse to go on in a folder where pictures were restored as somebody else. Raises `UserError`."""
    for file in files:
        other = maker_of(file) if file.is_file() else None
        if other not in (None, maker):
            raise UserError(
                f"'{file}' was made by {other}, and this call restores by {maker}: give another `output`, or leave "
                "out `skip_existing` to replace it"
            )


@dataclass(frozen=True)
class Done:
    """One picture's end: restored pixels, or why there are none."""

    source: Path
    pixels: np.ndarray | None = None
    problem: str | None = None
    notes: tuple[str, ...] = ()


def restore_aligned(studio: FolderRestorer, sources: list[Path], batch_size: int) -> Iterator[Done]:
    """Restore pictures that each show one face; those of one working size together, as many as `batch_size`."""
    waiting: list[tuple[Path, np.ndarray]] = []
    size: tuple[int, int] | None = None
    for source in sources:
        try:
            pixels = load(source)
            mine = working_size((pixels.shape[1], pixels.shape[0]), studio.side)
        except (BadImage, ValueError) as error:
            yield Done(source, problem=str(error))
            continue
        if waiting and (mine != size or len(waiting) == batch_size):
            yield from _restored(studio, waiting)
            waiting = []
        size = mine
        waiting.append((source, pixels))
    if waiting:
        yield from _restored(studio, waiting)


@dataclass(frozen=True)
class FaceFinder:
    """How the person's face is found in a photo; faces smaller than `smallest` pixels are left alone.

    `others` restores the other people's faces without the person; None keeps them as they are.
    """

    detector: FaceDetector
    smallest: int
    which: str = "auto"
    person: KnownPerson | None = None
    others: FolderRestorer | None = None


def restore_photos(studio: FolderRestorer, sources: list[Path], finder: FaceFinder) -> Iterator[Done]:
    """Restore faces of larger photos where they are; a photo without the person's is passed on unchanged."""
    for source in sources:
        try:
            photo = load(source)
        except BadImage as error:
            yield Done(source, problem=str(error))
            continue
        faces = finder.detector.find(photo, finder.smallest)
        if not faces:
            yield Done(source, photo, f"no face of at least {finder.smallest} pixels was found")
            continue
        try:
            chosen = choose_faces(photo, faces, finder.which, finder.person)
        except NoFaceChosen as reason:
            yield Done(source, photo, str(reason))
            continue
        try:
            result = photo
            for index, face in enumerate(faces):
                by = studio if index in chosen.mine else finder.others
                if by is not None:
                    alignment = align(face.landmarks, by.side)
                    restored = by.restore([cut_out(photo, alignment)], [f"{source.name}#{index}"])[0]
                    result = paste_back(result, restored, alignment)
            notes = _say_who(faces, chosen, finder.others is not None)
            yield Done(source, result, notes=(*notes, *say_tone(photo, studio.sampling.color_fix)))
        except (ValueError, RuntimeError) as error:
            yield Done(source, problem=str(error))


def _say_who(faces: Sequence[DetectedFace], chosen: ChosenFaces, others_restored: bool) -> tuple[str, ...]:
    """Which of several faces were restored as the person, and what became of the others."""
    mine = [describe_face(faces, index) for index in chosen.mine]
    rest = [describe_face(faces, index) for index in from_the_left(faces) if index not in chosen.mine]
    lines = []
    if chosen.by:
        lines.append(f"{', '.join(mine)} is restored as the person, by {chosen.by}")
    if rest:
        lines.append(f"{'restored blind' if others_restored else 'left as they are'}: {', '.join(rest)}")
    return tuple(lines)


def _restored(studio: FolderRestorer, waiting: list[tuple[Path, np.ndarray]]) -> Iterator[Done]:
    try:
        restored = studio.restore([pixels for _, pixels in waiting], [source.name for source, _ in waiting])
    except RuntimeError as error:  # out of memory, most of all
        for source, _ in waiting:
            yield Done(source, problem=str(error).splitlines()[0])
        return
    for (source, degraded), pixels in zip(waiting, restored, strict=True):
        yield Done(source, pixels, notes=say_tone(degraded, studio.sampling.color_fix))


def say_tone(picture: np.ndarray, color_fix: str) -> tuple[str, ...]:
    """What becomes of a picture's one tone, where it has only one."""
    if color_fix == "tone" or not has_one_tone(to_tensor(picture)):
        return ()
    if color_fix == "auto":
        return ("it is black and white or of one other tone, and is kept so; `color_fix = wavelet` lets colours in",)
    return (f"it is black and white or of one other tone; `color_fix = {color_fix}` lets colours in, `tone` does not",)
