"""networks.lora: its arithmetic against float64, its options, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from networks import lora

ROOT = Path(__file__).parents[2]


class Transformer2DModel(nn.Module):  # the name decides
    def __init__(self):
        super().__init__()
        self.proj_in = nn.Conv2d(6, 10, 1)
        self.to_q = nn.Linear(10, 7)


class ResnetBlock2D(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(7, 9, 3, stride=2, padding=1)
        self.time_emb_proj = nn.Linear(5, 9)


class CLIPMLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(4, 6)


class UNet(nn.Module):
    """One block of each kind, at places that block numbers are known for."""

    def __init__(self):
        super().__init__()
        block = nn.ModuleDict(
            {"attentions": nn.ModuleList([Transformer2DModel()]), "resnets": nn.ModuleList([ResnetBlock2D()])}
        )
        self.down_blocks = nn.ModuleList([block])
        self.conv_out = nn.Conv2d(9, 9, 3)  # in no targeted class

    def forward(self, x):  # (batch, 6, h, w) -> (batch, 9, h / 2, w / 2)
        block: Any = self.down_blocks[0]
        attention, resnet = block["attentions"][0], block["resnets"][0]
        x = attention.proj_in(x).movedim(1, -1)
        x = attention.to_q(x).movedim(-1, 1)
        return resnet.conv1(x) + resnet.time_emb_proj(torch.ones(1, 5)).view(1, -1, 1, 1)


class TextEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.mlp = CLIPMLP()

    def forward(self, x):
        return self.mlp.fc1(x)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def make(
    dim: Any = 3, alpha: Any = 2, *, unet: Any = None, two: Any = False, apply: Any = True, **arguments: Any
) -> tuple[lora.LoRANetwork, Any, Any]:
    """A network on small models; B is random, so that it changes something."""
    text = [TextEncoder(), TextEncoder()] if two else TextEncoder()
    unet = unet or UNet()
    network = lora.create_network(1.0, dim, alpha, None, text, unet, **arguments)
    if apply:
        network.apply_to(text, unet, True, True)
    for module in network.loras:
        nn.init.normal_(module.lora_up.weight)
    return network, text, unet


@torch.no_grad()
def effective_weight(module: lora.LoRAModule, multiplier: float) -> torch.Tensor:
    """W + multiplier * (alpha / r) * B A in float64, written out index by index."""
    weight = module.org_module_ref[0].weight.detach().double()
    up, down = module.lora_up.weight.detach().double(), module.lora_down.weight.detach().double()
    rank = down.shape[0]
    delta = torch.zeros_like(weight).reshape(weight.shape[0], -1)
    for i in range(rank):
        delta += torch.outer(up.reshape(weight.shape[0], rank)[:, i], down.reshape(rank, -1)[i])
    return weight + multiplier * float(module.alpha) / rank * delta.reshape(weight.shape)


# --- arithmetic


@given(rank=st.integers(1, 12), alpha=st.sampled_from([0.25, 1.0, 3.0, 16.0]), multiplier=st.floats(-2, 2))
@settings(max_examples=25, deadline=None)
def test_the_forward_pass_equals_a_float64_reference(rank, alpha, multiplier):
    torch.manual_seed(rank)
    network, _, unet = make(rank, alpha, conv_dim=str(rank), conv_alpha=str(alpha))
    network.set_multiplier(multiplier)
    x = torch.randn(2, 6, 8, 8)
    found = unet(x).detach()
    assert len(network.unet_loras) == 4

    def weight(ending: str) -> torch.Tensor:
        return effective_weight(next(m for m in network.unet_loras if m.lora_name.endswith(ending)), multiplier)

    block: Any = unet.down_blocks[0]
    attention, resnet = block["attentions"][0], block["resnets"][0]
    y = nn.functional.conv2d(x.double(), weight("proj_in"), attention.proj_in.bias.double())
    y = nn.functional.linear(y.movedim(1, -1), weight("to_q"), attention.to_q.bias.double()).movedim(-1, 1)
    y = nn.functional.conv2d(y, weight("conv1"), resnet.conv1.bias.double(), stride=2, padding=1)
    t = nn.functional.linear(torch.ones(1, 5).double(), weight("time_emb_proj"), resnet.time_emb_proj.bias.double())
    expected = (y + t.view(1, -1, 1, 1)).detach()
    assert torch.allclose(found.double(), expected, atol=1e-5 * float(expected.abs().max()))


def test_merged_weights_are_the_reference_and_come_back_after_inference():
    network, _, unet = make(conv_dim="2")
    x = torch.randn(1, 6, 8, 8)
    applied = unet(x)
    before = [module.org_module_ref[0].weight.clone() for module in network.loras]
    expected = [effective_weight(module, 1.0) for module in network.loras]
    network.backup_weights()
    network.pre_calculation()
    for module, reference in zip(network.loras, expected, strict=True):
        assert torch.allclose(module.org_module_ref[0].weight.double(), reference, atol=1e-6)
    assert torch.allclose(unet(x), applied, atol=1e-5)
    network.restore_weights()
    assert all(torch.equal(m.org_module_ref[0].weight, b) for m, b in zip(network.loras, before, strict=True))
    assert torch.equal(unet(x), applied)


def test_merging_keeps_the_dtype_of_the_model_but_not_its_precision():
    """A half-precision base: the sum is made in float32 and rounded once."""
    network, text, unet = make(apply=False, conv_dim="2")
    tensors = {f"{m.lora_name}.{k}": v for m in network.loras for k, v in m.state_dict().items()}
    expected = [effective_weight(module, 1.0) for module in network.loras]
    unet.to(torch.bfloat16)
    text.to(torch.bfloat16)
    network.merge_to(text, unet, tensors, torch.bfloat16, "cpu")
    for module, reference in zip(network.loras, expected, strict=True):
        assert module.org_module_ref[0].weight.dtype == torch.bfloat16
        # base and sum are each rounded to 8 bits
        error = (module.org_module_ref[0].weight.double() - reference).abs().max()
        assert error <= 2**-7 * reference.abs().max()


@torch.no_grad()
def update_norms(network: lora.LoRANetwork) -> list[float]:
    return [float((effective_weight(m, 1.0) - m.org_module_ref[0].weight).norm()) for m in network.loras]


def test_the_largest_norm_is_the_frobenius_norm_of_the_whole_update():
    network, _, _ = make(conv_dim="2")
    norms = update_norms(network)
    scaled, mean, largest = network.apply_max_norm_regularization(1e9, "cpu")
    assert (scaled, mean, largest) == (0, pytest.approx(sum(norms) / len(norms), 1e-5), pytest.approx(max(norms), 1e-5))
    limit = sorted(norms)[1] * 1.01  # two stay, the others shrink to it
    scaled, _, largest = network.apply_max_norm_regularization(limit, "cpu")
    assert (scaled, largest) == (len(norms) - 2, pytest.approx(limit, rel=1e-5))
    assert update_norms(network) == pytest.approx([min(norm, limit) for norm in norms], rel=1e-5)


@pytest.mark.parametrize("kind", ["dropout", "rank_dropout", "module_dropout"])
def test_dropout_is_unbiased_in_training_and_absent_otherwise(kind):
    """Mean over many draws equals no dropout (module dropout keeps a fraction 1 - p of the update)."""
    network, text, _ = make(**{kind: "0.5"})
    x = torch.randn(4000, 4)
    network.eval()
    still = text(x[:1])
    base = still - network.text_encoder_loras[0].delta() @ x[0]
    network.train()
    same = x[:1].expand(4000, 4)
    draws = torch.cat([text(same[i : i + 10]) for i in range(0, 4000, 10)])
    assert draws.std(0).max() > 0.05
    fraction = 0.5 if kind == "module_dropout" else 1.0
    expected = base + fraction * (still - base)
    assert torch.allclose(draws.mean(0), expected[0], atol=5 * float(draws.detach().std(0).max()) / 400**0.5)
    if kind == "module_dropout":
        assert {bool(torch.allclose(row, base[0], atol=1e-6)) for row in draws} == {True, False}
    if kind == "rank_dropout":
        assert len({tuple(row.tolist()) for row in draws.round(decimals=4)}) <= 2**3  # each rank is in or out


def test_rank_dropout_drops_whole_channels_of_a_convolution():
    network, _, unet = make(conv_dim="3", rank_dropout="0.5")
    module = next(m for m in network.unet_loras if m.lora_name.endswith("conv1"))
    network.train()
    seen = []
    module.lora_up.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    unet(torch.randn(8, 6, 8, 8))
    zero = (seen[0] == 0).flatten(2)  # (batch, rank, height * width)
    assert torch.equal(zero.all(-1), zero.any(-1))
    assert 0 < int(zero.all(-1).sum()) < zero.shape[0] * zero.shape[1]


def test_under_autocast_the_result_has_the_layers_own_dtype():
    _, text, _ = make()
    with torch.autocast("cpu", torch.bfloat16):
        assert text(torch.randn(2, 4)).dtype == torch.bfloat16
    assert text(torch.randn(2, 4)).dtype == torch.float32


# --- ranks, alphas, rates


def test_a_kernel_of_one_counts_as_linear_and_wide_ones_need_conv_dim():
    plain, _, _ = make(3)
    assert {m.lora_name.split("_0_")[-1] for m in plain.unet_loras} == {"proj_in", "to_q"}
    with_conv, _, _ = make(3, conv_dim="2")
    ranks = {m.lora_name.split("_0_")[-1]: m.lora_dim for m in with_conv.unet_loras}
    assert ranks == {"proj_in": 3, "to_q": 3, "conv1": 2, "time_emb_proj": 3}
    assert len(make(3, conv_dim="0", conv_alpha="0")[0].unet_loras) == 2  # as some configs write "off"


@pytest.mark.parametrize(
    ("dim", "alpha", "rank", "scale"), [(None, None, 4, 0.25), (8, None, 8, 0.125), (16, 0, 16, 1.0), (8, 4.0, 8, 0.5)]
)
def test_default_rank_is_4_default_alpha_1_and_alpha_0_is_the_rank(dim, alpha, rank, scale):
    module = make(dim, alpha)[0].unet_loras[0]
    assert (module.lora_dim, module.scale, float(module.alpha)) == (rank, scale, scale * rank)
    assert module.alpha.dtype == torch.float32


def test_two_text_encoders_have_names_and_rates_of_their_own():
    network, _, _ = make(two=True)
    assert [m.lora_name[:8] for m in network.text_encoder_loras] == ["lora_te1", "lora_te2"]
    ask = network.prepare_optimizer_params_with_multiple_te_lrs
    groups, names = ask([1e-4, 2e-4], 1e-3, 1e-2)
    assert list(zip(names, [g["lr"] for g in groups], strict=True)) == [
        ("textencoder 1", 1e-4),
        ("textencoder 2", 2e-4),
        ("unet", 1e-3),
    ]
    assert ask([1e-4], 0, 1e-2)[1] == ["textencoder"]
    assert ask([0.0, 1e-4], 0, 1e-2)[1] == ["textencoder 2"]
    assert [g["lr"] for g in ask([], None, 1e-2)[0]] == [1e-2, 1e-2]
    single, _, _ = make()
    assert single.prepare_optimizer_params_with_multiple_te_lrs([1e-4, 5e-4], 0, 1e-2)[0][0]["lr"] == 1e-4


def test_what_has_no_rate_gets_no_gradients():
    network, text, unet = make()
    groups, _ = network.prepare_optimizer_params(0.0, 1e-3, 1e-3)
    network.prepare_grad_etc(text, unet)
    assert not any(p.requires_grad for m in network.text_encoder_loras for p in m.parameters())
    assert all(p.requires_grad for group in groups for p in group["params"])
    network.prepare_optimizer_params(1e-4, 1e-3, 1e-3)
    network.prepare_grad_etc(text, unet)
    assert all(p.requires_grad for p in network.parameters())


def test_a_network_with_conv_leaves_nothing_behind_for_the_next():
    counts = [len(make(**arguments)[0].unet_loras) for arguments in ({}, {"conv_dim": "2"}, {})]
    assert counts == [2, 4, 2]


def test_a_threshold_leaves_weak_blocks_out():
    down = ",".join(["1", "0.05"] + ["1"] * 10)  # attentions.0 and resnets.0 of the first level are block 1
    assert len(make(down_lr_weight=down)[0].unet_loras) == 2
    with pytest.raises(ValueError, match="nothing to train"):
        lora.create_network(1.0, 4, 1, None, None, UNet(), down_lr_weight=down, block_lr_zero_threshold="0.1")


# --- what it refuses, before anything is made


class Untouchable:
    """A model that must not be looked at."""

    def __getattr__(self, name):
        if name in ("add_embedding", "label_emb"):  # which family it is decides how many numbers an option needs
            raise AttributeError(name)
        raise AssertionError(f"the model was touched: {name}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"conv_dimm": "4"}, "conv_dimm is not an option of this network; did you mean conv_dim?"),
        ({"algo": "loha"}, "algo is not an option of this network; known are conv_dim"),
        ({"conv_dim": "-4"}, "conv_dim must be a whole number from 0, not '-4'"),
        ({"conv_dim": "4.5"}, "conv_dim must be a whole number from 0, not '4.5'"),
        ({"conv_dim": "many"}, "conv_dim must be a whole number from 0, not 'many'"),
        ({"rank_dropout": "7"}, "rank_dropout must be a number from 0 to below 1, not '7'"),
        ({"dropout": "nan"}, "dropout must be a number from 0 to below 1, not 'nan'"),
        ({"neuron_dropout": 1.0}, "network_dropout must be a number from 0 to below 1, not 1.0"),
        ({"loraplus_lr_ratio": "-1"}, "loraplus_lr_ratio must be a number from 0, not '-1'"),
        ({"block_dims": "1,2"}, "block_dims needs 25 numbers for this model, not 2"),
        ({"conv_block_alphas": "1"}, "conv_block_alphas has no effect without conv_block_dims"),
        ({"down_lr_weight": "cosin"}, "down_lr_weight must be a number from 0, not 'cosin'"),
    ],
)
def test_a_wrong_option_is_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message.split("(")[0].replace("?", r"\?")):
        lora.create_network(1.0, 4, 1, None, Untouchable(), Untouchable(), **arguments)


@pytest.mark.parametrize(
    ("count", "said"),
    [(14, "14 numbers, this model 12 blocks; the last 2 are not used"), (2, "missing ones count as 1")],
)
def test_factors_that_are_too_many_or_too_few_are_reported(count, said, caplog):
    make(down_lr_weight=",".join(["0.5"] * count))
    assert said in caplog.text


@pytest.mark.parametrize(("dim", "alpha"), [(0, 1), (-8, 1), ("x", 1), (8, -1), (8, float("nan"))])
def test_impossible_ranks_and_alphas_are_refused(dim, alpha):
    with pytest.raises(ValueError, match=r"network_(dim|alpha) must be"):
        lora.create_network(1.0, dim, alpha, None, Untouchable(), Untouchable())


def test_all_problems_are_reported_at_once():
    with pytest.raises(ValueError, match=r"unit is not an option.*conv_dim must be.*rank_dropout must be"):
        lora.create_network(1.0, 4, 1, None, None, UNet(), unit="4", conv_dim="x", rank_dropout="2")


def test_every_option_has_a_line_of_help_and_is_accepted():
    values = dict.fromkeys(lora.OPTIONS, "0.5") | {"conv_dim": "2"}
    values |= {name: ",".join(["2"] * 25) for name in lora.OPTIONS if "block_" in name and "zero" not in name}
    network, _, _ = make(**values)
    assert len(network.unet_loras) == 4
    assert all(text and "\n" not in text for text in lora.OPTIONS.values())


def test_the_trainers_own_dropout_is_overridden_by_network_args():
    assert make(neuron_dropout=0.1)[0].unet_loras[0].dropout == 0.1
    assert make(neuron_dropout=0.1, dropout=None)[0].unet_loras[0].dropout == 0.1
    assert make(neuron_dropout=0.1, dropout="0.3")[0].unet_loras[0].dropout == 0.3


# --- files


def test_a_file_of_another_network_is_refused_with_examples(tmp_path):
    network, _, _ = make()
    save_file({"lora_unet_other.lora_down.weight": torch.ones(3, 3)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"a\.safetensors.*lora_unet_other.*lora_te_mlp_fc1"):
        network.load_weights(str(tmp_path / "a.safetensors"))


def test_another_rank_is_refused_with_what_to_do(tmp_path):
    make(8)[0].save_weights(str(tmp_path / "a.safetensors"), None, None)
    with pytest.raises(ValueError, match="set network_dim"):
        make(4)[0].load_weights(str(tmp_path / "a.safetensors"))


@pytest.mark.parametrize("stored", [5.0, None], ids=["another alpha", "no alpha"])
def test_the_scale_of_a_loaded_file_is_the_files(tmp_path, stored):
    """Otherwise the picture of a LoRA that is trained on would jump at the first step."""
    network, text, _ = make(4, 4)
    file = str(tmp_path / "a.safetensors")
    network.save_weights(file, None, None)
    tensors = {k: v for k, v in load_file(file).items() if stored or not k.endswith(".alpha")}
    if stored:
        tensors |= {k: torch.tensor([stored]) for k in tensors if k.endswith(".alpha")}  # some write shape (1,)
    save_file(tensors, file)
    again, text2, _ = make(4, 1)
    text2.load_state_dict(text.state_dict())
    again.load_weights(file)
    assert again.text_encoder_loras[0].scale == (stored or 4) / 4
    for module in network.loras:
        module.scale = (stored or 4) / 4
    x = torch.randn(3, 4)
    assert torch.equal(text(x), text2(x))
    from_file, _ = lora.create_network_from_weights(1, file, None, TextEncoder(), UNet())
    assert {m.scale for m in from_file.loras} == {(stored or 4) / 4}


def test_a_linear_layer_takes_the_file_of_a_convolution_of_one(tmp_path):
    """SD2's proj_in is one or the other, depending on how the base model was stored."""
    network, text, _ = make()
    file = str(tmp_path / "a.safetensors")
    network.save_weights(file, None, None)
    linear = UNet()
    block: Any = linear.down_blocks[0]
    block["attentions"][0].proj_in = nn.Linear(6, 10)
    for again in (make(unet=linear)[0], lora.create_network_from_weights(1, file, None, text, linear)[0]):
        if not list(again.parameters()):
            again.apply_to(text, linear, True, True)
        again.load_weights(file)
        found = next(m for m in again.unet_loras if m.lora_name.endswith("proj_in"))
        assert found.lora_down.weight.shape == (3, 6)
        original = next(m for m in network.unet_loras if m.lora_name.endswith("proj_in"))
        assert torch.equal(found.delta(), original.delta().flatten(1))


def test_alphas_stay_float32_in_a_half_precision_file(tmp_path):
    file = str(tmp_path / "a.safetensors")
    make(3, 0.3)[0].save_weights(file, torch.bfloat16, None)
    alphas = [tensor for key, tensor in load_file(file).items() if key.endswith("alpha")]
    assert len(alphas) == 3
    assert all(torch.equal(alpha, torch.tensor(0.3)) for alpha in alphas)


def test_saving_leaves_the_callers_metadata_as_it_was_and_adds_hashes(tmp_path):
    file, metadata = str(tmp_path / "a.safetensors"), {"ss_a": "b"}
    make()[0].save_weights(file, None, metadata)
    assert metadata == {"ss_a": "b"}
    with safe_open(file, "pt") as opened:
        assert set(opened.metadata()) == {"ss_a", "sshs_model_hash", "sshs_legacy_hash"}


def test_a_pickle_with_code_is_not_loaded(tmp_path):
    torch.save({"x": Path("a")}, tmp_path / "a.pt")
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        make()[0].load_weights(str(tmp_path / "a.pt"))
