"""Network modules that were written for kohya's trainers: found, given the names they import, or refused by name.

The modules here are stand-ins of ours with the imports and the manners of those that people bring along.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention
from safetensors import safe_open
from safetensors.torch import load_file

from library.errors import UserError
from library.kohya_names import creating
from library.models.family import Family
from library.training.trained.network_trainable import NetworkTrainable
from library.training.trained.plugins import import_plugin, notes_on
from miniworld.tiny import build

BODY = """
import os
import torch
{imports}

class Beside(torch.nn.Module):
    def __init__(self, name, layer, rank):
        super().__init__()
        self.lora_name, self.layer = name, [layer]
        self.down = torch.nn.Linear(layer.in_features, rank, bias=False)
        self.up = torch.nn.Linear(rank, layer.out_features, bias=False)
        torch.nn.init.zeros_(self.up.weight)

    def apply_to(self):
        self.before = self.layer[0].forward
        self.layer[0].forward = lambda x, *rest: self.before(x, *rest) + self.up(self.down(x))


class Network(torch.nn.Module):
    # No set_multiplier, no norms, no checkpointing: what a trainer asks for with hasattr is not there.
    def __init__(self, unet, rank):
        super().__init__()
        self.besides = []
        for path, block in unet.named_modules():
            if block.__class__.__name__ == "{block}":
                name = f"lora_unet_{{path}}.to_q".replace(".", "_")
                self.besides.append(Beside(name, block.to_q, rank))

    def apply_to(self, text_encoder, unet, train_text_encoder, train_unet):
        for beside in self.besides:
            beside.apply_to()
            self.add_module(beside.lora_name, beside)

    def prepare_grad_etc(self, text_encoder, unet):
        self.requires_grad_(True)

    def on_epoch_start(self, text_encoder, unet):
        self.train()

    def get_trainable_params(self):
        return self.parameters()

    def load_weights(self, file):
        return self.load_state_dict(torch.load(file), False)

    def prepare_optimizer_params(self, {rates}):
{groups}

    def save_weights(self, file, dtype, metadata):
{saving}


def create_network(multiplier, network_dim, network_alpha, vae, text_encoder, unet{more}):
    return Network(unet, network_dim)
"""
PLAIN = {
    "imports": "",
    "block": "CrossAttention",
    "rates": "text_encoder_lr, unet_lr, default_lr",
    "groups": "return [{'params': list(self.parameters()), 'lr': default_lr}]",
    "saving": "from safetensors.torch import save_file\nsave_file(self.state_dict(), file, metadata)",
    "more": ", neuron_dropout=None, **kwargs",
}


def write_module(path: Path, **manners: str) -> None:
    parts = {**PLAIN, **manners}
    inner = {name: dedent(parts[name]).strip().replace("\n", "\n        ") for name in ("groups", "saving")}
    text = BODY.format(**{**parts, **{name: "        " + code for name, code in inner.items()}})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Iterator[Path]:
    """A current folder of its own; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    importlib.invalidate_caches()


def found(name: str, beside: Path | None = None) -> ModuleType:
    return import_plugin(name, "network_module", ("create_network",), beside)


@pytest.mark.parametrize("place", ["mine.py", "networks/mine.py", "packed/networks/mine.py"])
def test_a_module_is_found_in_the_current_folder_also_beside_networks_of_ours(folder, place):
    write_module(folder / place)
    name = place.removesuffix(".py").replace("/", ".")
    assert found(name).__file__ == str(folder / place)
    assert found("networks.lora").__name__ == "networks.lora"


def test_a_module_is_found_beside_the_config(folder):
    write_module(folder / "configs" / "networks" / "mine.py")
    with pytest.raises(UserError, match="cannot be found"):
        found("networks.mine")
    assert found("networks.mine", Path("configs/style.toml")).__file__ == str(folder / "configs/networks/mine.py")


def test_a_module_on_pythonpath_is_found_before_one_in_the_current_folder(folder, monkeypatch):
    write_module(folder / "mine.py")
    write_module(folder / "path" / "mine.py")
    monkeypatch.syspath_prepend(folder / "path")
    assert found("mine").__file__ == str(folder / "path" / "mine.py")


def test_kohyas_modules_are_known_under_the_name_of_the_easy_training_scripts():
    assert found("sd_scripts.networks.lora").__name__ == "networks.lora"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("path/to/mine.py", "beside the config and write `mine`"),
        ("no_such_module.networks", "the current folder and the config's"),
        ("lycoris.no_such_room", "pip install lycoris-lora"),
    ],
)
def test_what_cannot_be_found_is_reported_with_what_to_do(folder, name, says):
    with pytest.raises(UserError, match=says):
        found(name)


