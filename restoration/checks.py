"""What can be known to go wrong from the options alone, before any model is loaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from library.config.finished_work import finished_work_problems
from library.config.option import Settings
from library.config.suggest import missing
from library.errors import Problem
from restoration.options import BOTH, FOLDERS_OF_FACES, MODEL_PIVOT, TEXT, settings_of


def training_problems(settings: Settings) -> list[Problem]:
    """Everything that stops a training."""
    return [
        *found(settings, restorer_problems, person_problems, picture_problems, pivot_problems),
        *finished_pivot_problems(settings),
    ]


def finished_pivot_problems(settings: Settings) -> list[Problem]:
    """A pivot trained to its end under other settings; `--resume latest` decides itself what is trained anew."""
    if settings["resume"] == "latest" or settings["output_dir"] is None:
        return []
    pivots = (TEXT, MODEL_PIVOT) if settings["pivot"] == BOTH else (settings["pivot"],)
    return [problem for pivot in pivots for problem in finished_work_problems(settings_of(settings, pivot))]


def restoring_problems(settings: Settings) -> list[Problem]:
    """Everything that stops restoring."""
    return found(settings, restorer_problems, source_problems, face_problems)


def source_problems(settings: Settings) -> Iterator[Problem]:
    """Pictures are never written over those that they are made from."""
    source, target = settings["input"], settings["output"]
    if source is not None and target is not None and os.path.realpath(source) == os.path.realpath(target):
        yield Problem(
            f"{settings.place('output')} is the folder of `input`: its pictures would be overwritten; give another one."
        )


def face_problems(settings: Settings) -> Iterator[Problem]:
    """What finding and choosing faces in photos lacks."""
    if settings["identity_model"] is not None and not os.path.isfile(settings["identity_model"]):
        yield Problem(f"{settings.place('identity_model')}: {missing(settings['identity_model'])}")
    if settings["restore_mode"] != "faces" or settings["which_face"] != "identity":
        return
    if settings["mode"] == "swap":
        yield Problem(
            f"{settings.place('which_face')} = identity looks for the person, who is not in a photo that `mode = swap` "
            "puts them into; give `largest` or a number."
        )
    if settings["identity_model"] is None:
        yield Problem(
            f"{settings.place('which_face')} = identity needs `identity_model`, a face network: ArcFace .onnx, or "
            "OpenCV's SFace."
        )
    if settings["identity_refs"] is None and settings["reference_dir"] is None:
        yield Problem(
            f"{settings.place('which_face')} = identity needs to know the person: give `reference_dir` or "
            "`identity_refs`."
        )


def restoring_face_problems(settings: Settings) -> list[Problem]:
    """What stops choosing whose face is restored."""
    return found(settings, face_problems)


def writing_problems(settings: Settings) -> list[Problem]:
    """What stops a command that only reads pictures and writes others."""
    return found(settings, source_problems)


def found(settings: Settings, *checks: Callable[[Settings], Iterator[Problem]]) -> list[Problem]:
    """What the checks say of values that could be read."""
    return [replace(problem, understood=True) for check in checks for problem in check(settings)]


def restorer_problems(settings: Settings) -> Iterator[Problem]:
    if settings["pretrained_model_name_or_path"] is None:
        yield Problem(
            "`pretrained_model_name_or_path` is not set: a Stable Diffusion 2.1 file or folder, or a DiffBIR v1 file."
        )
    for name in (option.name for option in settings.options.values() if option.names_a_model):
        value = settings[name]
        if value is not None and not os.path.exists(value):
            yield Problem(f"{settings.place(name)}: {missing(Path(value))} Models are not downloaded.")
    cleaner = settings["cleaner"]
    if cleaner not in (None, "none", "bicubic") and not os.path.exists(cleaner):
        yield Problem(f'{settings.place("cleaner")}: {missing(Path(cleaner))} Give a file, "none" or "bicubic".')


def person_problems(settings: Settings) -> Iterator[Problem]:
    if settings["prompt"] is None:
        yield Problem(
            f"`prompt` is not set: what stands for the person, such as 'a photo of a {settings['token']} woman'."
        )
    elif settings["token"] not in settings["prompt"].split():
        yield Problem(
            f"{settings.place('prompt')} is {settings['prompt']!r}, which does not have the word `token = "
            f"{settings['token']}`; write 'a photo of a {settings['token']} woman', or give the token that it has."
        )


def picture_problems(settings: Settings) -> Iterator[Problem]:
    needs_references = settings["pivot"] != MODEL_PIVOT or not (settings["train_data_dir"] or settings["identities"])
    if settings["reference_dir"] is None and needs_references:
        yield Problem("`reference_dir` is not set: the folder with about ten pictures of the person.")
    for name in FOLDERS_OF_FACES:
        folder = settings[name]
        if folder is not None and not os.path.isdir(folder):
            yield Problem(f"{settings.place(name)}: {missing(folder)}")


def pivot_problems(settings: Settings) -> Iterator[Problem]:
    if settings["output_dir"] is None:
        yield Problem("`output_dir` is not set: the folder for everything that the run leaves.")
    if settings["pivot"] == BOTH and settings["resume"] not in (None, "latest"):
        yield Problem(
            f"{settings.place('resume')} names one state, but two pivots are trained; give `latest`, or `pivot = text` "
            "or `model`."
        )
    if settings["pivot"] != MODEL_PIVOT and settings["gamma"] == 1.0 and settings["max_timestep"] is None:
        yield Problem(
            f"{settings.place('gamma')} is 1: restoring never uses the person, so nothing can be trained; 0.5 is usual."
        )
    low, high = settings["min_timestep"] or 0, settings["max_timestep"]
    for pivot, highest in ((TEXT, round(1000 * (1 - settings["gamma"]))), (MODEL_PIVOT, 1000)):
        if settings["pivot"] in (pivot, BOTH) and 0 < (high or highest) <= low:
            yield Problem(
                f"{settings.place('min_timestep')} is {low}, but must be below {high or highest}, where the "
                f"timesteps of the {pivot} pivot end."
            )
    if settings["pivot"] == MODEL_PIVOT and not settings["identities"] and settings["output_dir"] is not None:
        name = f"{settings['output_name'] or 'person'}_G.safetensors"
        file = settings["unet_weights"] or settings["output_dir"] / name
        if not os.path.isfile(file):
            yield Problem(
                f"'{file}' does not exist: step 2 trains the ControlNet around the U-Net of step 1; run `--pivot "
                f"{TEXT}` first, or give `unet_weights`."
            )
