"""AC-LoRA as a network module: its options, when it makes RESTARTs, its state, its files, and what it says."""

import importlib
import json
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from networks import ac_lora, lora
from networks.ac_lora import length_problems
from networks.ac_lora_options import DEFAULTS, OPTIONS, read_options
from networks.ac_lora_report import block_of, place_in_unet, quantiles
from networks.ac_lora_schedule import planned_restarts


class CLIPMLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(12, 20)


class Transformer2DModel(nn.Module):
    """Takes the name by which network modules find what they train."""

    def __init__(self) -> None:
        super().__init__()
        self.proj_in = nn.Conv2d(6, 16, 1)
        self.attn1_to_q = nn.Linear(16, 16)
        self.ff = nn.Linear(16, 24)


class ResnetBlock2D(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(4, 6, 3, padding=1)


class SmallUNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down_blocks: Any = nn.ModuleList([ResnetBlock2D(), Transformer2DModel()])

    def forward(self, x: Tensor) -> Tensor:
        convolved, transformer = self.down_blocks[0].conv1(x), self.down_blocks[1]
        return transformer.ff(transformer.attn1_to_q(transformer.proj_in(convolved).flatten(2).mT))


def a_network(rank: int = 8, module: str = "networks.ac_lora", **arguments: Any) -> tuple[Any, nn.Module, SmallUNet]:
    """A network on a small text encoder and U-Net, applied and with a B that is not zero."""
    torch.manual_seed(0)
    text_encoder, unet = nn.Sequential(CLIPMLP()), SmallUNet()
    create = importlib.import_module(module).create_network
    network = create(1.0, rank, rank / 2, None, text_encoder, unet, conv_dim=str(rank), conv_alpha="2", **arguments)
    if hasattr(network, "prepare_network"):
        network.prepare_network(SimpleNamespace())
    network.apply_to(text_encoder, unet, True, True)
    network.prepare_grad_etc(text_encoder, unet)
    for lora_module in [*network.text_encoder_loras, *network.unet_loras]:
        fall = torch.logspace(0, -3, lora_module.lora_up.weight.shape[1])
        lora_module.lora_up.weight.data = torch.randn_like(lora_module.lora_up.weight)
        lora_module.lora_up.weight.data *= fall.reshape(1, -1, *[1] * (lora_module.lora_up.weight.dim() - 2))
    return network, text_encoder, unet


def progress(epochs: int, total: int, steps_per_epoch: int = 100, loss: float = 0.2, **more: Any) -> SimpleNamespace:
    count = more.pop("count", steps_per_epoch)
    facts = {
        "epochs_done": epochs, "total_epochs": total, "global_step": epochs * steps_per_epoch,
        "total_steps": total * steps_per_epoch, "loss_sum": loss * count, "relative_mse_sum": 2 * loss * count,
        "count": count, "optimizer": None,
    }  # fmt: skip
    return SimpleNamespace(**(facts | more))


def run(network: Any, total: int, steps_per_epoch: int = 100) -> list[int]:
    """The epochs after which a run of `total` epochs makes a RESTART; the hook comes only where a step is left."""
    events = [network.on_progress(progress(epoch, total, steps_per_epoch)) for epoch in range(1, total)]
    return [event["epoch"] for event in events if event]


def deltas(network: Any) -> dict[str, Tensor]:
    return {m.lora_name: m.delta() for m in [*network.text_encoder_loras, *network.unet_loras]}


def delta_of(tensors: dict[str, Tensor], name: str) -> Tensor:
    """(alpha / rank) B A of a file's module, as any loader computes it."""
    down, up = tensors[f"{name}.lora_down.weight"].float(), tensors[f"{name}.lora_up.weight"].float()
    return up.flatten(1) @ down.flatten(1) * (float(tensors[f"{name}.alpha"]) / down.shape[0])


# --- options


def test_the_mode_sets_defaults_and_every_one_can_be_given():
    paper, rest = read_options({"conv_dim": "4"})
    assert rest == {"conv_dim": "4"}
    assert (paper.mode, paper.p, paper.p_bounds, paper.loss, paper.min_steps) == ("paper", None, (0, 1), "raw", 0)
    product, _ = read_options({"ac_mode": "product"})
    assert (product.p, product.p_bounds, product.loss, product.min_steps) == (0.9, (0.8, 0.95), "fvu", 50)
    assert (product.choices.noise, product.choices.noise_scale, str(product.export)) == ("tail", 0.1, "energy:0.999")
    mixed, _ = read_options({"ac_mode": "product", "ac_p": "auto", "ac_noise": "none", "ac_shrink": "soft"})
    assert mixed.p is None
    assert mixed.choices.noise == "none"
    assert mixed.choices.soft


def test_a_minimum_of_steps_holds_for_automatic_epochs_only_unless_it_is_given():
    assert read_options({"ac_mode": "product", "ac_every_n_epochs": "3"})[0].min_steps == 0
    assert read_options({"ac_mode": "product", "ac_every_n_epochs": "3", "ac_min_steps": "9"})[0].min_steps == 9


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"ac_mod": "product"}, "ac_mod is not an option of AC-LoRA; did you mean ac_mode"),
        ({"export_rnk": "full"}, "did you mean export_rank"),
        ({"ac_mode": "produkt"}, "ac_mode must be paper or product, not 'produkt'"),
        ({"ac_p": "1.5"}, "ac_p must be auto or a number from 0 to 1, not '1.5'"),
        ({"ac_every_n_epochs": "2.5"}, "ac_every_n_epochs must be auto or a whole number of at least 0"),
        ({"ac_every_n_epochs": "2", "ac_every_n_steps": "10"}, "exclude each other"),
        ({"ac_p_min": "0.9", "ac_p_max": "0.8"}, "ac_p_min = 0.9 is above ac_p_max = 0.8"),
        ({"export_rank": "energy:2"}, "export_rank must be full, found, energy:"),
        ({"ac_first_epoch": "maybe"}, "ac_first_epoch must be true or false"),
        ({"rank_pattern": "4"}, "rank_pattern must be JSON"),
        ({"rank_pattern": '{"a": -1}'}, "rank_pattern must be JSON"),
    ],
)
def test_wrong_options_are_refused_with_a_sentence(given, sentence):
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(")):
        read_options(given)


def test_all_that_is_wrong_is_reported_at_once():
    with pytest.raises(ValueError, match=r"ac_mode must.*ac_noise must.*ac_seed must"):
        read_options({"ac_mode": "x", "ac_noise": "y", "ac_seed": "z"})


def test_an_unknown_option_of_the_base_module_is_refused_by_it():
    with pytest.raises(ValueError, match="conv_dimm is not an option"):
        a_network(conv_dimm="4")


def test_the_declared_options_are_ours_and_the_base_modules():
    assert {**lora.OPTIONS, **OPTIONS} == ac_lora.OPTIONS == ac_lora.known_options({})
    assert ac_lora.known_options({"base_module": "networks.ac_lora_report"}) is None  # it does not say
    assert set(DEFAULTS["paper"]) <= set(OPTIONS)


# --- when


@pytest.mark.parametrize(
    ("arguments", "total", "steps_per_epoch", "expected"),
    [
        ({}, 100, 4, [1, 11, 21, 31, 41, 51, 61, 71, 81, 91]),  # the paper's run
        ({"ac_mode": "product"}, 100, 6, [1, 11, 21, 31, 41, 51, 61, 71, 81, 91]),
        ({"ac_mode": "product"}, 100, 4, [1, 14, 27, 40, 53, 66, 79, 92]),  # never less than 50 steps apart
        ({}, 12, 5, list(range(1, 12))),
        ({"ac_every_n_epochs": "3"}, 12, 5, [1, 4, 7, 10]),
        ({"ac_every_n_epochs": "3", "ac_first_epoch": "false"}, 12, 5, [4, 7, 10]),
        ({"ac_every_n_epochs": "0"}, 12, 5, []),
        ({}, 1, 50, []),
        ({}, 2, 2, [1]),
    ],
)
def test_restarts_come_after_these_epochs_and_as_many_as_were_announced(arguments, total, steps_per_epoch, expected):
    network, _, _ = a_network(**arguments)
    lines = network.announce(total, total * steps_per_epoch)
    planned = planned_restarts(network.options, total, total * steps_per_epoch, steps_per_epoch)
    assert planned == len(expected) or not expected
    assert run(network, total, steps_per_epoch) == expected
    if len(expected) > 3:
        assert any(f"will make {len(expected)} RESTARTs" in line for line in lines)


def test_restarts_can_be_counted_in_steps():
    network, _, _ = a_network(ac_every_n_steps="30", ac_p="0.9")
    assert network.progress_every_n_steps == 30
    made = []
    for step in sorted({*range(30, 200, 30), 50, 100, 150}):  # the hook comes after epochs too
        made.append(network.on_progress(progress(step // 50, 4, global_step=step, total_steps=200)))
    assert [event["step"] for event in made if event] == [30, 60, 90, 120, 150, 180]
    assert planned_restarts(network.options, 4, 200, 50) == 6


def test_too_few_restarts_are_announced_with_what_to_set():
    few, none = a_network(ac_every_n_epochs="5")[0], a_network(ac_first_epoch="false")[0]
    assert any("will make only 2 RESTARTs in 8 epochs of 80 steps" in line for line in few.announce(8, 80))
    assert any("can make no RESTART" in line and "ac_every_n_epochs" in line for line in none.announce(2, 80))


@pytest.mark.parametrize(
    ("arguments", "epochs", "steps", "every"),
    [
        ({}, 1, 1600, 160),
        ({"ac_mode": "product"}, 1, 400, 50),
        ({"ac_first_epoch": "false"}, 2, 160, 50),
        ({"ac_first_epoch": "false"}, 2, 80, None),  # too short, and refused
        ({}, 10, 1600, None),
        ({"ac_every_n_epochs": "2", "ac_first_epoch": "false"}, 1, 1600, None),
    ],
)
def test_a_run_without_epochs_enough_has_its_restarts_by_steps(arguments, epochs, steps, every):
    network, _, _ = a_network(**arguments)
    network.announce(epochs, steps)
    assert network.progress_every_n_steps == network.options.every_n_steps == every


def test_a_long_epoch_makes_nine_restarts_by_steps():
    network, _, _ = a_network(ac_p="0.9")
    assert network.announce(1, 1600)[-1].endswith(
        "will make 9 RESTARTs in 1 epoch of 1600 steps altogether, one every 160 steps"
    )
    made = [network.on_progress(progress(0, 1, global_step=s, total_steps=1600)) for s in range(160, 1601, 160)]
    assert [event["step"] for event in made if event] == list(range(160, 1600, 160))


@pytest.mark.parametrize(
    ("arguments", "epochs", "steps", "refused"),
    [
        ({}, 1, 99, True),
        ({}, 1, 100, False),
        ({"ac_every_n_epochs": "9", "ac_first_epoch": "false"}, 8, 800, True),
        ({"ac_every_n_steps": "800"}, 8, 800, True),
        ({"ac_every_n_epochs": "0"}, 1, 3, False),
        ({"rank_pattern": '{"lora_unet_a": 1}'}, 1, 3, False),
    ],
)
def test_a_length_without_a_restart_is_known_before_the_run(arguments, epochs, steps, refused):
    assert bool(length_problems(arguments, epochs, steps)) == refused


def test_a_run_that_made_no_restart_is_called_a_failure():
    network, _, _ = a_network()
    with pytest.raises(RuntimeError, match="made no RESTART"):
        network.conclude()
    network.on_progress(progress(1, 10))
    network.conclude()
    a_network(ac_every_n_epochs="0")[0].conclude()  # none was wanted


def test_the_paper_mode_says_what_it_does_not_do():
    assert any("follow the maximum rank" in line for line in a_network()[0].announce(100, 1000))
    assert not any("follow the maximum rank" in line for line in a_network(ac_mode="product")[0].announce(100, 1000))


# --- RESTART


def test_the_threshold_follows_the_mean_loss_since_the_last_restart():
    network, _, _ = a_network(ac_every_n_epochs="2")
    first = network.on_progress(progress(1, 5, loss=0.3))
    assert (first["p"], first["loss"]) == (pytest.approx(0.7), pytest.approx(0.3))
    assert network.on_progress(progress(2, 5, loss=0.2)) is None
    second = network.on_progress(progress(3, 5, loss=0.1))
    assert second["loss"] == pytest.approx(0.15)
    assert second["p"] == pytest.approx(1 - 0.15**1.5)


def test_fvu_follows_the_unweighted_error_and_keeps_p_in_its_bounds():
    network, _, _ = a_network(ac_mode="product", ac_p="auto", ac_every_n_epochs="1")
    assert network.on_progress(progress(1, 5, loss=0.06))["p"] == pytest.approx(0.88)
    assert network.on_progress(progress(2, 5, loss=0.4))["p"] == 0.8


def test_a_loss_above_one_is_warned_of_once(caplog):
    network, _, _ = a_network(ac_every_n_epochs="1")
    assert network.on_progress(progress(1, 5, loss=3.0))["p"] == 0
    network.on_progress(progress(2, 5, loss=3.0))
    assert sum("loss is 3" in record.message for record in caplog.records) == 1


def test_without_a_loss_it_refuses_unless_p_is_given():
    with pytest.raises(RuntimeError, match=r"shows it none: set ac_p"):
        a_network()[0].on_progress(progress(1, 5, count=0))
    assert a_network(ac_p="0.8")[0].on_progress(progress(1, 5, count=0))["loss"] is None


def test_the_event_says_what_became_of_every_module():
    network, _, _ = a_network(ac_mode="product")
    event = network.on_progress(progress(1, 10))
    assert list(event["ranks"]) == list(event["energy"]) == [m.name for m in network.matrices()]
    assert (event["event"], event["restart"], event["epoch"], event["p"]) == ("restart", 1, 1, 0.9)
    assert event["mean_rank"] == pytest.approx(sum(event["ranks"].values()) / len(event["ranks"]))
    assert all(1 <= rank <= 8 for rank in event["ranks"].values())
    assert all(0.9 <= share <= 1 for share in event["energy"].values())
    assert json.loads(json.dumps(event)) == event


def test_modules_that_are_not_trained_are_left_alone():
    network, text_encoder, unet = a_network()
    groups, _ = network.prepare_optimizer_params(0.0, 1e-3, 1e-3)
    network.prepare_grad_etc(text_encoder, unet)
    assert groups
    before = {name: tensor.clone() for name, tensor in network.state_dict().items() if "lora_te" in name}
    assert not any("lora_te" in name for name in network.on_progress(progress(1, 10))["ranks"])
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in before.items())


def test_a_network_that_has_learned_nothing_yet_makes_no_restart():
    network, _, _ = a_network()
    for module in network.matrices():
        module.up.data.zero_()
    assert network.on_progress(progress(1, 10)) is None
    assert not network.restarts


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_changes_ranks_by_a_rounding_at_most_and_no_counter(dtype):
    one, other = a_network(ac_mode="product")[0], a_network(ac_mode="product")[0].to(dtype)
    for network in (one, other):
        network.on_progress(progress(257, 3000, 3))
        network.on_progress(progress(301, 3000, 3))
    assert [e["epoch"] for e in other.restarts] == [301] == [e["epoch"] for e in one.restarts]
    ranks = [list(network.restarts[0]["ranks"].values()) for network in (one, other)]
    assert max(abs(a - b) for a, b in zip(*ranks, strict=True)) <= 1
    again = a_network(ac_mode="product")[0].to(dtype)
    again.load_state_dict(other.state_dict())
    assert again.restarts == other.restarts
    assert again.epochs_seen == 301


def test_the_state_carries_the_window_and_all_restarts():
    one, again = a_network()[0], a_network()[0]
    for epoch in range(1, 15):
        one.on_progress(progress(epoch, 40, loss=1 / (epoch + 2)))
    again.load_state_dict(one.state_dict(), strict=True)
    assert (again.window, again.restarts) == (one.window, one.restarts)
    assert one.on_progress(progress(15, 40)) is again.on_progress(progress(15, 40)) is None
    assert one.on_progress(progress(17, 40)) == again.on_progress(progress(17, 40))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))


# --- files


def test_a_cut_file_has_the_same_update_within_what_was_promised(tmp_path):
    for share in (0.9, 0.999, 1.0):
        network, _, _ = a_network(export_rank=f"energy:{share}")
        expected = deltas(network)
        network.save_weights(str(tmp_path / "cut.safetensors"), None, {"ss_note": "x"})
        tensors = load_file(tmp_path / "cut.safetensors")
        assert not any("_extra_state" in name for name in tensors)
        assert len({float(tensor) for name, tensor in tensors.items() if name.endswith("alpha")}) == 1
        for name, delta in expected.items():
            missing = (delta_of(tensors, name) - delta.flatten(1)).norm()
            assert missing <= (math.sqrt(1 - share) + 1e-5) * delta.norm()
            assert tensors[f"{name}.lora_down.weight"].shape[1:] == getattr(network, name).lora_down.weight.shape[1:]
    assert tensors[f"{name}.lora_up.weight"].dtype == torch.float32


def test_full_files_are_the_base_modules_to_the_bit(tmp_path):
    network, _, _ = a_network(export_rank="full")
    plain, _, _ = a_network(module="networks.lora")
    plain.load_state_dict({name: t for name, t in network.state_dict().items() if "_extra" not in name})
    for one, file in ((network, "a.safetensors"), (plain, "b.safetensors")):
        one.save_weights(str(tmp_path / file), torch.float16, {})
    one, other = load_file(tmp_path / "a.safetensors"), load_file(tmp_path / "b.safetensors")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_file_can_have_the_ranks_that_were_found_or_one_rank(tmp_path):
    found, _, _ = a_network(export_rank="found", ac_mode="product")
    ranks = found.on_progress(progress(1, 10))["ranks"]
    found.save_weights(str(tmp_path / "found.safetensors"), None, None)
    tensors = load_file(tmp_path / "found.safetensors")
    assert {name: tensors[f"{name}.lora_down.weight"].shape[0] for name in ranks} == ranks
    fixed, _, _ = a_network(export_rank="3")
    fixed.save_weights(str(tmp_path / "three.pt"), None, None)
    tensors = torch.load(tmp_path / "three.pt", weights_only=True)
    assert {t.shape[0] for name, t in tensors.items() if "lora_down" in name} == {3}


def test_the_file_says_what_was_done(tmp_path):
    network, _, _ = a_network(ac_mode="product", ac_every_n_epochs="1")
    for epoch in (1, 2):
        network.on_progress(progress(epoch, 10))
    network.save_weights(str(tmp_path / "x.safetensors"), None, {"ss_note": "x"})
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        metadata = file.metadata()
    assert (metadata["ss_ac_lora_mode"], metadata["ss_ac_lora_export"]) == ("product", "energy:0.999")
    restarts, ranks = json.loads(metadata["ss_ac_lora_restarts"]), json.loads(metadata["ss_ac_lora_ranks"])
    assert [(entry["epoch"], entry["p"]) for entry in restarts] == [(1, 0.9), (2, 0.9)]
    tensors = load_file(tmp_path / "x.safetensors")
    assert ranks == {name: tensors[f"{name}.lora_down.weight"].shape[0] for name in ranks}
    assert metadata["ss_note"] == "x"
    network.trainer_options.no_metadata = True
    network.save_weights(str(tmp_path / "y.safetensors"), None, {})
    with safe_open(tmp_path / "y.safetensors", "pt") as file:
        assert not any("ac_lora" in name for name in file.metadata() or {})


def test_going_on_from_a_cut_file_fills_up_to_the_maximum_rank(tmp_path):
    network, _, _ = a_network(export_rank="energy:0.99")
    network.save_weights(str(tmp_path / "cut.safetensors"), None, {})
    again, _, _ = a_network(rank=12)  # another alpha / rank of its convolution too
    result = again.load_weights(str(tmp_path / "cut.safetensors"))
    assert not result.missing_keys
    tensors = load_file(tmp_path / "cut.safetensors")
    for module in again.matrices():
        assert module.down.shape[0] == 12
        assert module.down.flatten(1).any(1).all()  # fresh rows of A, so that every slot can be trained
        assert not module.up[:, tensors[f"{module.name}.lora_up.weight"].shape[1] :].any()
        assert torch.allclose(deltas(again)[module.name].flatten(1), delta_of(tensors, module.name), atol=1e-5)


def test_a_file_that_does_not_fit_is_refused(tmp_path):
    network, _, _ = a_network(export_rank="full")
    network.save_weights(str(tmp_path / "x.safetensors"), None, {})
    with pytest.raises(ValueError, match=r"has rank 8 in .* but 4 here: set network_dim to 8"):
        a_network(rank=4)[0].load_weights(str(tmp_path / "x.safetensors"))
    torch.save({"other.lora_down.weight": torch.zeros(2, 3)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="belongs to this network"):
        network.load_weights(str(tmp_path / "other.pt"))


def test_a_network_from_a_files_ranks_trains_on_and_is_plain_for_inference(tmp_path):
    network, _, _ = a_network(export_rank="energy:0.99")
    file = str(tmp_path / "x.safetensors")
    network.save_weights(file, None, {})
    text_encoder, unet = nn.Sequential(CLIPMLP()), SmallUNet()
    plain, _ = ac_lora.create_network_from_weights(1.0, file, None, text_encoder, unet, for_inference=True)
    assert type(plain) is lora.LoRANetwork
    trained, _ = ac_lora.create_network_from_weights(1.0, file, None, text_encoder, unet, ac_mode="product")
    assert isinstance(trained, ac_lora.ACLoRANetwork)
    assert trained.sizes() == {name: t.shape[0] for name, t in ranks_in(file).items()}


def ranks_in(file: str) -> dict[str, Tensor]:
    return {name.partition(".")[0]: t for name, t in load_file(file).items() if "lora_down" in name}


def test_a_rank_pattern_trains_fixed_ranks_at_the_same_scale(tmp_path):
    names = [module.name for module in a_network()[0].matrices()]
    pattern = dict(zip(names, (3, 5, 0, 2, 8), strict=False))
    (tmp_path / "pattern.json").write_text(json.dumps(pattern), encoding="utf-8")
    for given in (json.dumps(pattern), str(tmp_path / "pattern.json")):
        network, _, unet = a_network(rank_pattern=given)
        assert type(network) is lora.LoRANetwork
        modules = [*network.text_encoder_loras, *network.unet_loras]
        assert {m.lora_name: m.lora_dim for m in modules} == {name: rank for name, rank in pattern.items() if rank}
        for module in modules:
            scale = 2 / 8 if "conv1" in module.lora_name else 4 / 8
            assert module.scale == pytest.approx(scale) == pytest.approx(float(module.alpha) / module.lora_dim)
        unet(torch.randn(1, 4, 5, 5)).sum().backward()
        assert all(p.grad is not None for name, p in network.named_parameters() if "unet" in name)
    with pytest.raises(ValueError, match="set network_dim to 9 or more"):
        a_network(rank_pattern=json.dumps({names[0]: 9}))
    with pytest.raises(ValueError, match="no module of rank_pattern"):
        a_network(rank_pattern='{"other": 3}')


def test_the_file_of_a_finished_run_is_a_rank_pattern(tmp_path):
    network, _, _ = a_network(export_rank="energy:0.99")
    file = str(tmp_path / "x.safetensors")
    network.save_weights(file, None, {})
    again, _, _ = a_network(rank_pattern=file)
    sizes = {m.lora_name: m.lora_dim for m in [*again.text_encoder_loras, *again.unet_loras]}
    assert sizes == {name: t.shape[0] for name, t in ranks_in(file).items()}


# --- base modules


def test_plain_training_and_ours_without_restarts_are_the_same_to_the_bit():
    outputs = []
    cases: list[tuple[str, dict[str, Any]]] = [("networks.lora", {}), ("networks.ac_lora", {"ac_every_n_epochs": "0"})]
    for module, more in cases:
        network, text_encoder, unet = a_network(module=module, dropout="0.2", **more)
        groups, _ = network.prepare_optimizer_params(None, 1e-2, 1e-2)
        optimizer = torch.optim.AdamW(groups)
        torch.manual_seed(1)
        for epoch in range(1, 4):
            network.on_epoch_start(text_encoder, unet)
            getattr(network, "on_step_start", lambda *_: None)(text_encoder, unet)
            unet(torch.randn(2, 4, 5, 5)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            if hasattr(network, "on_progress"):
                assert network.on_progress(progress(epoch, 5)) is None
        outputs.append([p.detach().clone() for p in network.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*outputs, strict=True))


def test_lycoris_locon_is_a_base_module(tmp_path):
    pytest.importorskip("lycoris")
    torch.manual_seed(0)
    text_encoder, unet = nn.Sequential(CLIPMLP()), SmallUNet()
    arguments = {
        "base_module": "lycoris.kohya",
        "algo": "lora",
        "conv_dim": "6",
        "preset": "full",
        "ac_mode": "product",
    }
    network: Any = ac_lora.create_network(1.0, 6, 3, None, text_encoder, unet, **arguments)
    network.apply_to(text_encoder, unet, True, True)
    network.prepare_grad_etc(text_encoder, unet)
    for module in network.matrices():
        nn.init.normal_(module.up)
    before = {m.name: (m.up.flatten(1) @ m.down.flatten(1)).detach() for m in network.matrices()}
    assert before
    network.save_weights(str(tmp_path / "x.safetensors"), None, {})
    tensors = load_file(tmp_path / "x.safetensors")
    assert {name.partition(".")[0] for name in tensors} == set(before)
    for name, product in before.items():
        assert (delta_of(tensors, name) - product * 0.5).norm() < 0.04 * product.norm()
    event = network.on_progress(progress(1, 10))
    assert set(event["ranks"]) == set(before)


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda m: setattr(m, "scale", m.scale * 3), "not by alpha / rank"),
        (lambda m: setattr(m, "lora_mid", nn.Conv2d(2, 2, 3)), "third factor"),
        (lambda m: setattr(m, "scalar", nn.Parameter(torch.ones(()))), "DoRA, use_scalar"),
        (lambda m: delattr(m, "lora_up"), "without the layers lora_down and lora_up"),
    ],
)
def test_modules_whose_update_is_not_a_scaled_product_are_refused(break_it, sentence):
    network, _, _ = a_network(module="networks.lora")
    break_it(network.unet_loras[1])
    options, _ = read_options({})
    with pytest.raises(ValueError, match=sentence):
        ac_lora.restarting(network, options)


