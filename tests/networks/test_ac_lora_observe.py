"""AC-LoRA in a trainer that tells it nothing: a stand-in that makes the calls of kohya's contract in their order."""

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from networks import ac_lora, ac_lora_observe


class Transformer2DModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn1_to_q = nn.Linear(12, 12)
        self.ff = nn.Linear(12, 10)


class LossRecorder:
    """As in kohya's library.train_util."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def add(self, *, epoch: int, step: int, loss: float) -> None:
        self.losses.append(loss)


class Accelerator:
    def __init__(self, accumulation: int = 1) -> None:
        self.accumulation = accumulation

    def backward(self, loss: torch.Tensor) -> None:
        (loss / self.accumulation).backward()


@pytest.fixture(autouse=True)
def loaded(monkeypatch):
    """The modules that such a trainer has imported; classes of their own for each test, as listeners stay."""
    accelerate, train_util = types.ModuleType("accelerate"), types.ModuleType("library.train_util")
    accelerate.Accelerator = type("Accelerator", (Accelerator,), {"backward": Accelerator.backward})  # type: ignore
    train_util.LossRecorder = type("LossRecorder", (LossRecorder,), {"add": LossRecorder.add})  # type: ignore
    monkeypatch.setitem(sys.modules, "accelerate", accelerate)
    monkeypatch.setitem(sys.modules, "library.train_util", train_util)
    yield
    for observer in list(ac_lora_observe._observers):
        observer.stop()


class Trainer:
    """The loop of kohya's trainers as a network sees it: five batches an epoch, a file after each."""

    def __init__(self, folder: Path, epochs: int, **how: Any) -> None:
        self.folder, self.how = folder, how
        accumulation = how.get("accumulation", 1)
        self.args = types.SimpleNamespace(max_train_epochs=epochs, max_train_steps=1600)
        torch.manual_seed(0)
        self.unet: Any = nn.Sequential(Transformer2DModel())
        arguments = {"dropout": None, **how.get("arguments", {})}
        self.network: Any = ac_lora.create_network(1.0, 6, 6, None, None, self.unet, neuron_dropout=None, **arguments)
        self.network.prepare_network(self.args)
        self.network.apply_to(None, self.unet, False, True)
        results = self.network.prepare_optimizer_params(None, 1e-2, 1e-2)
        self.optimizer = torch.optim.AdamW(results[0])
        self.network.prepare_grad_etc(None, self.unet)
        self.args.max_train_steps = epochs * -(-5 // accumulation)  # derived late
        self.accelerator = sys.modules["accelerate"].Accelerator(accumulation)
        self.recorder = sys.modules["library.train_util"].LossRecorder()
        self.losses: list[list[float]] = []
        self.restarts_when_saved: list[int] = []

    def loss(self, epoch: int, step: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(100 * epoch + step)
        x, y = torch.randn(4, 12, generator=generator), torch.randn(4, 10, generator=generator)
        h = self.unet[0].attn1_to_q(x)
        return (self.unet[0].ff(h) - 0.2 * y).square().mean()

    def train(self, first: int = 0, last: int | None = None) -> None:
        num_train_epochs = self.args.max_train_epochs
        for epoch in range(first, num_train_epochs if last is None else last):
            self.losses.append([])
            self.network.on_epoch_start(None, self.unet)
            self.steps_of(epoch)
            self.save(epoch)
        self.network_is_saved_last(last)
        del num_train_epochs

    def network_is_saved_last(self, last: int | None) -> None:
        if last is None:
            self.network.save_weights(str(self.folder / "last.safetensors"), None, {})

    def steps_of(self, epoch: int) -> None:
        for step in range(5):
            if self.how.get("step_hook", True):
                self.network.on_step_start(None, self.unet)
            loss = self.loss(epoch, step)
            self.losses[-1].append(loss.item())
            if self.how.get("backward", True):
                self.accelerator.backward(loss)
            else:
                loss.backward()
            if (step + 1) % self.accelerator.accumulation == 0 or step == 4:
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
            if self.how.get("recorder", True):
                self.recorder.add(epoch=epoch, step=step, loss=loss.item())
        self.network.eval()  # validation: its losses are recorded too
        with torch.no_grad():
            self.recorder.add(epoch=epoch, step=0, loss=100.0)
        self.network.train()

    def save(self, epoch: int) -> None:
        self.restarts_when_saved.append(len(self.network.restarts))
        self.network.save_weights(str(self.folder / f"x-{epoch + 1:06d}.safetensors"), None, {"ss_epoch": str(epoch)})

    def made(self) -> list[int]:
        return [event["epoch"] for event in self.network.restarts]


def show_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer whose options, objects and variables say nothing that is understood."""
    for finders in ("TOTAL_EPOCHS", "EPOCH", "TOTAL_STEPS"):
        monkeypatch.setattr(ac_lora_observe, finders, ())


THREE = {"ac_every_n_epochs": "3"}


def test_restarts_come_before_the_first_step_of_the_next_epoch_and_after_its_file(tmp_path):
    trainer = Trainer(tmp_path, 12, arguments=THREE)
    trainer.train()
    assert trainer.made() == [1, 4, 7, 10]
    assert trainer.restarts_when_saved == [0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4]
    assert [event["step"] for event in trainer.network.restarts] == [5, 20, 35, 50]


def test_the_loss_is_the_mean_over_the_window_without_validation(tmp_path):
    trainer = Trainer(tmp_path, 8, arguments=THREE)
    trainer.train()
    for event, (begin, end) in zip(trainer.network.restarts, ((0, 1), (1, 4), (4, 7)), strict=True):
        window = [loss for losses in trainer.losses[begin:end] for loss in losses]
        assert event["loss"] == pytest.approx(sum(window) / len(window), rel=1e-5)
        alpha = 1 + (event["epoch"] - 1) / 7
        assert event["p"] == pytest.approx(1 - event["loss"] ** alpha, rel=1e-5)


def test_steps_are_the_optimizers_under_accumulation(tmp_path):
    trainer = Trainer(tmp_path, 4, arguments={"ac_every_n_epochs": "1"}, accumulation=2)
    trainer.train()
    assert [event["step"] for event in trainer.network.restarts] == [3, 6, 9]


def test_restarts_can_be_counted_in_steps(tmp_path):
    trainer = Trainer(tmp_path, 4, arguments={"ac_every_n_steps": "3"})
    trainer.train()
    assert [event["step"] for event in trainer.network.restarts] == [3, 6, 9, 12, 15, 18]


def test_what_torch_and_accelerate_ask_of_a_module_is_answered_as_before(tmp_path):
    network = Trainer(tmp_path, 4, arguments=THREE).network
    assert {type(module) for module in network.modules()} >= {type(network), nn.Linear}


@pytest.mark.parametrize("last", [4, 6])
def test_a_resumed_run_ends_with_the_same_weights(tmp_path, last):
    """Stopped where a RESTART is due, and inside a window."""
    whole = Trainer(tmp_path, 10, arguments=THREE)
    whole.train()
    stopped = Trainer(tmp_path, 10, arguments=THREE)
    stopped.train(last=last)
    again = Trainer(tmp_path, 10, arguments=THREE)
    again.network.load_state_dict({name: t.clone() for name, t in stopped.network.state_dict().items()})
    again.optimizer.load_state_dict(stopped.optimizer.state_dict())
    again.train(first=last)
    assert again.made() == whole.made() == [1, 4, 7]
    assert [e["loss"] for e in again.network.restarts] == [e["loss"] for e in whole.network.restarts]
    assert all(torch.equal(a, b) for a, b in zip(whole.network.parameters(), again.network.parameters(), strict=True))


def test_kohyas_recorder_is_enough(tmp_path):
    trainer = Trainer(tmp_path, 5, arguments={"ac_every_n_epochs": "2"}, backward=False)
    trainer.train()
    assert trainer.made() == [1, 3]
    assert trainer.network.restarts[0]["loss"] == pytest.approx(sum(trainer.losses[0]) / 5, rel=1e-5)


def test_without_any_loss_it_refuses_at_once_and_not_after_an_epoch(tmp_path):
    trainer = Trainer(tmp_path, 5, arguments=THREE, backward=False, recorder=False)
    with pytest.raises(RuntimeError, match=r"no way to observe it works in this trainer.*set ac_p"):
        trainer.train()
    assert len(trainer.losses[0]) == 2


def test_a_fixed_threshold_needs_no_loss(tmp_path):
    trainer = Trainer(tmp_path, 5, arguments={**THREE, "ac_p": "0.9"}, backward=False, recorder=False)
    trainer.train()
    assert trainer.made() == [1, 4]
    assert trainer.network.restarts[0]["loss"] is None


def test_a_trainer_without_the_step_hook_is_reported_at_the_start_of_an_epoch(tmp_path):
    trainer = Trainer(tmp_path, 5, arguments=THREE, step_hook=False)
    trainer.train()
    assert trainer.made() == [1, 4]


def test_it_says_how_it_observes_and_what_it_did(tmp_path, caplog):
    caplog.set_level("INFO")
    Trainer(tmp_path, 12, arguments=THREE).train()
    said = [record.message for record in caplog.records]
    assert sum("observes this trainer: the loss from accelerate's backward()" in line for line in said) == 1
    assert any("will make 4 RESTARTs in 12 epochs of 60 steps" in line for line in said)
    assert any("RESTART 4 after epoch 10: p " in line for line in said)
    assert any("made 4 RESTARTs and cut" in line for line in said)


def test_a_run_that_could_make_no_restart_fails_once_its_file_is_written(tmp_path, caplog):
    caplog.set_level("INFO")
    with pytest.raises(RuntimeError, match="made no RESTART"):
        Trainer(tmp_path, 1, arguments=THREE).train()
    assert any("can make no RESTART in 1 epoch" in record.message for record in caplog.records)
    assert load_file(tmp_path / "x-000001.safetensors")


def test_a_trainer_that_reports_its_progress_is_not_observed(tmp_path):
    trainer = Trainer(tmp_path, 3, arguments={"ac_every_n_epochs": "1", "ac_p": "0.9"})
    trainer.network.announce(3, 15)
    assert trainer.network.is_observing is False
    trainer.train(last=3)
    assert trainer.made() == []
    facts = types.SimpleNamespace(
        epochs_done=1, total_epochs=3, global_step=5, total_steps=15, loss_sum=1.0, relative_mse_sum=1.0, count=5
    )
    assert trainer.network.on_progress(facts)["epoch"] == 1
    assert not list(ac_lora_observe._observers)


def test_the_observation_ends_with_its_network(tmp_path):
    trainer = Trainer(tmp_path, 2, arguments=THREE)
    trainer.train(last=1)
    observer = trainer.network.observer
    trainer.network.on_progress(
        types.SimpleNamespace(
            epochs_done=1, total_epochs=3, global_step=5, total_steps=15, loss_sum=1.0, relative_mse_sum=1.0, count=5
        )
    )
    steps = observer.optimizer_steps
    trainer.steps_of(1)
    assert observer.optimizer_steps == steps


def test_steps_of_an_optimizer_of_something_else_are_not_counted(tmp_path):
    trainer = Trainer(tmp_path, 4, arguments={"ac_every_n_epochs": "1"})
    other = nn.Parameter(torch.ones(2))
    optimizer, begin = torch.optim.SGD([other], 0.1), trainer.network.on_step_start

    def on_step_start(*models: Any) -> None:
        begin(*models)
        other.grad = torch.ones(2)
        optimizer.step()

    trainer.network.on_step_start = on_step_start
    trainer.train()
    assert [event["step"] for event in trainer.network.restarts] == [5, 10, 15]


def test_a_run_that_begins_at_a_later_epoch_without_a_state_counts_from_there(tmp_path):
    trainer = Trainer(tmp_path, 12, arguments=THREE)
    trainer.train(first=3)  # as kohya's --initial_epoch
    assert trainer.made() == [4, 7, 10]


def test_the_number_of_epochs_is_guessed_from_the_steps_where_it_cannot_be_seen(tmp_path, monkeypatch):
    show_nothing(monkeypatch)
    trainer = Trainer(tmp_path, 8, arguments=THREE)
    trainer.network.trainer_options = types.SimpleNamespace(max_train_epochs=None, max_train_steps=5 * 8)
    trainer.train()
    assert trainer.made() == [1, 4, 7]
    event = trainer.network.restarts[1]
    assert event["p"] == pytest.approx(1 - event["loss"] ** (1 + 3 / 7), rel=1e-5)


def test_the_loss_is_summed_over_all_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(
        ac_lora_observe.Observer,
        "_over_all_processes",
        lambda self, loss_sum, count: [loss_sum + 0.5 * count, 2 * count],
    )
    trainer = Trainer(tmp_path, 4, arguments={"ac_every_n_epochs": "1"})
    trainer.train()
    mean = sum(trainer.losses[0]) / 5
    assert trainer.network.restarts[0]["loss"] == pytest.approx((mean + 0.5) / 2, rel=1e-5)


def test_adding_up_the_loss_reads_nothing_back(tmp_path):
    """No wait for the device within an epoch: what is added stays a tensor."""
    trainer = Trainer(tmp_path, 4, arguments=THREE)
    trainer.losses.append([])
    trainer.network.on_epoch_start(None, trainer.unet)
    trainer.steps_of(0)
    assert isinstance(trainer.network.observer._fresh_sum, torch.Tensor)
    assert not trainer.network.observer._fresh_sum.requires_grad


def test_a_trainer_of_which_nothing_can_be_seen_is_refused_at_its_third_batch(tmp_path, monkeypatch):
    show_nothing(monkeypatch)
    trainer = Trainer(tmp_path, 5, arguments=THREE, backward=False, recorder=False)
    with pytest.raises(RuntimeError, match="no way to observe it works"):
        trainer.train()
    assert len(trainer.losses[0]) == 2
