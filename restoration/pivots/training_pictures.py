"""What a pivot learns from: the person's references, what the prior has of others, or several people."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from library.config.spec import declared
from library.config.values import split_key_values
from library.errors import UserError
from library.models.family import StableDiffusion
from library.training.runtime.environment import Environment
from library.training.runtime.memory import place
from restoration.measuring.references import describe_references
from restoration.options import TEXT, restoration_spec
from restoration.pivots.faces import ReferenceFace, about_number, find_faces
from restoration.pivots.person import Person, read_person
from restoration.pivots.prior import draw_prior, prior_folder

logger = logging.getLogger(__name__)


@restoration_spec
class PictureSpec:
    """The options on what a pivot learns from; field names are the options'."""

    output_dir: Path
    reference_dir: Path | None = declared
    reg_data_dir: Path | None = declared
    num_class_images: int = declared
    prior_loss_weight: float = declared
    train_data_dir: Path | None = declared
    identities: Sequence[str] | None = declared
    identity_model: Path | None = declared
    least_likeness: float = declared


@dataclass
class TrainingPictures:
    """What a pivot learns from."""

    faces: list[ReferenceFace]
    prior: list[ReferenceFace] = field(default_factory=list)
    people: dict[str, Path] = field(default_factory=dict)
    """Each person's G_p, where step 2 has several."""


def find_training_pictures(
    spec: PictureSpec,
    pivot: str,
    model: StableDiffusion,
    person: Person,
    side: int,
    environment: Environment,
) -> TrainingPictures:
    """What the pivot learns from: the references with the person's prompt, or for step 2 what the options name."""
    if pivot != TEXT and spec.identities:
        return _several_people(split_key_values(spec.identities), side)
    if pivot != TEXT and spec.train_data_dir:
        # Pictures of nobody in particular: G_p is told so.
        return TrainingPictures(find_faces(spec.train_data_dir, "train_data_dir", person.class_prompt, side))
    assert spec.reference_dir is not None  # checked with the options
    faces = find_faces(spec.reference_dir, "reference_dir", person.prompt, side)
    paths = [face.path for face in faces]
    for line in [*about_number(faces), *describe_references(paths, spec.identity_model, spec.least_likeness)]:
        logger.info(line)
    if pivot != TEXT or not spec.prior_loss_weight:
        return TrainingPictures(faces)
    folder = spec.reg_data_dir
    if folder is None:
        folder = prior_folder(spec.output_dir, person.class_prompt)
        if environment.processes.is_main:
            place(model, environment.processes.device, vae=True, text_encoders=True)
            with torch.no_grad(), environment.precision.autocast():
                draw_prior(model, person.class_prompt, folder, spec.num_class_images, side)
        environment.processes.wait()
    return TrainingPictures(faces, find_faces(folder, "reg_data_dir", person.class_prompt, side))


def _several_people(files: Mapping[str, str], side: int) -> TrainingPictures:
    """`identities`: folders of references, each with its person's file of step 1, which has the prompt."""
    faces: list[ReferenceFace] = []
    people: dict[str, Path] = {}
    for folder, file in files.items():
        known = read_person(Path(file))
        if known is None:
            raise UserError(f"`identities`: '{file}' does not say whose it is; give a file that step 1 has written")
        faces += find_faces(Path(folder), "identities", known.prompt, side, person=folder)
        people[folder] = Path(file)
    return TrainingPictures(faces, people=people)