KOHYA_IMPORTS = """
from library.utils import setup_logging
setup_logging()
from library.sdxl_original_unet import SdxlUNet2DConditionModel
import library.train_util as train_util
"""
KOHYA_SAVING = """
from safetensors.torch import save_file
from library import train_util
state = self.state_dict()
model_hash, legacy_hash = train_util.precalculate_safetensors_hashes(state, metadata)
metadata["sshs_model_hash"], metadata["sshs_legacy_hash"] = model_hash, legacy_hash
save_file(state, file, metadata)
"""
NEWER_SAVING = KOHYA_SAVING.replace("from library import train_util", "import library.model_io as train_util")
LISTS = "return [{'params': self.parameters(), 'lr': unet_lr}]"
VIEWS = "return [{'params': dict(self.named_parameters()).values(), 'lr': unet_lr}], ['unet']"
GENERATED = "yield {'params': self.parameters()}"
ONLY_HALF = "return [{'params': [beside.up.weight for beside in self.besides], 'lr': unet_lr}]"


@pytest.mark.parametrize(
    ("name", "manners"),
    [
        ("like_kohyas", {"imports": KOHYA_IMPORTS, "saving": KOHYA_SAVING}),
        ("of_two_rates", {"rates": "text_encoder_lr, unet_lr", "groups": LISTS, "saving": NEWER_SAVING}),
        ("of_views", {"rates": "text_encoder_lr=None, unet_lr=1e-4, learning_rate=None", "groups": VIEWS}),
        ("of_a_generator", {"rates": "*args, **kwargs", "groups": GENERATED}),
        ("without_options", {"more": "", "groups": LISTS}),
        ("of_one_half", {"groups": ONLY_HALF}),
    ],
)
def test_a_foreign_module_trains_from_toml_saves_and_resumes(folder, train, tmp_path, name, manners):
    write_module(folder / f"{name}.py", **manners)
    options: dict[str, Any] = {"network_module": name, "unet_lr": 1e-3, "scale_weight_norms": 1.0}
    options |= {"network_train_unet_only": True, "max_train_steps": 2}
    assert train(**options, save_every_n_steps=1, save_state=True, gradient_checkpointing=True) == 0
    file = tmp_path / "out" / "t.safetensors"
    tensors = load_file(file)
    assert all(key.startswith("lora_unet_") for key in tensors)
    assert any(tensor.abs().max() > 0 for key, tensor in tensors.items() if "up" in key)
    with safe_open(file, "pt") as opened:
        assert {"ss_network_module": name}.items() <= opened.metadata().items()
        assert len(opened.metadata()["sshs_model_hash"]) == 64
    assert train(**options, resume=tmp_path / "out" / "t-step00000001-state", output_name="again") == 0
    again = load_file(tmp_path / "out" / "again.safetensors")
    assert all((again[key] == tensor).all() for key, tensor in tensors.items())
    assert not list((tmp_path / "out").glob(".trial*"))


@pytest.mark.parametrize(
    ("imports", "wanted"),
    [
        ("import library.strategy_sd", "library.strategy_sd"),
        ("from library import model_util", "library.model_util"),
        ("from library.utils import resize_image", "library.utils.resize_image"),
        ("from library.train_util import load_tokenizer", "library.train_util.load_tokenizer"),
    ],
)
def test_any_other_name_of_kohyas_is_one_clear_error(folder, imports, wanted):
    write_module(folder / "asking.py", imports=imports)
    with pytest.raises(UserError, match=rf"asking` imports `{wanted}`.*library.utils.setup_logging"):
        found("asking")


def test_a_name_that_only_a_function_imports_is_reported_before_the_training(folder):
    write_module(folder / "asking_later.py", saving="from library.model_util import save\nsave(self)")
    (line,) = notes_on(found("asking_later"))
    assert "`library.model_util.save`" in line
    write_module(folder / "asking_nothing.py", saving=KOHYA_SAVING)
    assert not notes_on(found("asking_nothing"))
    assert not notes_on(found("networks.ac_lora"))


def test_a_package_that_is_missing_is_named(folder):
    write_module(folder / "needing.py", imports="import no_such_package.inside")
    with pytest.raises(UserError, match=r"imports `no_such_package`, which cannot be found"):
        found("needing")


def test_a_package_that_fails_to_import_is_not_called_missing(folder):
    (folder / "broken").mkdir()
    (folder / "broken" / "__init__.py").write_text("raise ImportError('libfoo.so: no such file')\n")
    (folder / "broken" / "kohya.py").write_text("")
    with pytest.raises(ImportError, match=r"libfoo\.so"):
        found("broken.kohya")


def test_the_inside_of_kohyas_own_lora_is_not_here(folder):
    write_module(folder / "inheriting.py", imports="from networks.lora import LoRANetwork, LoRAInfModule")
    with pytest.raises(UserError, match=r"LoRAInfModule.*runs in sd-scripts only"):
        found("inheriting")


def test_a_module_that_cannot_save_says_so_before_it_trains(folder, train, capfd):
    write_module(folder / "unsaving.py", saving="raise RuntimeError('only .pt can be written')")
    with pytest.raises(RuntimeError, match=r"only \.pt can be written"):
        train(network_module="unsaving")
    assert "step" not in capfd.readouterr().out


