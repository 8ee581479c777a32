"""The contract of kohya's trainers, for every network module: list a module in MODULES and it is tested.

A listed module trains text encoders and U-Net, and its network computes `base(x) + multiplier * update(x)`. A module of
other people is listed with what it is known to lack.
"""

from __future__ import annotations

import importlib
from copy import deepcopy
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from library.models.family import Family, StableDiffusion
from miniworld.tiny import build


class Listed(NamedTuple):
    module: str
    arguments: dict[str, str]  # network_args, as text
    lacks: dict[str, str] = {}  # noqa: RUF012 (what it does not do as the contract says, and what it does)

    def must(self, what: str) -> None:
        """Leave a test of what the module is known not to do."""
        if what in self.lacks:
            pytest.skip(f"{self.module}: {self.lacks[what]}")


NOT_IN_LYCORIS = {
    "merge": "merge_to knows no multiplier, and takes alpha / rank twice for LoHa and LoKr",
    "norms": "what it answers is 0 where nothing was scaled",
}

NO_NORMS = {"norms": "shrinking A and B does not shrink their difference to the start"}

MODULES = [
    Listed("networks.lora", {}),
    Listed("networks.lora", {"conv_dim": "2", "conv_alpha": "1"}),
    Listed("networks.ac_lora", {"conv_dim": "2", "export_rank": "energy:1", "ac_mode": "product"}),
    Listed("networks.ac_lora", {"ac_mode": "product", "export_rank": "full"}),
    Listed("networks.t_lora", {"conv_dim": "2"}),
    Listed("networks.t_lora", {"t_start": "random"}, NO_NORMS),
    Listed("lycoris.kohya", {"algo": "loha", "preset": "attn-mlp"}, NOT_IN_LYCORIS),
]


@pytest.fixture(scope="module", params=MODULES, ids=lambda listed: "-".join([listed.module, *listed.arguments]))
def listed(request) -> Listed:
    return request.param


@pytest.fixture
def model() -> StableDiffusion:
    return fresh_model()


class Trained(NamedTuple):
    """A trained network on its model, its file, and the model's output with and without it."""

    network: Any
    model: StableDiffusion
    file: str
    output: Tensor
    base: Tensor


@pytest.fixture(scope="module")
def trained(listed, tmp_path_factory) -> Trained:
    """Shared by all tests of a module: who changes something, changes it back."""
    model = fresh_model()
    base = output(model)
    network = create(listed, model)
    train(network, model)
    file = str(tmp_path_factory.mktemp("trained") / "net.safetensors")
    network.save_weights(file, None, {})
    return Trained(network, model, file, output(model), base)


def fresh_model(family: Family = Family.SD1) -> StableDiffusion:
    return deepcopy(_tiny(family))


@cache
def _tiny(family: Family) -> StableDiffusion:
    return build(family)


def text_encoder_of(model: StableDiffusion) -> Any:
    return model.text_encoders if len(model.text_encoders) > 1 else model.text_encoders[0]


def create(listed: Listed, model: StableDiffusion, *, text: bool = True, unet: bool = True, apply: bool = True) -> Any:
    """A network, made and applied with exactly the calls of the trainer."""
    module = importlib.import_module(listed.module)
    torch.manual_seed(0)
    arguments = {"dropout": None, **listed.arguments}
    encoder = text_encoder_of(model)
    network = module.create_network(1.0, 4, 2, model.vae, encoder, model.unet, neuron_dropout=None, **arguments)
    if hasattr(network, "prepare_network"):
        network.prepare_network(SimpleNamespace(max_train_epochs=9, max_train_steps=9, network_module=listed.module))
    if apply:
        network.apply_to(encoder, model.unet, text, unet)
    return network


