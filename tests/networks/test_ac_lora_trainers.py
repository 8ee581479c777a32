"""AC-LoRA in the trainers of the kohya family: stand-ins that make each one's calls, in its order.

`SdScripts` is train() up to 0.10, one function. `SdScriptsInParts` is 0.11, where train() calls parts and what they
know lies in objects. `Musubi` is musubi-tuner: its own constructors and hooks without a text encoder. `Telling` is a
trainer that says by `on_progress` how far it is, as this project's.
"""

import multiprocessing
import os
import sys
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from networks import ac_lora, ac_lora_observe
from networks.ac_lora_products import names_beside
from tests.networks import other_networks
from tests.networks.other_networks import Block
from tests.networks.test_ac_lora_peft import Run

STEPS = 4


class Accelerator:
    """As accelerate's: under accumulation, the loss is divided and gradients are synchronised in the last part."""

    def __init__(self, accumulation: int) -> None:
        self.accumulation, self.sync_gradients = accumulation, True

    def backward(self, loss: torch.Tensor) -> None:
        (loss / self.accumulation).backward()


@pytest.fixture(autouse=True)
def accelerate(monkeypatch) -> Any:
    """Classes of their own for each test, as listeners stay."""
    module: Any = types.ModuleType("accelerate")
    module.Accelerator = type("Accelerator", (Accelerator,), {"backward": Accelerator.backward})
    monkeypatch.setitem(sys.modules, "accelerate", module)
    yield
    for observer in list(ac_lora_observe._observers):
        observer.stop()


class SdScripts:
    seed = 0

    def __init__(self, folder: Path, epochs: int = 12, accumulation: int = 1, dtype: Any = None, **arguments: Any):
        self.folder, self.unet = folder, Block()
        self.args = SimpleNamespace(max_train_epochs=epochs, max_train_steps=1600, gradient_accumulation_steps=1)
        torch.manual_seed(0)
        self.unet = Block()
        given = {"base_module": other_networks.__name__, "ac_every_n_epochs": "3", "ac_loss": "raw", **arguments}
        self.network: Any = self.create({"dropout": None, **given})
        self.network.apply_to(*self.models_for_apply(), apply_text_encoder=False, apply_unet=True)
        groups, _ = self.groups()
        self.network.prepare_grad_etc(*self.hook_models())
        self.network.to(dtype)
        self.unet.to(dtype)
        self.optimizer = torch.optim.AdamW(groups)
        self.accelerator = sys.modules["accelerate"].Accelerator(accumulation)
        self.args.max_train_steps = epochs * -(-STEPS // accumulation)

    def models_for_apply(self) -> tuple[Any, ...]:
        return (None, self.unet)

    def hook_models(self) -> tuple[Any, ...]:
        return (None, self.unet)

    def create(self, arguments: dict[str, Any]) -> Any:
        network = ac_lora.create_network(1.0, 4, 4, None, None, self.unet, neuron_dropout=None, **arguments)
        network.prepare_network(self.args)
        return network

    def groups(self) -> Any:
        return self.network.prepare_optimizer_params(None, 1e-2, 1e-2)

    def train(self, first: int = 0, last: int | None = None) -> None:
        num_train_epochs, current_epoch = self.args.max_train_epochs, SimpleNamespace(value=0)
        for epoch in range(first, num_train_epochs if last is None else last):
            current_epoch.value = epoch + 1
            self.network.on_epoch_start(*self.hook_models())
            self.batches(epoch)
        self.end(last)

    def batches(self, epoch: int, count: int = STEPS) -> None:
        for step in range(count):
            self.network.on_step_start(*self.hook_models())
            generator = torch.Generator().manual_seed(self.seed + 100 * epoch + step)
            dtype = next(self.network.parameters()).dtype
            x = torch.randn(2, 3, 4, 4, generator=generator).to(dtype)
            y = torch.randn(2, 16, 10, generator=generator).to(dtype)
            loss = 0.2 * (self.unet(x) - y).square().mean()
            self.accelerator.sync_gradients = (step + 1) % self.accelerator.accumulation == 0 or step + 1 == STEPS
            self.accelerator.backward(loss)
            if self.accelerator.sync_gradients:
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)

    def end(self, last: int | None) -> None:
        if last is None:
            self.network.save_weights(str(self.folder / "last.safetensors"), None, {})

    def made(self) -> list[tuple[int, int]]:
        return [(event["epoch"], event["step"]) for event in self.network.restarts]


