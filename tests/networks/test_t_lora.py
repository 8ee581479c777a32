"""T-LoRA: how many slots are active, what the mask does to output and gradients, its orthogonal start and its files."""

from __future__ import annotations

import importlib.util
from fractions import Fraction
from math import floor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import networks
from library.models.family import StableDiffusion
from library.training.progress import Progress
from networks import ac_lora, lora, t_lora
from networks.t_lora import active_rank, mask_of
from tests.networks.test_contract import fresh_model, noise_pred, output, text_encoder_of

RANK, LEAST = 4, 2


def create(model: StableDiffusion, **arguments: str) -> t_lora.TLoRANetwork:
    torch.manual_seed(0)
    encoder = text_encoder_of(model)
    network = t_lora.create_network(1.0, RANK, RANK, model.vae, encoder, model.unet, **arguments)
    network.apply_to(encoder, model.unet, False, True)
    return network


@pytest.mark.parametrize(("rank", "least"), [(64, 32), (10, 3), (100, 0), (4, 4)])
def test_the_active_rank_is_the_formulas_at_every_timestep(rank, least):
    timesteps = torch.arange(1000)
    expected = [floor(Fraction(1000 - t, 1000) * (rank - least)) + least for t in range(1000)]
    assert active_rank(timesteps, rank, least).tolist() == expected
    assert active_rank(timesteps.double(), rank, least).tolist() == expected
    assert float(active_rank(torch.tensor([1000.0]), rank, least)) == least
    assert mask_of(timesteps, rank, least).sum(1).tolist() == expected
    assert mask_of(torch.tensor([500]), 4, 2).tolist() == [[True, True, True, False]]


def test_each_sample_has_the_slots_of_its_own_timestep(monkeypatch):
    model = fresh_model()
    network = create(model)
    module = network.unet_loras[0]
    with torch.no_grad():
        module.lora_up.weight.normal_()
    x = torch.randn(2, module.lora_down.weight.shape[1], *(1, 1)[: module.lora_down.weight.dim() - 2])
    network.train()
    network.on_timesteps(torch.tensor([0, 999]))
    a, b = module.lora_down.weight.flatten(1), module.lora_up.weight.flatten(1)
    rows = x.flatten(1)
    update = [(b[:, :r] @ (a[:r] @ row)) * module.scale for r, row in zip((RANK, LEAST), rows, strict=True)]
    monkeypatch.setattr(module, "org_forward", lambda x: torch.zeros(len(x), len(b), *x.shape[2:]))
    torch.testing.assert_close(module(x).flatten(1), torch.stack(update), rtol=1e-5, atol=1e-6)
    network.eval()
    torch.testing.assert_close(module(x).flatten(1), rows @ a.T @ b.T * module.scale, rtol=1e-5, atol=1e-6)


def test_dropout_leaves_out_single_values_and_not_a_slot_of_the_whole_picture():
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, RANK, bias=False)
    shared = t_lora.Timesteps(RANK)
    module = t_lora.TLoRAModule("lora_unet_x", layer, 1.0, RANK, RANK, 0.5, timesteps=shared, start="zero")
    module.apply_to()
    with torch.no_grad():
        layer.weight.zero_()
        module.lora_down.weight.fill_(1 / 8)
        module.lora_up.weight.copy_(torch.eye(RANK))
    module.train()
    shared.set(torch.tensor([0]))
    values = layer(torch.ones(1, 4000, 8))[0]  # one value of each slot for each token
    assert set(values.unique().tolist()) == {0.0, 2.0}
    torch.testing.assert_close(values.mean(0), torch.ones(RANK), atol=0.06, rtol=0)


def test_a_slot_that_is_not_active_gets_no_gradient():
    model = fresh_model()
    network = create(model)
    network.prepare_grad_etc(None, None)
    network.train()
    network.on_timesteps(torch.tensor([999, 999]))
    noise_pred(model).square().mean().backward()
    for module in network.unet_loras:
        gradient = module.lora_up.weight.grad
        assert gradient is not None
        assert gradient[:, :LEAST].any()
        assert not gradient[:, LEAST:].any()


