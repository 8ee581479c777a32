"""What a file of step 1 or step 2 says of itself, and giving its weights to a system.

A G_p is a whole U-Net or a network on it (LoRA), told by its names. Its header carries the person's prompts, so that
restoring needs nothing but the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from library.config.spec import declared
from library.errors import UserError
from library.files import Tensors, is_finite, read_metadata, read_tensors
from library.models.family import StableDiffusion
from library.models.hashes import weights_hash
from library.training.trained.network import NetworkSpec, merge_base_weights
from library.training.trained.plugins import ROOT, import_plugin
from restoration.options import restoration_spec

PREFIX = "pivot_"


@restoration_spec
class PersonSpec:
    """The options that describe a person; field names are the options'."""

    prompt: str
    class_prompt: str | None = declared
    token: str = declared
    gamma: float = declared

    def person(self, base: str) -> Person:
        """`base` is the `base_mark` of the U-Net that training begins with."""
        class_prompt = class_prompt_of(self.prompt, self.token)
        return Person(self.prompt, self.class_prompt or class_prompt, self.token, self.gamma, base)


@dataclass(frozen=True)
class Person:
    """Who G_p is about, and what it was trained on. Fields are the header's entries, with `pivot_` in front."""

    prompt: str
    class_prompt: str
    token: str
    gamma: float
    base: str = ""
    """`base_mark` of the U-Net that training began with."""

    def header(self) -> dict[str, str]:
        return {PREFIX + name: str(value) for name, value in vars(self).items()}


def read_person(path: Path) -> Person | None:
    """The person of a file of step 1; None where its header says nothing (made by another program)."""
    header = read_metadata(path)
    if PREFIX + "prompt" not in header:
        return None
    texts = {name: header.get(PREFIX + name, "") for name in ("prompt", "class_prompt", "token", "base")}
    return Person(**texts, gamma=float(header.get(PREFIX + "gamma", 0.5)))


def class_prompt_of(prompt: str, token: str) -> str:
    """The prompt without the token: "a photo of a sks woman" is about "a photo of a woman".

    Raises `UserError` where the token is not a word of the prompt.
    """
    words = prompt.split()
    if token not in words:
        raise UserError(
            f"`token = {token}` is not a word of `prompt = {prompt}`; write 'a photo of a {token} woman', or give the "
            "token that it has"
        )
    return " ".join(word for word in words if word != token)


def base_mark(unet: nn.Module) -> str:
    """16 hex digits that tell one base model from another, whatever precision it was loaded in.

    Of the first and last convolutions alone, as float16: fine-tuned models differ there as everywhere.
    """
    ends = nn.ModuleDict({"first": unet.get_submodule("conv_in"), "last": unet.get_submodule("conv_out")})
    halves = nn.Module()
    for number, parameter in enumerate(ends.parameters()):
        halves.register_buffer(f"p{number}", parameter.detach().cpu().half())
    return weights_hash(halves)[:16]


def give_weights(model: StableDiffusion, path: Path, network_module: str | None = None) -> None:
    """Put G_p's weights into the model's U-Net, in its dtype: all of them, or merged from a network's file.

    `network_module` is the one that the options name: any other than those that come with the project is imported only
    if a person named it, not because a file does.
    """
    tensors, header = read_tensors(path)
    wanted = model.unet.state_dict()
    if tensors.keys() == wanted.keys():
        different = [name for name in wanted if tensors[name].shape != wanted[name].shape]
        if not different:
            refuse_non_finite(tensors, path)
            model.unet.load_state_dict(tensors)
            return
        raise UserError(f"'{path}' is a U-Net of another architecture than '{model.source}' (`{different[0]}`)")
    if not any(".lora_" in name for name in tensors):
        raise UserError(
            f"'{path}' is neither a U-Net of this architecture nor a network on it; give OUTPUT_NAME_G.safetensors of "
            "step 1"
        )
    name = header.get("ss_network_module") or "networks.lora"
    if name != network_module and not _comes_with_the_project(name):
        raise UserError(
            f"'{path}' was made by the network module {name!r}, which did not come with this project; if you "
            "trust it, say so by the option `network_module`"
        )
    module = import_plugin(name, "ss_network_module", ())
    merge_base_weights(module, NetworkSpec(base_weights=[path]), model, model.unet.dtype)


def _comes_with_the_project(module: str) -> bool:
    """Whether a module is a file of this project's `networks`, or LyCORIS, which is installed to be used by name."""
    package, _, name = module.removeprefix("sd_scripts.").partition(".")
    if package == "lycoris":
        return True
    return package == "networks" and name.isidentifier() and (ROOT / "networks" / f"{name}.py").is_file()


def refuse_non_finite(tensors: Tensors, path: Path) -> None:
    """Raise `UserError` for weights that would make every picture black."""
    for name, tensor in tensors.items():
        if not is_finite(tensor):
            raise UserError(
                f"'{path}' holds weights that are not finite (`{name}`); train it again, or load another file"
            )


class People:
    """The U-Net weights of several people on the CPU; `show` puts one of them into the model before a step."""

    def __init__(self, model: StableDiffusion, files: Mapping[str, Path], network_module: str | None = None) -> None:
        self._unet = model.unet
        self._weights: dict[str, dict[str, torch.Tensor]] = {}
        base = {name: tensor.clone() for name, tensor in model.unet.state_dict().items()}
        for person, file in files.items():
            model.unet.load_state_dict(base)
            give_weights(model, file, network_module)
            self._weights[person] = {name: tensor.clone() for name, tensor in model.unet.state_dict().items()}
        self._shown = list(files)[-1] if files else ""

    def show(self, person: str) -> None:
        if person != self._shown and person in self._weights:
            self._unet.load_state_dict(self._weights[person])
            self._shown = person