class SdScriptsInParts(SdScripts):
    def train(self, first: int = 0, last: int | None = None) -> None:
        state = SimpleNamespace(args=self.args, current_epoch=SimpleNamespace(value=0))
        for index in range(first, self.args.max_train_epochs if last is None else last):
            state.current_epoch.value = index + 1
            self.one_epoch(state)
        self.end(last)

    def one_epoch(self, ctx: SimpleNamespace) -> None:
        self.before_epoch(ctx)
        self.batches(ctx.current_epoch.value - 1)

    def before_epoch(self, ctx: SimpleNamespace) -> None:
        self.network.on_epoch_start(*self.hook_models())


class Musubi(SdScripts):
    def hook_models(self) -> tuple[Any, ...]:
        return (self.unet,)

    def create(self, arguments: dict[str, Any]) -> Any:
        arguments.pop("dropout")
        network = ac_lora.create_arch_network(1.0, 4, 4, None, None, self.unet, neuron_dropout=None, **arguments)
        if hasattr(ac_lora, "prepare_network"):
            network.prepare_network(self.args)
        return network

    def groups(self) -> Any:
        return self.network.prepare_optimizer_params(unet_lr=1e-2)

    def batches(self, epoch: int, count: int = STEPS) -> None:
        step_start = self.network.on_step_start
        self.network.on_step_start = lambda *models: step_start()
        super().batches(epoch, count)
        self.network.on_step_start = step_start


