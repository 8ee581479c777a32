"""AC-LoRA in the main job: resumed, beside samples and accumulation, in two processes, and in diffusers."""

import json
import multiprocessing
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from library.errors import UserError
from networks import ac_lora
from networks.ac_lora_observe import Observer
from networks.ac_lora_options import OPTIONS
from networks.ac_lora_restart import Module
from tests.benchmarks import planted_rank
from tests.benchmarks.restart_cost import make_modules, shapes

EVERY = ["ac_every_n_epochs=1", "export_rank=full"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "t.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def said_by_file(folder: Path) -> list[dict[str, Any]]:
    """The course of the RESTARTs as the network's own state has kept it."""
    with safe_open(folder / "t.safetensors", "pt") as file:
        return json.loads(file.metadata()["ss_ac_lora_restarts"])


def restarts(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "t-log.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if line.get("event") == "restart"]


def stopping_after(steps: int) -> Any:
    """An `on_step_start` that lets so many steps begin, and breaks off before the next: a RESTART due then is made."""
    begin, begun = ac_lora.ACLoRANetwork.on_step_start, []

    def on_step_start(self: Any, *models: Any) -> None:
        if len(begun) == steps:
            raise UserError("the power is gone")
        begun.append(self)
        begin(self, *models)

    return on_step_start


def test_a_run_of_ten_restarts_stopped_between_and_inside_windows_ends_the_same(train, tmp_path, monkeypatch):
    run = {
        "network_module": "networks.ac_lora", "network_args": [*EVERY, "ac_mode=product", "ac_p=auto"],
        "max_train_epochs": 11, "max_train_steps": None, "train_batch_size": 4, "network_train_unet_only": True,
    }  # fmt: skip
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(output_dir=whole, **run) == 0
    for steps in (4, 3):  # an epoch is two steps: where a RESTART is due and was just made, and inside a window
        with monkeypatch.context() as patch:
            patch.setattr(ac_lora.ACLoRANetwork, "on_step_start", stopping_after(steps))
            assert train(output_dir=parts, resume="latest", **run) == 1
    assert train(output_dir=parts, resume="latest", **run) == 0
    assert [event["epoch"] for event in restarts(whole)] == list(range(1, 11))
    assert said_by_file(whole) == said_by_file(parts)
    assert same(weights(whole), weights(parts))


def test_samples_between_steps_change_nothing_and_accumulation_only_roundings(train, tmp_path):
    (tmp_path / "prompts.txt").write_text("sks --w 64 --h 64 --s 2 --d 1", encoding="utf-8")
    run = {
        "network_module": "networks.ac_lora", "network_args": [*EVERY, "ac_mode=product"], "train_batch_size": 4,
        "max_train_steps": 6, "learning_rate": 1e-4, "network_train_unet_only": True,
    }  # fmt: skip
    plain, sampled, accumulated = (tmp_path / name for name in ("plain", "sampled", "accumulated"))
    assert train(output_dir=plain, **run) == 0
    more = {"sample_prompts": tmp_path / "prompts.txt", "sample_every_n_steps": 3}
    assert train(output_dir=sampled, **run, **more) == 0
    assert same(weights(plain), weights(sampled))
    halves = {**run, "train_batch_size": 2, "gradient_accumulation_steps": 2}
    assert train(output_dir=accumulated, **halves) == 0
    one, other = restarts(plain), restarts(accumulated)
    assert [event["epoch"] for event in one] == [event["epoch"] for event in other] == [1, 2]
    assert one[0]["mean_rank"] == pytest.approx(other[0]["mean_rank"], rel=0.02)
    assert one[0]["loss"] == pytest.approx(other[0]["loss"], rel=1e-5)


def test_without_restarts_the_main_job_trains_the_base_module_to_the_bit(train, tmp_path):
    plain, off = tmp_path / "plain", tmp_path / "off"
    assert train(output_dir=plain) == 0
    arguments = ["ac_every_n_epochs=0", "export_rank=full"]
    assert train(output_dir=off, network_module="networks.ac_lora", network_args=arguments) == 0
    assert same(weights(plain), weights(off))


def test_a_run_too_short_for_a_restart_is_refused_before_a_model_is_loaded(train, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("library.training.setup.build.load_base_model", None)
    assert train(network_module="networks.ac_lora", max_train_steps=3) == 1
    assert (
        "AC-LoRA can make no RESTART in 1 epoch of 3 steps altogether, so this would train" in capsys.readouterr().err
    )
    assert not list((tmp_path / "out").glob("t*"))


def test_unknown_options_are_refused_before_a_model_is_loaded(train, capsys):
    assert train(network_module="networks.ac_lora", network_args=["ac_mod=product"]) != 0
    assert "did you mean `ac_mode`" in capsys.readouterr().err


# --- two processes


def _restart_beside_another(rank: int, folder: str) -> None:
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "RANK": str(rank), "WORLD_SIZE": "2"})
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    torch.manual_seed(0)
    modules = [Module(str(i), torch.randn(6, 20), torch.randn(10, 6)) for i in range(3)]
    modules[0].down.add_(1e-7 * rank)  # the last bits may differ between devices
    modules[1].up.add_(1e-7 * rank)
    event = ac_lora.shared_between_processes(modules, {"ranks": {"0": 3 + rank}})
    observer: Any = SimpleNamespace(network=nn.Linear(1, 1))
    assert Observer._over_all_processes(observer, 1.0 + rank, 2) == [3.0, 4]
    torch.save(([factor for m in modules for factor in (m.down, m.up)], event), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="gloo's file store")
def test_two_processes_have_the_same_weights_and_ranks_after_a_restart(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_restart_beside_another, args=(rank, str(tmp_path))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    (one, event), (other, others_event) = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert event == others_event == {"ranks": {"0": 3}}
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# --- diffusers


def test_a_cut_file_gives_the_same_noise_in_diffusers(tmp_path):
    pytest.importorskip("peft", reason="diffusers loads LoRA files through peft")
    from copy import deepcopy

    from diffusers import DDIMScheduler, StableDiffusionPipeline

    from library.models.family import Family
    from miniworld.tiny import build

    ours = build(Family.SD1)
    theirs: Any = deepcopy(ours)
    network: Any = ac_lora.create_network(1.0, 6, 3, None, ours.text_encoders[0], ours.unet, export_rank="energy:1")
    network.apply_to(ours.text_encoders[0], ours.unet, True, True)
    for i, module in enumerate(network.matrices()):
        nn.init.normal_(module.up, std=0.05)
        module.up.data[:, 2 + i % 4 :] = 0  # of different ranks
    network.eval()
    network.save_weights(str(tmp_path / "cut.safetensors"), None, {})
    assert {t.shape[0] for n, t in load_file(tmp_path / "cut.safetensors").items() if "lora_down" in n} == {2, 3, 4, 5}
    pipeline = StableDiffusionPipeline(
        vae=theirs.vae, unet=theirs.unet, scheduler=DDIMScheduler.from_config(theirs.scheduler_config),  # type: ignore
        text_encoder=theirs.text_encoders[0], tokenizer=theirs.tokenizers[0], safety_checker=None,  # type: ignore
        feature_extractor=None, requires_safety_checker=False,  # type: ignore
    )  # fmt: skip
    pipeline.load_lora_weights(str(tmp_path), weight_name="cut.safetensors")
    layers = [name for part in (pipeline.unet, pipeline.text_encoder) for name, _ in part.named_modules()]
    assert sum(name.endswith("lora_A.default_0") for name in layers) == len(network.matrices())
    generator = torch.Generator().manual_seed(0)
    inputs = (torch.randn(2, 4, 8, 8, generator=generator), torch.tensor([3, 700]))
    context = torch.randn(2, 77, 32, generator=generator)
    with torch.no_grad():
        one = ours.unet(*inputs, encoder_hidden_states=context).sample
        other = pipeline.unet(*inputs, encoder_hidden_states=context).sample
    assert torch.allclose(one, other, atol=1e-5)


# --- the benchmarks, in short


def test_product_finds_planted_ranks_that_paper_does_not():
    """A quarter of the bench: two seeds, the small shift, 600 of 1200 steps."""
    seeds = [0, 1]
    problem = planted_rank.make_problem(planted_rank.TASKS["B"], seeds)
    product, paper = (
        planted_rank.train(planted_rank.METHODS[name], problem, seeds, steps=600)
        for name in ("product R=32", "paper R=32")
    )
    assert product.ranks is not None
    assert paper.ranks is not None
    assert planted_rank.rank_error(product.ranks, problem.planted) < 0.8
    assert planted_rank.spearman(product.ranks, problem.planted) > 0.8
    assert planted_rank.rank_error(paper.ranks, problem.planted) > 1.2
    assert float(product.error.mean()) < 0.7 * float(paper.error.mean())


def test_the_manual_names_every_option():
    manual = (Path(__file__).resolve().parents[2] / "docs" / "ac_lora.md").read_text(encoding="utf-8")
    assert [name for name in OPTIONS if f"`{name}`" not in manual] == []


def test_the_cost_bench_has_all_modules_of_sdxl():
    assert sum(shapes().values()) == 986
    assert len(shapes()) == 12
    assert len(make_modules(1, 986, "cpu")) == 986