@pytest.mark.parametrize("start", ["random", "layer"])
def test_an_orthogonal_start_is_orthonormal_and_leaves_the_model_unchanged_at_every_timestep(start):
    model = fresh_model()
    before = output(model)
    network = create(model, t_start=start)
    for module in network.unet_loras:
        a, b = module.lora_down.weight.flatten(1).double(), module.lora_up.weight.flatten(1).double()
        torch.testing.assert_close(a @ a.T, torch.eye(RANK, dtype=torch.float64), rtol=0, atol=1e-5)
        torch.testing.assert_close(b.T @ b, torch.eye(RANK, dtype=torch.float64), rtol=0, atol=1e-5)
    if start == "layer":
        module = network.unet_loras[0]
        weight = module.org_module_ref[0].weight.flatten(1).double()
        along = module.lora_up.weight.flatten(1).double().T @ weight @ module.lora_down.weight.flatten(1).double().T
        values = torch.linalg.svdvals(weight)[:RANK]
        torch.testing.assert_close(along, torch.diag(values), rtol=1e-4, atol=1e-5)
    for is_training in (True, False):
        network.train(is_training)
        assert torch.equal(output(model), before)


def test_a_file_with_a_start_is_a_plain_lora_of_twice_the_rank_and_comes_back(tmp_path):
    model = fresh_model()
    network = create(model, t_start="random")
    with torch.no_grad():
        for module in network.unet_loras:
            module.lora_up.weight += 0.1 * torch.randn(module.lora_up.weight.shape)
    network.eval()
    expected = output(model)
    file = str(tmp_path / "t.safetensors")
    network.save_weights(file, None, {})
    name = network.unet_loras[0].lora_name
    assert load_file(file)[f"{name}.lora_down.weight"].shape[0] == 2 * RANK

    plain = fresh_model()
    encoder = text_encoder_of(plain)
    other, _ = lora.create_network_from_weights(1.0, file, plain.vae, encoder, plain.unet, for_inference=True)
    other.apply_to(encoder, plain.unet, False, True)
    other.load_weights(file)
    torch.testing.assert_close(output(plain), expected, rtol=1e-4, atol=1e-5)

    again = fresh_model()
    back = create(again, t_start="random", t_min_rank="1")
    back.load_weights(file)
    back.eval()
    torch.testing.assert_close(output(again), expected, rtol=1e-4, atol=1e-5)


def test_a_trainer_that_says_nothing_is_read_by_the_arguments_of_the_unet():
    model = fresh_model()
    network = create(model)
    network.train()
    output(model)
    assert network.timesteps.now is not None
    assert network.timesteps.now.tolist() == [3, 700]
    network.on_timesteps(torch.tensor([5, 6]))
    output(model)
    assert network.timesteps.now.tolist() == [5, 6]


