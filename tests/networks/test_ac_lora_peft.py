"""AC-LoRA on adapters of PEFT: RESTARTs between steps, resume, and cut files that PEFT and diffusers load."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn

from networks.ac_lora_peft import ACLoRAAdapter
from networks.ac_lora_report import block_of

ROOT = Path(__file__).resolve().parents[2]


class Model(nn.Module):
    """`proj` is the end of another layer's name, which PEFT's patterns could take for it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.block = nn.ModuleDict({"proj": nn.Linear(6, 8)})
        self.proj = nn.Linear(8, 5)
        self.words = nn.Embedding(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.block["proj"](self.conv(x).flatten(2).mT))


def adapted(*more: str, **config: Any) -> Any:
    torch.manual_seed(0)
    targets = config.pop("target_modules", ["conv", "proj", "block.proj"])
    model: Any = peft.get_peft_model(Model(), peft.LoraConfig(r=6, lora_alpha=3, target_modules=targets, **config))
    for name in more:
        model.add_adapter(name, peft.LoraConfig(r=3, target_modules=["proj"]))
    return model


class Run:
    def __init__(self, steps: int = 40, accumulation: int = 1, **arguments: Any) -> None:
        self.model = adapted()
        self.ac = ACLoRAAdapter(self.model, steps, **{"ac_min_steps": 0, "ac_mode": "product", **arguments})
        self.optimizer = torch.optim.AdamW([p for p in self.model.parameters() if p.requires_grad], 1e-2)
        self.accumulation = accumulation

    def train(self, first: int, last: int) -> None:
        for step in range(first, last):
            for part in range(self.accumulation):
                generator = torch.Generator().manual_seed(10 * step + part)
                x, y = torch.randn(2, 3, 4, 4, generator=generator), torch.randn(2, 16, 5, generator=generator)
                loss = 0.2 * (self.model(x) - y).square().mean()
                loss.backward()
                is_last = part == self.accumulation - 1
                if is_last:
                    self.optimizer.step()
                    self.optimizer.zero_grad()
                self.ac.step(loss, synced=is_last)

    def made(self) -> list[int]:
        return [event["step"] for event in self.ac.restarts]


def output(model: Any) -> Tensor:
    with torch.no_grad():
        return model(torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(9)))


@pytest.mark.parametrize("accumulation", [1, 3])
def test_restarts_come_every_tenth_of_the_run_and_none_after_its_last_step(accumulation):
    run = Run(accumulation=accumulation)
    run.train(0, 40)
    assert run.made() == list(range(4, 40, 4))
    assert run.ac.window["count"] == 0
    assert set(run.ac.restarts[0]["ranks"]) == {f"base_model.model.{n}" for n in ("conv", "block.proj", "proj")}


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [({"ac_every_n_steps": 15}, [15, 30]), ({"total_epochs": 8, "ac_every_n_epochs": 3}, [5, 20, 35])],
)
def test_restarts_can_be_counted_in_steps_or_in_epochs(arguments, steps):
    run = Run(**arguments)
    run.train(0, 40)
    assert run.made() == steps


def test_the_threshold_follows_the_mean_of_the_losses():
    ac = Run(ac_mode="paper", ac_every_n_steps=2).ac
    for module in ac.matrices():
        nn.init.normal_(module.up)
    assert ac.step(torch.tensor(0.1), synced=False) is ac.step(torch.tensor(0.3)) is None
    event = ac.step(torch.tensor(0.5))
    assert event is not None
    assert event["loss"] == pytest.approx(0.3)
    assert ac.step(0.2, synced=False) is None


def test_a_run_that_was_resumed_inside_a_window_ends_with_the_same_bits():
    whole = Run(ac_mode="paper", ac_every_n_steps=10)
    whole.train(0, 40)
    stopped = Run(ac_mode="paper", ac_every_n_steps=10)
    stopped.train(0, 26)
    again = Run(ac_mode="paper", ac_every_n_steps=10)
    again.model.load_state_dict(stopped.model.state_dict())
    again.optimizer.load_state_dict(stopped.optimizer.state_dict())
    again.ac.load_state_dict(json.loads(json.dumps(stopped.ac.state_dict())))
    again.train(26, 40)
    assert again.ac.restarts == whole.ac.restarts
    assert again.made() == [10, 20, 30]
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True))


@pytest.mark.parametrize("export", ["energy:1", "full"])
def test_peft_loads_the_folder_and_computes_the_same(tmp_path, export):
    run = Run(export_rank=export)
    run.train(0, 18)
    run.ac.save(str(tmp_path / "out"))
    torch.manual_seed(0)
    loaded = peft.PeftModel.from_pretrained(Model(), tmp_path / "out")
    torch.testing.assert_close(output(loaded), output(run.model), rtol=1e-4, atol=1e-5)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    sizes = {n: tuple(p.shape) for n, p in loaded.named_parameters() if "lora_A" in n}
    ranks = {name: t.shape[0] for name, t in run.ac.tensors().items() if "lora_A" in name}
    assert [shape[0] for shape in sizes.values()] == list(ranks.values())
    if export == "full":
        assert set(ranks.values()) == {6}