def test_a_base_module_that_does_not_exist_is_refused_by_name():
    with pytest.raises(ValueError, match=r"base_module = networks\.lorra` cannot be found"):
        a_network(base_module="networks.lorra")
    assert ac_lora.known_options({"base_module": "networks.lorra"}) is None


def test_a_network_without_the_lists_of_modules_is_refused():
    with pytest.raises(ValueError, match="has no unet_loras"):
        ac_lora.restarting(nn.Linear(2, 2), read_options({})[0])


# --- what it says


def test_the_end_says_what_a_person_wants_to_know(tmp_path):
    network, _, _ = a_network(ac_mode="product", ac_every_n_epochs="1", export_rank="2")
    assert network.findings() == ["AC-LoRA made no RESTART"]
    events = [network.on_progress(progress(epoch, 5)) for epoch in (1, 2, 3)]
    network.save_weights(str(tmp_path / "x.safetensors"), None, {})
    first, second, third, fourth = network.findings()
    cut = sum(8 - rank for event in events for rank in event["ranks"].values())
    assert f"made 3 RESTARTs and cut {cut} of {3 * 5 * 8} ranks" in first
    assert "needed most in" in second
    assert "Of the maximum rank 8 the modules used" in third
    assert fourth.endswith("4.0 times smaller")