def test_an_argument_that_a_module_does_not_take_is_refused_by_name(folder, train, capfd):
    write_module(folder / "strict.py", more="")
    assert train(network_module="strict", network_args=["conv_dim=4"]) == 1
    assert "strict.create_network() does not take" in capfd.readouterr().err


@pytest.mark.parametrize("error", ["TypeError", "AssertionError", "KeyError"])
def test_a_modules_own_exception_comes_out_as_it_is(folder, train, error):
    write_module(folder / f"raising_{error}.py", groups=f"raise {error}('a bug of its own')")
    with pytest.raises(getattr(__import__("builtins"), error), match="a bug of its own"):
        train(network_module=f"raising_{error}")


def test_the_lists_of_a_modules_classes_are_as_they_were_after_it_made_a_network():
    """kohya's modules lengthen such a list when they read a file, and the next network then has more layers."""

    class Network:
        TARGETS = ["Transformer2DModel"]  # noqa: RUF012

    module = ModuleType("lengthening")
    module.Network = Network  # type: ignore[attr-defined]
    targets = Network.TARGETS
    with creating(module):
        targets += ["ResnetBlock2D"]
        assert Attention.__name__ == "CrossAttention"
    assert targets is Network.TARGETS
    assert targets == ["Transformer2DModel"]
    assert Attention.__name__ == "Attention"


@pytest.mark.parametrize("line", ["from .rotations import block_size", "from networks.rotations import block_size"])
def test_a_module_that_is_cut_into_files_is_found_with_its_parts_or_told_which_one_is_missing(folder, line):
    """As networks.loha beside networks.network_base, and networks.oft_v2 beside networks.orthogonal_common."""
    write_module(folder / "networks" / "rotating.py", imports=line)
    with pytest.raises(UserError, match=r"imports `networks\.rotations`, which cannot be found; put that file beside"):
        found("networks.rotating")
    (folder / "networks" / "rotations.py").write_text("block_size = 32\n", encoding="utf-8")
    assert found("networks.rotating").block_size == 32


ASKING = """
from library.utils import setup_logging

setup_logging()


def detect_arch_config(unet, text_encoders):
    from library.sdxl_original_unet import InferSdxlUNet2DConditionModel, SdxlUNet2DConditionModel
    if not issubclass(unet.__class__, SdxlUNet2DConditionModel):
        raise ValueError("Cannot auto-detect architecture")
    return issubclass(unet.__class__, InferSdxlUNet2DConditionModel)


def create_network(*parts, **kwargs):
    return detect_arch_config(parts[5], parts[4])
"""


def test_a_module_over_network_base_is_answered_that_the_u_net_is_that_of_sdxl_and_no_other_is(folder):
    """As networks.loha and networks.lokr of sd-scripts 0.11 ask; in sd-scripts, too, they are for SDXL only."""
    (folder / "asking.py").write_text(ASKING, encoding="utf-8")
    module, sdxl, sd1 = found("asking"), build(Family.SDXL), build(Family.SD1)
    with creating(module, sdxl.unet):
        assert module.create_network(1.0, 4, 1, None, None, sdxl.unet) is True
    with creating(module, sd1.unet), pytest.raises(ValueError, match="Cannot auto-detect"):
        module.create_network(1.0, 4, 1, None, None, sd1.unet)
    with pytest.raises(ValueError, match="Cannot auto-detect"):
        module.create_network(1.0, 4, 1, None, None, sdxl.unet)


def test_a_module_that_counts_blocks_is_not_answered_so(folder):
    (folder / "counting.py").write_text(ASKING.replace("detect_arch_config", "is_sdxl"), encoding="utf-8")
    module, sdxl = found("counting"), build(Family.SDXL)
    with creating(module, sdxl.unet), pytest.raises(ValueError, match="Cannot auto-detect"):
        module.create_network(1.0, 4, 1, None, None, sdxl.unet)


def test_what_a_module_leaves_out_of_its_groups_gets_no_gradients_that_pile_up_in_what_is_clipped(folder):
    """LoRA-FA trains `up` only, and still names all of its parameters to be clipped."""
    write_module(folder / "half.py", groups=ONLY_HALF)
    model = build(Family.SD1)
    module = found("half")
    with creating(module):
        network = module.create_network(1.0, 2, 1, None, None, model.unet)
    network.apply_to(None, model.unet, False, True)
    groups = network.prepare_optimizer_params(None, 1e-3, None)
    trainable = NetworkTrainable(network, groups, ["unet"], model, torch.device("cpu"))
    ups = [beside.up.weight for beside in network.besides]
    assert {id(p) for p in trainable.clipped_parameters()} == {id(p) for p in ups}
    assert len(ups) == 32
    assert not any(beside.down.weight.requires_grad for beside in network.besides)