def noise_pred(model: StableDiffusion, side: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, side, side, generator=generator)
    ids = torch.arange(2 * 77).reshape(2, 77) % 40
    encoded = [encoder(ids, output_hidden_states=True) for encoder in model.text_encoders]
    hidden = torch.cat([e.hidden_states[-2] for e in encoded], dim=-1)
    if model.family is not Family.SDXL:
        hidden = encoded[0].last_hidden_state
    added = None
    if model.family is Family.SDXL:
        added = {"text_embeds": encoded[1].text_embeds, "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2)}
    timesteps = torch.tensor([3, 700])
    return model.unet(latents, timesteps, encoder_hidden_states=hidden, added_cond_kwargs=added).sample


def groups_of(network: Any) -> list[dict]:
    answer = network.prepare_optimizer_params(1e-2, 1e-2, 1e-2)
    return list(answer[0] if isinstance(answer, tuple) else answer)


def train(network: Any, model: StableDiffusion, steps: int = 2, side: int = 8) -> None:
    """A few steps of the trainer's loop; enough that A and B both move."""
    encoder = text_encoder_of(model)
    optimizer = torch.optim.AdamW(groups_of(network))
    network.prepare_grad_etc(encoder, model.unet)
    network.on_epoch_start(encoder, model.unet)
    for _ in range(steps):
        if hasattr(network, "on_step_start"):
            network.on_step_start(encoder, model.unet)
        (noise_pred(model, side) - 1).square().mean().backward()
        nn.utils.clip_grad_norm_(network.get_trainable_params(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    network.eval()


@torch.no_grad()
def output(model: StableDiffusion) -> Tensor:
    return noise_pred(model)


def test_a_new_network_changes_nothing(listed, model):
    before = output(model)
    network = create(listed, model)
    assert torch.equal(output(model), before)
    assert not any(isinstance(network, type(part)) for part in (model.unet, *model.text_encoders))


@pytest.mark.parametrize("family", [Family.SD1, Family.SD2, Family.SDXL], ids=lambda family: family.value)
def test_training_moves_all_of_the_network_and_nothing_else(listed, family):
    model = fresh_model(family)
    before = {name: p.clone() for part in (model.unet, *model.text_encoders) for name, p in part.named_parameters()}
    network = create(listed, model)
    start = {name: tensor.clone() for name, tensor in network.named_parameters()}
    train(network, model, side=16)  # at 8 the deepest level has one token, whose attention to itself learns nothing
    still = [name for name, p in network.named_parameters() if torch.equal(p, start[name])]
    if family is Family.SDXL:  # whose U-Net reads the first encoder before its last layer
        still = [name for name in still if "lora_te1" not in name or "layers_2_" not in name]
    assert not still
    after = {name: p for part in (model.unet, *model.text_encoders) for name, p in part.named_parameters()}
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_saved_network_comes_back(listed, trained, model, tmp_path, suffix):
    file = str(tmp_path / f"net{suffix}")
    trained.network.save_weights(file, None, {"ss_note": "x"})
    again = create(listed, model)
    assert str(again.load_weights(file))  # what it returns is printed
    again.eval()
    assert torch.allclose(output(model), trained.output, atol=1e-6)
    assert not torch.allclose(trained.output, trained.base, atol=1e-3)


def test_a_network_is_made_to_fit_a_file(listed, trained, model):
    """--dim_from_weights: ranks and alphas come from the file, not from the options."""
    module = importlib.import_module(listed.module)
    encoder = text_encoder_of(model)
    answer = module.create_network_from_weights(1, trained.file, model.vae, encoder, model.unet, **listed.arguments)
    assert isinstance(answer, tuple)
    network, _ = answer
    network.apply_to(encoder, model.unet, True, True)
    network.load_weights(trained.file)
    network.eval()
    assert torch.allclose(output(model), trained.output, atol=1e-6)


@pytest.mark.parametrize("multiplier", [1.0, -0.5])
def test_merging_equals_applying(listed, trained, model, multiplier):
    """--base_weights: the same output without a network, at any multiplier."""
    listed.must("merge")
    trained.network.set_multiplier(multiplier)
    expected = output(trained.model)
    trained.network.set_multiplier(1.0)
    module = importlib.import_module(listed.module)
    encoder = text_encoder_of(model)
    network, weights = module.create_network_from_weights(
        multiplier, trained.file, model.vae, encoder, model.unet, for_inference=True
    )
    network.merge_to(encoder, model.unet, weights, torch.float32, "cpu")
    assert torch.allclose(output(model), expected, atol=2e-5)


def test_at_multiplier_zero_there_is_only_the_base(trained):
    trained.network.set_multiplier(0.0)
    assert torch.equal(output(trained.model), trained.base)
    trained.network.set_multiplier(1.0)
    assert torch.equal(output(trained.model), trained.output)
    if hasattr(trained.network, "set_enabled"):
        trained.network.set_enabled(False)
        assert torch.equal(output(trained.model), trained.base)
        trained.network.set_enabled(True)


@pytest.mark.parametrize("dtype", [None, torch.float16, torch.bfloat16], ids=str)
def test_a_file_has_the_dtype_and_the_metadata_it_was_asked_for(trained, tmp_path, dtype):
    file = str(tmp_path / "net.safetensors")
    trained.network.save_weights(file, dtype, {"ss_note": "ä", "modelspec.title": "t"})
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]
    weights = {tensor.dtype for tensor in load_file(file).values() if tensor.dim()}
    assert weights == {dtype or torch.float32}
    with safe_open(file, "pt") as opened:
        assert {"ss_note": "ä", "modelspec.title": "t"}.items() <= opened.metadata().items()
    assert {p.dtype for p in trained.network.parameters()} == {torch.float32}  # what is trained stays as it is


@pytest.mark.parametrize(("text", "unet"), [(True, False), (False, True)], ids=["text encoder only", "U-Net only"])
def test_only_the_part_that_is_asked_for_is_trained(listed, model, tmp_path, text, unet):
    network = create(listed, model, text=text, unet=unet)
    file = str(tmp_path / "net.safetensors")
    network.save_weights(file, None, {})
    names = set(load_file(file))
    assert names
    prefix = "lora_te_" if text else "lora_unet_"
    assert {name for name in names if name.startswith(prefix)} == names
    assert len(groups_of(network)) == 1


def test_parameter_groups_are_dicts_with_rates_and_leave_out_what_has_none(listed, model):
    network = create(listed, model)
    groups = groups_of(network)
    assert all(group["params"] and group["lr"] == 1e-2 for group in groups)
    grouped = {id(p) for group in groups for p in group["params"]}
    assert grouped == {id(p) for p in network.parameters()}
    answer = network.prepare_optimizer_params(0.0, 1e-3, 1e-2)
    fewer = list(answer[0] if isinstance(answer, tuple) else answer)
    count = sum(len(group["params"]) for group in fewer)
    assert 0 < count < len(grouped)
    if isinstance(answer, tuple):
        assert len(answer[1]) == len(fewer)


def test_the_state_of_a_network_restores_it_exactly(listed, model):
    """What a resume does: load_state_dict, strictly."""
    network = create(listed, model)
    train(network, model)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    expected = output(model)
    train(network, model, steps=1)
    assert not torch.equal(output(model), expected)
    network.load_state_dict(state, strict=True)
    network.eval()
    assert torch.equal(output(model), expected)


def test_the_largest_norm_is_kept(listed, model):
    listed.must("norms")
    network = create(listed, model)
    train(network, model)
    _, _, largest = network.apply_max_norm_regularization(1e9, "cpu")
    limit = largest / 2
    scaled, mean, now = network.apply_max_norm_regularization(limit, "cpu")
    assert scaled >= 1
    assert mean <= now <= limit * 1.0001
    assert network.apply_max_norm_regularization(limit * 1.001, "cpu")[0] == 0


def test_an_epoch_starts_in_training_mode_and_checkpointing_is_accepted(listed, model):
    network = create(listed, model)
    network.enable_gradient_checkpointing()
    network.eval()
    network.on_epoch_start(text_encoder_of(model), model.unet)
    assert network.training
    assert list(network.get_trainable_params())