def test_the_pictures_are_a_heat_map_of_ranks_and_their_course_over_the_depth():
    network, _, _ = a_network(ac_mode="product", ac_every_n_epochs="1")
    assert network.figures() == {}
    events = [network.on_progress(progress(epoch, 5)) for epoch in (1, 2)]
    figures = network.figures()
    ranks = figures["heat_maps"]["ranks"]
    assert sorted(ranks["rows"]) == sorted(events[0]["ranks"])
    assert list(dict.fromkeys(ranks["groups"])) == ["text encoder", "down_blocks_0", "down_blocks_1"]  # forward pass
    assert ranks["columns"] == ["1", "2"]
    assert dict(zip(ranks["rows"], [row[1] for row in ranks["values"]], strict=True)) == events[1]["ranks"]
    depth = figures["series"]["rank_over_depth"]
    assert all(len(line) == len(depth["x"]) for line in depth["lines"].values())
    assert "projection" in depth["lines"]


def test_blocks_are_named_and_ordered_as_a_person_would():
    assert block_of("lora_te1_text_model_encoder_layers_0_mlp_fc1") == "text encoder 1"
    assert block_of("lora_unet_down_blocks_0_attentions_1_proj_in") == "down_blocks_0"
    assert block_of("lora_unet_input_blocks_10_1_proj_in") == "input_blocks_10"
    names = [f"lora_unet_{name}_x" for name in ("up_blocks_0", "mid_block", "down_blocks_10", "down_blocks_2")]
    assert sorted(names, key=place_in_unet) == names[::-1]
    assert quantiles([9, 1, 3, 5, 7]) == [1, 3, 5, 7, 9]