def test_without_timesteps_or_with_those_of_another_batch_it_refuses_in_a_sentence():
    model = fresh_model()
    network = create(model)
    network.train()
    module = network.unet_loras[0]
    x = torch.randn(2, module.lora_down.weight.shape[1], *(1, 1)[: module.lora_down.weight.dim() - 2])
    with pytest.raises(RuntimeError, match=r"neither calls network\.on_timesteps"):
        module(x)
    network.on_timesteps(torch.tensor([1, 2, 3]))
    with pytest.raises(RuntimeError, match="3 timesteps for a batch of 2"):
        module(x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"t_start": "svd"}, "t_start must be zero, random or layer"),
        ({"t_min_rank": "x"}, "t_min_rank must be a whole"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        create(fresh_model(), **arguments)


def test_more_slots_than_directions_are_refused():
    model = fresh_model()
    encoder = text_encoder_of(model)
    with pytest.raises(ValueError, match="has no 64 orthogonal directions"):
        t_lora.create_network(1.0, 64, 1, model.vae, encoder, model.unet, t_start="random")
    network = create(model, t_start="random")
    with pytest.raises(ValueError, match="scale_weight_norms cannot be used"):
        network.prepare_network(SimpleNamespace(scale_weight_norms=1.0))


def test_ac_lora_by_timestep_masks_its_ordered_slots_and_keeps_its_files(tmp_path):
    model = fresh_model()
    encoder = text_encoder_of(model)
    arguments = {"ac_timesteps": "on", "ac_mode": "product", "ac_p": "0.9", "t_min_rank": "1"}
    network = ac_lora.create_network(1.0, RANK, RANK, model.vae, encoder, model.unet, **arguments)
    network.apply_to(encoder, model.unet, False, True)
    network.prepare_grad_etc(None, None)
    with torch.no_grad():
        for module in network.unet_loras:
            module.lora_up.weight.normal_()
    optimizer = torch.optim.SGD([torch.zeros(1)])
    network.on_progress(Progress(1, 2, 50, 100, loss_sum=1.0, relative_mse_sum=1.0, count=2, optimizer=optimizer))
    for module in network.unet_loras:
        a, b = module.lora_down.weight.flatten(1), module.lora_up.weight.flatten(1)
        kept = int(network.restarts[-1]["ranks"][module.lora_name])
        energies = (a.norm(dim=1) * b.norm(dim=0))[:kept]
        assert (energies.diff() <= 1e-6).all()  # what the first slots carry is largest
    network.train()
    network.on_timesteps(torch.tensor([999, 999]))
    noise_pred(model).square().mean().backward()
    assert all(not module.lora_up.weight.grad[:, 1:].any() for module in network.unet_loras)
    network.save_weights(str(tmp_path / "t.safetensors"), None, {})
    assert set(load_file(tmp_path / "t.safetensors")) == set(network.state_dict()) - {"_extra_state"}
    with pytest.raises(ValueError, match="subtracts where it started"):
        ac_lora.create_network(
            1.0, RANK, 1, model.vae, encoder, model.unet, base_module="networks.t_lora", t_start="random"
        )
    with pytest.raises(ValueError, match="leave base_module out"):
        ac_lora.create_network(
            1.0, RANK, 1, model.vae, encoder, model.unet, ac_timesteps="on", base_module="networks.lora"
        )


def test_a_run_tells_it_the_timesteps_and_resumes_exactly(train, tmp_path, monkeypatch):
    told = []
    whole = t_lora.TLoRANetwork.on_timesteps
    monkeypatch.setattr(
        t_lora.TLoRANetwork, "on_timesteps", lambda self, t: (told.append(t.tolist()), whole(self, t))[1]
    )
    options = {"network_module": "networks.t_lora", "network_args": ["t_start=random"], "network_train_unet_only": True}
    assert train(output_dir=tmp_path / "whole", max_train_steps=3, **options) == 0
    assert [len(timesteps) for timesteps in told] == [1, 2, 2]  # seven pictures leave one over
    assert train(output_dir=tmp_path / "parts", max_train_steps=2, save_state_on_train_end=True, **options) == 0
    assert train(output_dir=tmp_path / "parts", max_train_steps=3, resume="latest", **options) == 0
    one, other = (load_file(tmp_path / folder / "t.safetensors") for folder in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def imported_beside(monkeypatch, file: Path, other: Path):
    """`file` as imported where `networks.lora` is another trainer's, which lies in `other`."""
    theirs = ModuleType("networks.lora")
    theirs.__file__ = str(other)
    monkeypatch.setattr(networks, "lora", theirs)
    spec = importlib.util.spec_from_file_location("t_lora_elsewhere", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_where_another_trainers_lora_comes_first_the_one_beside_it_is_used(monkeypatch, tmp_path):
    (tmp_path / "lora.py").touch()
    elsewhere = imported_beside(monkeypatch, Path(t_lora.__file__), tmp_path / "lora.py")
    assert elsewhere.OPTIONS == t_lora.OPTIONS
    model = fresh_model()
    network = elsewhere.create_network(1.0, RANK, RANK, model.vae, text_encoder_of(model), model.unet)
    assert [lora.lora_name for lora in network.unet_loras] == [lora.lora_name for lora in create(model).unet_loras]


def test_a_copy_beside_another_trainers_lora_is_refused_with_what_to_do(monkeypatch, tmp_path):
    copied, theirs = tmp_path / "t_lora.py", tmp_path / "lora.py"
    copied.write_text(Path(t_lora.__file__).read_text(encoding="utf-8"), encoding="utf-8")
    theirs.touch()
    with pytest.raises(ImportError, match="put the folder it came in on PYTHONPATH instead of copying the file"):
        imported_beside(monkeypatch, copied, theirs)