class Telling(SdScripts):
    def train(self, first: int = 0, last: int | None = None) -> None:
        total = self.args.max_train_epochs
        self.network.announce(total, self.args.max_train_steps)
        losses: list[float] = []
        backward = self.accelerator.backward
        self.accelerator.backward = lambda loss: (losses.append(loss.item()), backward(loss))
        for epoch in range(first, total if last is None else last):
            if epoch > 0:  # a state is written before the call, and so a resumed run makes it too
                self.tell(epoch, list(losses[-STEPS:]) or self.before)
            self.network.on_epoch_start(*self.hook_models())
            self.batches(epoch)
        self.before = losses[-STEPS:]
        self.accelerator.backward = backward
        self.end(last)

    before: list[float] = []  # noqa: RUF012 (the losses of the epoch before a resume)

    def tell(self, done: int, losses: list[float]) -> None:
        per_epoch = -(-STEPS // self.accelerator.accumulation)
        self.network.on_progress(
            SimpleNamespace(
                epochs_done=done, total_epochs=self.args.max_train_epochs, global_step=done * per_epoch,
                total_steps=self.args.max_train_steps, loss_sum=sum(losses), relative_mse_sum=sum(losses),
                count=len(losses),
            )
        )  # fmt: skip


TRAINERS = [SdScripts, SdScriptsInParts, Musubi, Telling]
KINDS = {"plain": {}, "split": {"split": "True"}, "convolutions": {"conv_dim": "2"}}


@pytest.fixture(params=TRAINERS)
def kind_of_trainer(request) -> Any:
    return request.param


@pytest.mark.parametrize("modules", KINDS)
def test_restarts_come_after_the_epochs_expected_and_the_file_does_what_the_network_does(
    kind_of_trainer, modules, tmp_path
):
    trainer = kind_of_trainer(tmp_path, export_rank="energy:1", **KINDS[modules])
    trainer.train()
    assert trainer.made() == [(1, 4), (4, 16), (7, 28), (10, 40)]
    x = torch.randn(2, 3, 4, 4)
    torch.manual_seed(0)
    unet = Block()
    tensors = load_file(tmp_path / "last.safetensors")
    if kind_of_trainer is Musubi:
        base: Any = other_networks.create_arch_network_from_weights(1.0, tensors, unet=unet, for_inference=True)
    else:
        base, _ = other_networks.create_network_from_weights(1.0, "", None, None, unet, weights_sd=tensors)
    base.apply_to(None, unet)
    base.load_state_dict(tensors)
    torch.manual_seed(0)
    untrained = Block()
    with torch.no_grad():
        assert not torch.allclose(trainer.unet(x), untrained(x), atol=0.1)
        torch.testing.assert_close(unet(x), trainer.unet(x), rtol=1e-4, atol=1e-4)


def test_a_run_that_was_resumed_inside_a_window_ends_with_the_same_bits(kind_of_trainer, tmp_path):
    whole = kind_of_trainer(tmp_path, 10, split="True")
    whole.train()
    stopped = kind_of_trainer(tmp_path, 10, split="True")
    stopped.train(last=6)
    again = kind_of_trainer(tmp_path, 10, split="True")
    again.network.load_state_dict({name: t.clone() for name, t in stopped.network.state_dict().items()})
    again.optimizer.load_state_dict(stopped.optimizer.state_dict())
    again.before = getattr(stopped, "before", [])
    again.train(first=6)
    assert again.made() == whole.made() == [(1, 4), (4, 16), (7, 28)]
    assert all(torch.equal(a, b) for a, b in zip(whole.network.parameters(), again.network.parameters(), strict=True))


def test_steps_are_the_optimizers_under_accumulation(kind_of_trainer, tmp_path):
    trainer = kind_of_trainer(tmp_path, accumulation=3)
    trainer.train()
    assert trainer.made() == [(1, 2), (4, 8), (7, 14), (10, 20)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_half_precision_stay_finite(kind_of_trainer, dtype, tmp_path):
    trainer = kind_of_trainer(tmp_path, 5, dtype=dtype, split="True", ac_p="0.9", ac_mode="product", ac_min_steps="0")
    trainer.optimizer = torch.optim.SGD(trainer.network.parameters(), 1e-2)
    trainer.train()
    assert trainer.made() == [(1, 4), (4, 16)]
    tensors = load_file(tmp_path / "last.safetensors")
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert tensors["lora_unet_proj.lora_down.weight"].dtype == dtype


def test_a_state_of_the_middle_of_an_epoch_does_not_move_the_epochs(tmp_path):
    """It is taken up at the epoch's beginning, so that the count of epochs that were started is one too many."""
    stopped = SdScripts(tmp_path, 10)
    stopped.train(last=2)
    stopped.network.on_epoch_start(None, stopped.unet)
    stopped.batches(2, 2)
    again = SdScripts(tmp_path, 10)
    again.network.load_state_dict({name: t.clone() for name, t in stopped.network.state_dict().items()})
    again.train(first=2)
    assert [epoch for epoch, _ in again.made()] == [1, 4, 7]


def test_an_epoch_that_does_not_go_up_is_not_trusted(tmp_path):
    class Misleading(SdScripts):
        def train(self, first: int = 0, last: int | None = None) -> None:
            for _ in range(12):
                epoch = 0  # of something else
                self.network.on_epoch_start(*self.hook_models())
                self.batches(epoch)
            self.end(last)

    trainer = Misleading(tmp_path)
    trainer.train()
    assert [epoch for epoch, _ in trainer.made()] == [1, 4, 7, 10]


def test_steps_are_counted_where_the_optimizers_hook_is_not_called(tmp_path, monkeypatch):
    """DeepSpeed steps in its own way: what is left are accelerate's syncs of gradients."""
    monkeypatch.setattr(ac_lora_observe.Observer, "step_taken", lambda self, *_: None)
    trainer = SdScripts(tmp_path, accumulation=2)
    trainer.train()
    assert trainer.made() == [(1, 2), (4, 8), (7, 14), (10, 20)]


@pytest.mark.parametrize(
    ("trainer", "line"),
    [
        (SdScripts, "steps from the optimizer's hook, epochs from max_train_epochs, the epoch from current_epoch"),
        (SdScriptsInParts, "steps from the optimizer's hook, epochs from max_train_epochs, the epoch from current_epo"),
        (Musubi, "the loss from accelerate's backward(), steps from the optimizer's hook, epochs from max_train_epoch"),
    ],
)
def test_what_was_found_is_one_line(trainer, line, tmp_path, caplog):
    caplog.set_level("INFO")
    trainer(tmp_path).train()
    assert len([r.message for r in caplog.records if line in r.message]) == 1
    assert not [r.message for r in caplog.records if "AC-LoRA sees no" in r.message]


def test_what_is_missing_is_one_sentence_with_the_setting_that_helps(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(ac_lora_observe, "TOTAL_EPOCHS", ())
    SdScripts(tmp_path).train()
    said = [record.message for record in caplog.records if "AC-LoRA sees no" in record.message]
    assert said == [
        "AC-LoRA sees no number of epochs in this trainer and estimates it from max_train_steps: set max_train_epochs "
        "to give it"
    ]


@pytest.mark.parametrize("kind", [SdScripts, SdScriptsInParts, Musubi])
def test_a_trainer_that_shows_no_loss_is_refused_at_its_third_batch_unless_a_fixed_threshold_needs_none(kind, tmp_path):
    trainer = kind(tmp_path)
    trainer.accelerator.backward = lambda loss: loss.backward()
    with pytest.raises(RuntimeError, match=r"no way to observe it works in this trainer.*set ac_p to a number"):
        trainer.train()
    assert trainer.network.steps_started == 3
    trainer = kind(tmp_path, ac_p="0.9")
    trainer.accelerator.backward = lambda loss: loss.backward()
    trainer.train()
    assert trainer.made() == [(1, 4), (4, 16), (7, 28), (10, 40)]


def test_a_trainer_without_the_step_hook_that_shows_no_loss_is_refused_before_its_third_batch(tmp_path, monkeypatch):
    trainer = SdScripts(tmp_path)
    seen: list[int] = []
    monkeypatch.setattr(trainer.network, "on_step_start", lambda *_: seen.append(1), raising=False)
    monkeypatch.setattr(trainer.accelerator, "backward", lambda loss: loss.backward(), raising=False)
    with pytest.raises(RuntimeError, match=r"no way to observe it works in this trainer.*set ac_p to a number"):
        trainer.train()
    assert len(seen) == 2


def test_where_only_the_loss_is_seen_nobody_is_sent_to_a_loss_over_the_size_of_the_targets(tmp_path, caplog):
    caplog.set_level("INFO")
    trainer = SdScripts(tmp_path, 4, ac_loss="fvu")
    own = trainer.accelerator
    own.backward = lambda loss: type(own).backward(own, 20 * loss)
    trainer.train()
    said = [record.message for record in caplog.records]
    assert len([line for line in said if "so ac_loss=fvu is as raw: set ac_p to a number" in line]) == 1
    assert [line.partition("; ")[2] for line in said if "above 1 the threshold" in line] == [
        "set ac_p to a number (0.9, say)"
    ]
    caplog.clear()
    Telling(tmp_path).network.mean_loss({"loss_sum": 8.0, "relative_mse_sum": 1.0, "count": 4})
    assert caplog.records[-1].message.endswith("set ac_loss=fvu, or ac_p to a number")


# --- two processes


def _train_beside_another(rank: int, folder: str) -> None:
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "RANK": str(rank), "WORLD_SIZE": "2"})
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    found: dict[str, Any] = {}
    for kind in TRAINERS:
        trainer = kind(Path(folder), split="True")
        trainer.seed = 10_000 * rank  # each has pictures of its own, and nothing averages their gradients
        trainer.train(last=1)
        own = trainer.network.unet_loras[-1].lora_up.weight.detach().clone()
        for group in trainer.optimizer.param_groups:
            group["lr"] = 0.0
        trainer.train(first=1, last=2)
        found[kind.__name__] = (own, [p.detach() for p in trainer.network.parameters()], trainer.network.restarts)
    run = Run(ac_every_n_steps=4)
    run.train(100 * rank, 100 * rank + 4)
    found["PEFT"] = (torch.tensor(rank), [m.down.detach() for m in run.ac.matrices()], run.ac.restarts)
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="gloo's file store")
def test_two_processes_go_on_with_the_same_weights_after_a_restart_in_every_trainer(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_train_beside_another, args=(rank, str(tmp_path))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert set(one) == {"SdScripts", "SdScriptsInParts", "Musubi", "Telling", "PEFT"}
    for name, (own, weights, restarts) in one.items():
        others_own, others_weights, others_restarts = other[name]
        assert not torch.equal(own, others_own)
        assert [event["step"] for event in restarts] == [4]
        assert restarts[0]["ranks"] == others_restarts[0]["ranks"]
        assert all(torch.equal(a, b) for a, b in zip(weights, others_weights, strict=True))
        if name != "Telling":  # there the trainer adds up over the processes
            assert restarts[0]["loss"] == others_restarts[0]["loss"]


# --- a base module that does not fit


@pytest.mark.parametrize("create", ["create_network", "create_arch_network"])
def test_a_base_module_for_another_model_is_refused_with_those_that_there_are(create):
    with pytest.raises(
        ValueError, match=r"tests\.networks\.other_networks` finds no layer to train in a Identity; set"
    ):
        getattr(ac_lora, create)(
            1.0, 4, 4, None, None, torch.nn.Identity(), base_module=other_networks.__name__, ac_mode="product"
        )


class CLIPMLP(torch.nn.Module):
    """Text encoders have layers of this name wherever they are."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = torch.nn.Linear(4, 4)


def test_a_base_module_for_another_model_is_refused_though_it_finds_layers_in_the_text_encoder():
    text_encoder: Any = torch.nn.Sequential(CLIPMLP())
    with pytest.raises(ValueError, match=r"networks\.lora` finds no layer to train in a Block; set base_module in"):
        ac_lora.create_network(1.0, 4, 4, None, text_encoder, Block(), ac_mode="product")
    network = ac_lora.create_network(
        1, 4, 4, None, text_encoder, Block(), ac_mode="product", block_dims="0," * 24 + "0"
    )
    assert [len(network.text_encoder_loras), len(network.unet_loras)] == [1, 0]


class HadaModule(torch.nn.Module):
    lora_name = "lora_unet_proj"


def test_a_base_module_whose_modules_are_no_products_is_refused_by_their_name(monkeypatch):
    def create_network(*parts: Any, **arguments: Any) -> Any:
        network: Any = torch.nn.Module()
        network.unet_loras, network.text_encoder_loras = [HadaModule()], []
        return network

    monkeypatch.setattr(other_networks, "create_network", create_network)
    with pytest.raises(
        ValueError, match=r"lora_unet_proj is a HadaModule without the layers lora_down and lora_up; use plain LoRA"
    ):
        ac_lora.create_network(1.0, 4, 4, None, None, Block(), base_module=other_networks.__name__)


def test_the_modules_named_beside_are_those_that_make_networks(tmp_path):
    for name, text in {"lora_one": "def create_network(a):\n    pass\n", "lora_tool": "def main(): pass\n"}.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    module = types.ModuleType("networks.lora_two")
    module.__file__ = str(tmp_path / "lora_two.py")
    assert names_beside(module).endswith("for this model, here one of networks.lora_one")


def test_a_base_module_of_another_trainer_is_refused():
    with pytest.raises(ValueError, match=r"networks\.lora` has no create_arch_network, so it is not of this trainer"):
        ac_lora.create_arch_network(1.0, 4, 4, None, None, Block(), base_module="networks.lora")


def test_musubis_files_become_a_network_alone_for_inference_and_a_pair_for_training(tmp_path):
    trainer = Musubi(tmp_path, 1, ac_every_n_epochs="0")
    trainer.train()
    tensors = load_file(tmp_path / "last.safetensors")
    given: Any = {"base_module": other_networks.__name__}
    alone = ac_lora.create_arch_network_from_weights(1.0, tensors, unet=Block(), for_inference=True, **given)
    assert type(alone) is other_networks.ArchNetwork
    network, weights = ac_lora.create_arch_network_from_weights(1, tensors, unet=Block(), ac_mode="product", **given)
    assert isinstance(network, ac_lora.ACLoRANetwork)
    assert weights is tensors
