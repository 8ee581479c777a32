"""Both pivots through the house's loop: what changes, what does not, what is given to whom."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from library.models.hashes import weights_hash
from library.training.loop import fit
from library.training.run import Run
from restoration.pivots.batches import RestorationBatch
from restoration.pivots.objective import Restoration, RestorationSpec
from restoration.system.system import IRControlNet, System


def system_of(run: Run) -> System:
    assert isinstance(run.objective, Restoration)
    return run.objective._system


def first_batch(run: Run) -> RestorationBatch:
    (batch,) = next(iter(run.batches.epoch(1)))
    assert isinstance(batch, RestorationBatch)
    return batch


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> int:
    return sum(not torch.equal(before[name], after[name]) for name in before)


def copies(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_one_command_trains_both_pivots_and_their_files_say_whose_they_are(person: Callable[..., int], tmp_path: Path):
    assert person(report="true", ema_decay=0.9) == 0
    out = tmp_path / "out"
    for pivot in ("G", "E"):
        average, last = (load_file(out / f"ana_{pivot}{kind}.safetensors") for kind in ("-ema", ""))
        assert average.keys() == last.keys()
        assert changed(average, last)
        assert "finished at step 2 of 2" in (out / f"ana_{pivot}-report.html").read_text("utf-8")
    g, e = load_file(out / "ana_G.safetensors"), load_file(out / "ana_E.safetensors")
    assert "conv_out.weight" in g
    assert "controlnet_mid_block.weight" in e
    with safe_open(out / "ana_G.safetensors", "pt") as file:
        header = file.metadata()
    assert header["pivot_prompt"] == "a photo of a sks woman"
    assert header["pivot_class_prompt"] == "a photo of a woman"
    assert header["ss_steps"] == "2"


@pytest.mark.parametrize("pivot", ["text", "model"])
def test_a_step_changes_every_tensor_of_what_it_trains_and_nothing_else(pivot: str, built, person, monkeypatch):
    if pivot == "model":
        assert person(pivot="text", text_max_train_steps=1) == 0
    run = built(pivot, **{f"{pivot}_max_train_steps": 2})
    system = system_of(run)
    trained, frozen = (system.unet, system.encoder) if pivot == "text" else (system.encoder, system.unet)
    others = [frozen, system.model.vae, *system.model.text_encoders]
    before, marks = copies(trained), [weights_hash(other) for other in others]
    given: list[torch.Tensor] = []
    forward = IRControlNet.forward

    def spy(self, sample, timestep, hidden, *rest, **named):
        given.append(hidden)
        return forward(self, sample, timestep, hidden, *rest, **named)

    monkeypatch.setattr(IRControlNet, "forward", spy)
    with run.lock, run.signals:
        fit(run)
    assert changed(before, trained.state_dict()) == len(before) > 300
    assert [weights_hash(other) for other in others] == marks
    assert all(parameter.grad is None for other in others for parameter in other.parameters())
    assert len(given) == 2
    assert all(torch.equal(row, system.null[0]) for hidden in given for row in hidden)
    assert all(len(hidden) == (2 if pivot == "text" else 1) for hidden in given)  # the prior goes through E as well


def test_step_1_is_in_context_and_reaches_the_encoder_of_g(built):
    run = built("text")
    unet, batch = system_of(run).unet, first_batch(run)
    loss = run.objective.loss(batch)
    loss.weighted_mean().backward()
    for name in ("conv_in.weight", "down_blocks.0.resnets.0.conv1.weight", "mid_block.resnets.0.conv1.weight"):
        gradient = unet.get_parameter(name).grad
        assert gradient is not None
        assert gradient.norm() > 0, name
    with torch.no_grad():
        batch.conditions = batch.conditions.flip(-1)
        assert not torch.equal(run.objective.loss(batch).per_sample, loss.per_sample)


def test_out_of_context_the_degraded_picture_changes_nothing(built):
    run = built("text", in_context="false")
    batch = first_batch(run)
    with torch.no_grad():
        before = run.objective.loss(batch).per_sample
        batch.conditions = batch.conditions.flip(-1)
        assert torch.equal(run.objective.loss(batch).per_sample, before)


def test_the_prior_is_added_by_its_weight_and_g_reads_the_class_prompt_for_it(built):
    whole, half, none = (built("text", prior_loss_weight=weight) for weight in (1.0, 0.5, 0.0))
    batch = first_batch(whole)
    assert batch.captions == ["a photo of a sks woman", "a photo of a woman"]
    with torch.no_grad():
        instance, prior = whole.objective.loss(batch).per_sample
        assert float(whole.objective.loss(batch).weighted_mean()) == pytest.approx(float(instance + prior), abs=1e-6)
        by_half = half.objective.loss(first_batch(half)).weighted_mean()
        alone = none.objective.loss(first_batch(none))
    assert float(by_half) == pytest.approx(float(instance + 0.5 * prior), abs=1e-6)
    assert len(alone.per_sample) == 1
    assert float(alone.weighted_mean()) == pytest.approx(float(instance), abs=1e-5)


def test_timesteps_are_where_eq_8_uses_the_prompt(built):
    from library.diffusion.noise import NoiseSpec, draw_timestep

    def drawn(spec: NoiseSpec) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.stack([draw_timestep(spec, 1000, lambda purpose: generator) for _ in range(10_000)])

    half = drawn(RestorationSpec(gamma=0.5).text_timesteps)
    assert 0 <= half.min() < 5
    assert 494 < half.max() < 500
    counts = torch.histc(half.float(), bins=10, min=0, max=500)
    chi_squared = float(((counts - 1000) ** 2 / 1000).sum())
    assert chi_squared < 27.9  # p > .001 at 9 degrees of freedom
    assert 690 < drawn(RestorationSpec(gamma=0.3).text_timesteps).max() < 700
    explicit = drawn(RestorationSpec(gamma=0.5, min_timestep=100, max_timestep=200).text_timesteps)
    assert (explicit.min(), explicit.max()) == (100, 199)
    run = built("text")
    losses = [run.objective.loss(batch) for (batch,) in run.batches.epoch(1)]
    assert all(timestep < 500 for loss in losses for timestep in loss.timesteps)


def test_in_step_2_g_reads_its_prompt_at_all_noise_levels_or_the_null_text_above_gamma(built, person, monkeypatch):
    assert person(pivot="text", text_max_train_steps=1) == 0
    for text, expected in (("prompt", [False, False]), ("null", [False, True])):
        run = built("model", high_noise_text=text)
        system, batch = system_of(run), first_batch(run)
        read: list[bool] = []
        predict = System.predict

        def spy(self, noisy, timesteps, hidden, controls, read=read, predict=predict):
            read.append(torch.equal(hidden.cpu(), self.null))
            return predict(self, noisy, timesteps, hidden, controls)

        monkeypatch.setattr(System, "predict", spy)
        for timestep in (499, 500):
            run.objective.loss_at(batch, torch.tensor([timestep]))  # type: ignore[attr-defined]
        monkeypatch.setattr(System, "predict", predict)
        assert read == expected
        assert system.unet.training is False


def weights(out: Path) -> list[torch.Tensor]:
    return list(load_file(out / "ana_G.safetensors").values())


def test_the_same_seed_gives_the_same_weights_and_a_resumed_run_those_of_a_straight_one(person, tmp_path):
    straight, again, resumed = (tmp_path / name for name in ("straight", "again", "resumed"))
    steps = {"pivot": "text", "text_max_train_steps": 4, "ema_decay": 0.9}
    assert person(output_dir=straight, **steps) == 0
    assert person(output_dir=again, cache_conditions="false", **steps) == 0
    half = steps | {"text_max_train_steps": 2}
    assert person(output_dir=resumed, save_state_on_train_end="true", **half) == 0
    assert person(output_dir=resumed, resume="latest", **steps) == 0
    for other in (again, resumed):
        assert all(torch.equal(a, b) for a, b in zip(weights(straight), weights(other), strict=True)), other.name
    averages = [load_file(folder / "ana_G-ema.safetensors") for folder in (straight, resumed)]
    assert not changed(*averages)


def test_a_lora_on_g_is_trained_in_megabytes_and_restores(person, tmp_path, restorer_folder):
    from restoration.restore import main as restore

    assert person(network_module="networks.lora", network_dim=2, pivot="both") == 0
    lora, whole = (tmp_path / "out" / f"ana_{part}.safetensors" for part in "GE")
    assert lora.stat().st_size < whole.stat().st_size / 3
    argv = ["--pretrained_model_name_or_path", str(restorer_folder), "--output_dir", str(tmp_path / "out"), "--steps"]
    argv += ["2", "--output_name", "ana", "--input", str(tmp_path / "ana"), "--output", str(tmp_path / "restored")]
    assert restore(argv) == 0
    assert len(list((tmp_path / "restored").iterdir())) == 3


def test_e_is_trained_on_several_people_each_with_their_own_g(person, restorer_folder, tmp_path, faces):
    from restoration.pivots.build import build_pivot
    from restoration.train import read_settings
    from tests.restoration.conftest import write_faces

    write_faces(tmp_path / "ben", faces[5:8])
    assert person(pivot="text", output_name="ana", text_max_train_steps=1) == 0
    assert person(pivot="text", output_name="ben", reference_dir=tmp_path / "ben", text_max_train_steps=3) == 0
    out = tmp_path / "out"
    words = [f"{tmp_path / name}={out / f'{name}_G.safetensors'}" for name in ("ana", "ben")]
    argv = ["--pivot", "model", "--prompt", "a photo of a sks woman", "--output_dir", str(out), "--output_name", "both"]
    argv += ["--pretrained_model_name_or_path", str(restorer_folder), "--model_max_train_steps", "6"]
    argv += ["--identities", *words]
    run = build_pivot(read_settings(argv), "model")
    system = system_of(run)
    seen = {}
    for (batch,) in run.batches.epoch(1):
        assert isinstance(batch, RestorationBatch)
        run.objective.loss(batch)
        seen[Path(batch.person).name] = system.unet.state_dict()["conv_out.weight"].clone()
    assert seen.keys() == {"ana", "ben"}
    for name, tensor in seen.items():
        assert torch.equal(tensor, load_file(out / f"{name}_G.safetensors")["conv_out.weight"])
    assert not torch.equal(seen["ana"], seen["ben"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prompt": "a photo of a woman"}, "does not have the word"),
        ({"reference_dir": "nowhere"}, "nowhere"),
        ({"resolution": 512}, "smaller than 512 pixels"),
        ({"gamma": 1.0}, "never uses the person"),
        ({"pivot": "model"}, "--pivot text"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(options: dict, said: str, person, capfd):
    assert person(**options) != 0
    error = capfd.readouterr().err
    assert said in error
    assert "Traceback" not in error
