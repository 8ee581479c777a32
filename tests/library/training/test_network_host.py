"""What the trainer takes from a network module: every shape of the contract that is met in the wild, and no other."""

import importlib.util
import json
import logging
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from library.errors import UserError
from library.files import write_tensors
from library.models.family import Family
from library.training.trained.network import NetworkSpec, create_network, merge_base_weights
from library.training.trained.network_trainable import optimizer_groups
from library.training.trained.plugins import check_arguments, import_plugin, telling
from miniworld.tiny import build
from networks import lora


def _parameter() -> nn.Parameter:
    return nn.Parameter(torch.zeros(2))


class Answers:
    """A network whose prepare_optimizer_params gives one prepared answer."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.asked = answer, None

    def prepare_optimizer_params(self, text_encoder_lr, unet_lr, learning_rate):
        self.asked = (text_encoder_lr, unet_lr, learning_rate)
        return self.answer


def test_groups_come_as_a_list_a_generator_or_with_names():
    p, q = _parameter(), _parameter()
    groups, names = optimizer_groups(Answers([{"params": [p], "lr": 0.5}]), [0.1, 0.2], 0.3, 0.4)
    assert (groups, names) == ([{"params": [p], "lr": 0.5}], ["group0"])
    groups, names = optimizer_groups(Answers({"params": [x]} for x in (p, q)), None, None, 0.4)
    assert [group["lr"] for group in groups] == [0.4, 0.4]
    assert names == ["group0", "group1"]
    groups, names = optimizer_groups(Answers(([{"params": {"a": p}.values()}], ["unet"])), None, None, 0.4)
    assert (groups[0]["params"], names) == ([p], ["unet"])


def test_the_group_dicts_are_the_modules_own_so_that_it_can_read_the_live_learning_rate():
    own = {"params": [_parameter()], "lr": 0.5}
    groups, _ = optimizer_groups(Answers([own]), None, None, 0.4)
    assert groups[0] is own


def test_one_text_encoder_rate_is_passed_where_a_module_takes_one_and_all_where_it_takes_several():
    network = Answers([_parameter()])
    optimizer_groups(network, [0.1, 0.2], 0.3, 0.4)
    assert network.asked == (0.1, 0.3, 0.4)

    class Several(Answers):
        def prepare_optimizer_params_with_multiple_te_lrs(self, text_encoder_lr, unet_lr, learning_rate):
            self.asked = text_encoder_lr
            return self.answer

    several = Several([_parameter()])
    optimizer_groups(several, [0.1, 0.2], 0.3, 0.4)
    assert several.asked == [0.1, 0.2]


def test_a_module_of_two_arguments_gets_two():
    class Old:
        def prepare_optimizer_params(self, text_encoder_lr, unet_lr):
            return [{"params": [_parameter()], "lr": unet_lr}]

    groups, _ = optimizer_groups(Old(), None, 0.3, 0.4)
    assert groups[0]["lr"] == 0.3


def test_an_error_inside_a_module_is_never_taken_for_another_signature():
    class Broken:
        def prepare_optimizer_params(self, text_encoder_lr, unet_lr, learning_rate):
            raise TypeError("a bug of the module's own")

    with pytest.raises(TypeError, match="a bug of the module's own"):
        optimizer_groups(Broken(), None, 0.3, 0.4)


@pytest.mark.parametrize("answer", [[], [{"params": []}], ([], [])])
def test_a_network_without_anything_to_train_is_refused(answer):
    with pytest.raises(UserError, match="nothing is trained"):
        optimizer_groups(Answers(answer), None, None, 0.4)


def _module(**functions: Any) -> ModuleType:
    module = ModuleType("their_network")
    module.__dict__.update(functions)
    return module


MODEL: Any = SimpleNamespace(unet=nn.Module(), vae=nn.Module(), text_encoders=[nn.Module()])


def test_a_module_that_makes_no_network_is_an_error_and_not_the_end_of_the_run():
    with pytest.raises(UserError, match="create_network returned None"):
        create_network(_module(create_network=lambda *a, **k: None), NetworkSpec(), {}, MODEL, SimpleNamespace())  # type: ignore[arg-type]


def test_dropout_is_passed_under_both_names_and_arguments_stay_text():
    seen: dict[str, Any] = {}

    def create(multiplier, dim, alpha, vae, text_encoder, unet, neuron_dropout=None, **kwargs):
        seen.update(kwargs, neuron_dropout=neuron_dropout, dim=dim, alpha=alpha, multiplier=multiplier)

    spec = NetworkSpec(network_dim=8, network_alpha=4.0, network_dropout=0.1)
    with pytest.raises(UserError):
        create_network(_module(create_network=create), spec, {"conv_dim": "4"}, MODEL, SimpleNamespace())  # type: ignore[arg-type]
    assert seen == {"dropout": 0.1, "conv_dim": "4", "neuron_dropout": 0.1, "dim": 8, "alpha": 4.0, "multiplier": 1.0}


def test_hooks_are_put_in_place_before_weights_are_loaded_and_the_flags_are_positional():
    calls: list[tuple] = []

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = _parameter()

        def prepare_network(self, args):
            calls.append(("prepare_network", args.seed))

        def apply_to(self, text_encoder, unet, train_text_encoder, train_unet):
            calls.append(("apply_to", text_encoder is MODEL.text_encoders[0], train_text_encoder, train_unet))

    spec = NetworkSpec(network_train_unet_only=True)
    options: Any = SimpleNamespace(seed=3)
    create_network(_module(create_network=lambda *a, **k: Network()), spec, {}, MODEL, options)
    assert calls == [("prepare_network", 3), ("apply_to", True, False, True)]


class Untaking(nn.Module):
    """A network that finds nothing of its own in a file, and says so only in what it returns."""

    def __init__(self, layers: int):
        super().__init__()
        self.layers = nn.ParameterList(_parameter() for _ in range(layers))

    def apply_to(self, *parts):
        pass

    def load_weights(self, file):
        return "<missing: all>"


def test_a_network_without_a_layer_for_the_model_is_refused():
    module = _module(create_network=lambda *a, **k: Untaking(0))
    with pytest.raises(UserError, match="without a single layer"):
        create_network(module, NetworkSpec(), {}, MODEL, SimpleNamespace())  # type: ignore[arg-type]


def test_weights_of_which_a_network_takes_nothing_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"lora_unet_x.lora_down.weight": torch.zeros(1, 2)}, tmp_path / "w.safetensors")
    module = _module(create_network=lambda *a, **k: Untaking(1))
    spec = NetworkSpec(network_weights=tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="took nothing of it \\(<missing: all>\\)"):
        create_network(module, spec, {}, MODEL, SimpleNamespace())  # type: ignore[arg-type]


def test_a_module_that_returns_no_pair_from_weights_is_one_clear_error(tmp_path):
    from safetensors.torch import save_file

    save_file({"lora_unet_x.lora_down.weight": torch.zeros(1, 2)}, tmp_path / "w.safetensors")
    module = _module(create_network_from_weights=lambda *a, **k: object())
    with pytest.raises(UserError, match="no \\(network, weights\\) pair"):
        merge_base_weights(module, NetworkSpec(base_weights=[Path(tmp_path / "w.safetensors")]), MODEL, torch.float32)


def test_a_module_that_cannot_be_found_or_is_no_network_module_is_refused_by_name():
    with pytest.raises(UserError, match=r"networks\.nowhere"):
        import_plugin("networks.nowhere", "network_module", ("create_network",))
    with pytest.raises(UserError, match=r"json.*no function create_network"):
        import_plugin("json", "network_module", ("create_network",))


def test_an_error_while_a_module_is_imported_keeps_its_traceback(tmp_path, monkeypatch):
    (tmp_path / "broken_network.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ZeroDivisionError):
        import_plugin("broken_network", "network_module", ("create_network",))


def test_arguments_must_be_known_to_a_module_that_declares_its_options():
    module = _module(OPTIONS={"conv_dim": "rank of convolutions"})
    check_arguments(module, {"conv_dim": "4"}, "network_args")
    with pytest.raises(UserError, match="did you mean `conv_dim`"):
        check_arguments(module, {"conv_dimm": "4"}, "network_args")
    check_arguments(_module(), {"whatever": "1"}, "network_args")


def test_an_assertion_of_somebody_else_s_module_is_a_message_with_its_place(tmp_path):
    (tmp_path / "strict.py").write_text("def check(rank):\n    assert rank > 4\n", encoding="utf-8")
    spec = importlib.util.spec_from_file_location("strict", tmp_path / "strict.py")
    assert spec is not None
    assert spec.loader is not None
    strict = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(strict)
    with (
        pytest.raises(UserError, match=r"lycoris\.kohya: `assert rank > 4` does not hold \(.*strict\.py line 2\)"),
        telling("lycoris.kohya"),
    ):
        strict.check(1)
    with pytest.raises(AssertionError), telling("networks.lora"):
        raise AssertionError


@pytest.fixture(scope="module")
def sd1():
    return build(Family.SD1)


def start_from(path, model, tensors, metadata=None, **arguments):
    """A LoRA of rank 4 that starts from a file of these tensors."""
    write_tensors(path, tensors, metadata)
    spec = NetworkSpec(network_dim=4, network_weights=path, network_train_unet_only=True, **arguments)
    return create_network(lora, spec, {}, model, SimpleNamespace())  # type: ignore[arg-type]


PROJECTION = "unet.mid_block.attentions.0.proj_in"


def test_a_network_starts_from_a_file_with_the_names_of_diffusers(sd1, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    words = {"bundle_emb.zwx.string_to_param.*": torch.ones(1, 4)}
    factors = {f"{PROJECTION}.lora_A.weight": torch.ones(4, 32), f"{PROJECTION}.lora_B.weight": torch.ones(32, 4)}
    header = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 2})}
    network = start_from(tmp_path / "w.safetensors", sd1, factors | words, header)
    state = network.state_dict()
    assert state["lora_unet_mid_block_attentions_0_proj_in.lora_up.weight"].sum() == 128
    assert state["lora_unet_mid_block_attentions_0_proj_in.alpha"] == 2
    assert "carries vectors of the word `zwx`, which a network does not read" in caplog.messages[-1]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(4, 32)},
         r"w\.safetensors` is a network for SDXL, but the model is Stable Diffusion 1 or 2"),
        ({f"{PROJECTION}.lora_A.weight": torch.ones(4, 99)},
         r"\(4, 99\) in {path}, but .*was made for another model"),
        ({f"{PROJECTION}.lora_A.weight": torch.ones(8, 32)}, r"\(8, 32\) in {path}, but .* here: set network_dim"),
        ({"unet.x.lora_A.weight": torch.ones(8, 32)}, r"no tensor of {path} belongs to this network"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_reported_of_the_user_s_file(sd1, tmp_path, tensors, message):
    path = tmp_path / "w.safetensors"
    with pytest.raises(UserError, match=message.replace("{path}", re.escape(str(path)))):
        start_from(path, sd1, tensors)