def test_each_layer_has_its_own_rank_though_one_name_ends_as_another(tmp_path):
    run = Run(export_rank="energy:1")
    with torch.no_grad():
        for rank, module in enumerate(run.ac.matrices(), 1):
            nn.init.normal_(module.up)
            module.up[:, rank:] = 0
    config = run.ac.config()
    assert config["rank_pattern"] == {"block.proj": 2, "conv": 1, "proj": 3} == config["alpha_pattern"]
    assert next(iter(config["rank_pattern"])) == "block.proj"
    run.ac.save(str(tmp_path))
    torch.manual_seed(0)
    loaded = peft.PeftModel.from_pretrained(Model(), tmp_path)
    torch.testing.assert_close(output(loaded), output(run.model), rtol=1e-4, atol=1e-5)


def test_only_the_adapter_that_is_named_is_touched():
    model = adapted("other")
    ac = ACLoRAAdapter(model, 40, adapter="other", ac_p="0.5", ac_every_n_steps=1)
    assert [module.down.shape[0] for module in ac.matrices()] == [3, 3]  # proj and block.proj
    for module in ac.matrices():
        nn.init.normal_(module.up)
        module.up.requires_grad_(True)
        module.down.requires_grad_(True)
    before = {n: p.clone() for n, p in model.named_parameters() if ".other." not in n}
    assert ac.step(0.1) is not None
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters() if n in before)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"use_dora": True}, r"conv is a DoRA \(use_dora\); use a plain LoraConfig"),
        ({"use_rslora": True}, "not by alpha / rank"),
        ({"lora_bias": True}, r"has a bias \(lora_bias\)"),
        ({"target_modules": ["words"]}, "is an embedding"),
    ],
)
def test_adapters_whose_update_is_not_a_scaled_product_are_refused(config, sentence):
    with pytest.raises(ValueError, match=sentence):
        ACLoRAAdapter(adapted(**config), 40)


def test_a_model_without_the_adapter_is_refused_with_those_that_it_has():
    with pytest.raises(ValueError, match="no layer of this Model has the LoRA adapter 'default': it has no adapter"):
        ACLoRAAdapter(Model(), 40)
    with pytest.raises(ValueError, match="LoRA adapter 'x': its adapters are default, other"):
        ACLoRAAdapter(adapted("other"), 40, adapter="x")


def test_layers_have_the_names_of_a_file_within_what_is_wrapped_around_the_model(monkeypatch):
    class Wrapper(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.module = model

    class Compiled(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self._orig_mod = model

    monkeypatch.setattr(nn.parallel, "DistributedDataParallel", Wrapper)
    model = adapted()
    ac = ACLoRAAdapter(Compiled(Wrapper(model)), 40, ac_mode="product")
    assert set(ac.sizes()) == {f"base_model.model.{name}" for name in ("conv", "block.proj", "proj")}
    assert set(ac.config()["rank_pattern"]) == {"conv", "block.proj", "proj"}


def test_a_script_that_has_not_counted_its_batches_yet_is_refused_with_where_to_attach():
    with pytest.raises(ValueError, match=r"total_steps is None.*attach AC-LoRA just before the loop"):
        ACLoRAAdapter(adapted(), None)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"conv_dim": 4}, "conv_dim is not an option here"),
        ({"ac_mod": "paper"}, "did you mean ac_mode"),
        ({"ac_every_n_epochs": 2}, "give total_epochs"),
    ],
)
def test_options_that_have_no_meaning_here_are_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        ACLoRAAdapter(adapted(), 40, **arguments)


def test_the_end_says_what_a_person_wants_to_know(tmp_path):
    run = Run()
    run.train(0, 40)
    lines = run.ac.findings()
    assert "AC-LoRA made 9 RESTARTs and cut" in lines[0]
    assert re.search(r"most in (conv|proj|block)", lines[1])
    run.ac.conclude()
    with pytest.raises(RuntimeError, match="made no RESTART"):
        Run().ac.conclude()
    assert block_of("base_model.model.model.layers.3.self_attn.q_proj") == "model.layers.3"
    assert block_of("down_blocks.1.attentions.0.to_q") == "down_blocks.1"


def test_the_example_trains_a_u_net_and_a_language_model_whose_cut_files_do_the_same(tmp_path):
    spec: Any = importlib.util.spec_from_file_location("ac_lora_peft_example", ROOT / "docs/examples/ac_lora_peft.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    assert example.train_unet() < 0.05
    assert example.train_language_model(str(tmp_path)) < 0.05
