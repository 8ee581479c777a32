"""Weights for the arms of `prove dual_pivot`, trained by restoration/train.py when first asked for, and restoring."""

from __future__ import annotations

import copy
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from library.errors import UserError
from library.files import write_tensors, write_text
from miniworld.draw import write_dataset
from miniworld.identities import HELD_OUT
from miniworld.pretrain.preview import to_pixels
from miniworld.pretrain_restorer.__main__ import MODEL, RESTORER
from miniworld.pretrain_restorer.faces import RANGES_OF, portraits
from miniworld.prove.likeness import Likeness
from miniworld.prove.measures import through_vae
from miniworld.prove.pivot_arms import Lengths, PivotArm
from miniworld.sets import identity_set
from restoration.pivots.person import class_prompt_of, give_weights
from restoration.restoring.sampling import Sampling, restore
from restoration.system.load import load_encoder, load_restorer
from restoration.system.system import System

STEPS = 25
"""From noise to picture."""
OTHERS = 60
"""Drawn faces of a class for prior preservation; the paper has 200."""
TOKEN = "sks"
CONTEXTS: dict[str, str] = {"in context": "true", "out of context": "false"}


def prompt_of(person: str) -> str:
    return f"a photo of a {TOKEN} {HELD_OUT[person].gender}"


def quoted(value: object) -> str:
    """A string of TOML, in which nothing is escaped."""
    return f"'{value}'"


class PivotTrainer:
    """Tunes the mini restorer on people, and restores with what came of it; everything trained is kept in `folder`."""

    def __init__(self, folder: Path, lengths: Lengths, seed: int) -> None:
        self._lengths, self._seed = lengths, seed
        steps = f"{lengths.text_steps}-{lengths.text_rate:g}-{lengths.model_steps}-{lengths.model_rate:g}"
        damage = "" if lengths.damage == "hard" else f"-{lengths.damage}"
        self._folder = folder / f"{steps}-{seed}{damage}"

    @cached_property
    def _pretrained(self) -> System:
        return load_restorer(MODEL, RESTORER).system

    def restore(self, arm: PivotArm, person: str, encoder_of: str, exam: Likeness) -> np.ndarray:
        """The exam's damaged pictures, restored in the way of an arm: uint8 (10, 128, 128, 3)."""
        system = copy.deepcopy(self._pretrained)
        if arm.unet != "pretrained":
            give_weights(system.model, self.unet(person, arm.unet))
        if arm.encoder != "pretrained":
            system.encoder = load_encoder(self.encoder(encoder_of, arm), system.model)
        sampling = Sampling(gamma=arm.gamma, guidance_scale=arm.w, steps=STEPS, color_fix="none")
        pictures = torch.from_numpy(exam.degraded).permute(0, 3, 1, 2)
        names = [f"{person}-{i}" for i in range(len(pictures))]  # noise is keyed by them: the same in every arm
        prompt = prompt_of(person) if arm.names_the_person else class_prompt_of(prompt_of(person), TOKEN)
        restored = restore(system, pictures, system.text([prompt]), names, sampling)
        return to_pixels(restored * 2 - 1)

    def bound(self, row: str, exam: Likeness) -> np.ndarray:
        """What restoring begins with, or the best that this VAE can show."""
        if row == "input":
            return np.round(exam.degraded * 255).astype(np.uint8)
        return through_vae(self._pretrained.model, exam.truth)

    def unet(self, person: str, context: str) -> Path:
        """G_p of step 1, eq. 6 or eq. 5."""
        name = f"{person}-{context.replace(' ', '-')}"
        return self._trained(f"{name}_G", "text", person, name, {"in_context": CONTEXTS[context]})

    def encoder(self, person: str, arm: PivotArm) -> Path:
        """E_pr of step 2 (eq. 7), after the share of its steps that the arm asks for."""
        around = arm.encoder
        name = f"{person}-{around.replace(' ', '-')}-{arm.high_noise_text}"
        settings = {"high_noise_text": quoted(arm.high_noise_text)}
        settings["unet_weights"] = quoted(self.unet(person, around) if around in CONTEXTS else self._untuned())
        last = self._trained(f"{name}_E", "model", person, name, settings)
        if arm.share == 1.0:
            return last
        return last.with_name(f"{last.stem}-step{round(arm.share * self._lengths.model_steps):08d}.safetensors")

    def _untuned(self) -> Path:
        """G as it was pretrained, in a file: what step 2 alone is tuned around (B5)."""
        file = self._folder / "pretrained_G.safetensors"
        if not file.exists():
            write_tensors(file, self._pretrained.unet.state_dict())
        return file

    def _trained(self, stem: str, pivot: str, person: str, name: str, settings: dict[str, str]) -> Path:
        """The file of a pivot, trained if it is not there yet."""
        import restoration.train

        file = self._folder / f"{stem}.safetensors"
        if not file.exists():
            config = self._folder / f"{stem}.toml"
            write_text(config, self._config(pivot, person, name, settings))
            code = restoration.train.main(["--config_file", str(config)])
            if code or not file.exists():
                raise UserError(f"restoration/train.py ended with exit code {code} on {config}")
        return file

    def _config(self, pivot: str, person: str, name: str, settings: dict[str, str]) -> str:
        """What restoration/train.py is told."""
        gender = HELD_OUT[person].gender
        steps = self._lengths
        every = max(1, steps.model_steps // 8) if pivot == "model" else 0
        lines = {
            "pivot": quoted(pivot),
            "pretrained_model_name_or_path": quoted(MODEL),
            "controlnet_model_name_or_path": quoted(RESTORER),
            "cleaner": quoted("none"),
            "prompt": quoted(prompt_of(person)),
            "reference_dir": quoted(self._references(person)),
            "reg_data_dir": quoted(self._others(gender)),
            "text_max_train_steps": steps.text_steps,
            "text_learning_rate": steps.text_rate,
            "model_max_train_steps": steps.model_steps,
            "model_learning_rate": steps.model_rate,
            "train_batch_size": steps.batch,
            **{option: list(values) for option, values in RANGES_OF[steps.damage].items()},
            "seed": self._seed,
            "output_dir": quoted(self._folder),
            "output_name": quoted(name),
            **({"save_every_n_steps": every} if every else {}),
            **settings,
        }
        return "".join(f"{option} = {value}\n" for option, value in lines.items())

    def _references(self, person: str) -> Path:
        folder = self._folder / f"{person}-references"
        if not folder.is_dir():
            write_dataset(folder, identity_set(person, "train", self._seed))
        return folder

    def _others(self, gender: str) -> Path:
        """Drawn faces of the person's class, of whom the restorer was pretrained: never a held-out one."""
        folder = self._folder / f"other-{gender}"
        if not folder.is_dir():
            drawn = portraits("train", 0, 0, 3 * OTHERS)
            write_dataset(folder, [picture for picture in drawn if picture.facts.gender == gender][:OTHERS])
        return folder
