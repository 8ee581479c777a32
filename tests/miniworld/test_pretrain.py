from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from miniworld.architecture import build_vae
from miniworld.captions import VOCABULARY
from miniworld.pretrain import drawings, latents, text_encoder, unet, vae
from miniworld.pretrain.lockstep import Process, TrainingStage, draws
from miniworld.pretrain.schedule import learning_rate, steps_in
from miniworld.tokenizer import write_tokenizer

HERE = Process()


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A work folder with a dozen drawings, a tokenizer, and random latents."""
    folder = tmp_path_factory.mktemp("work")
    for name in drawings.SETS:
        pixels = np.empty((12, 128, 128, 3), np.uint8)
        np.save(folder / f"{name}.npy", pixels)
        words = drawings._draw_chunk((folder / f"{name}.npy", name, 0, 0, 12))
        text = {"captions": [caption for caption, _ in words], "kinds": [kind for _, kind in words]}
        (folder / f"{name}.json").write_text(json.dumps(text), encoding="utf-8")
    write_tokenizer(VOCABULARY, folder / "tokenizer")
    torch.manual_seed(0)
    encoded = torch.randn(12, 4, 16, 16).half()
    torch.save({"train": encoded, "validation": encoded}, folder / "latents.pt")
    return folder


def tiny_stage(folder, steps: int = 6) -> TrainingStage:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    return TrainingStage("tiny", folder, HERE, model, optimizer, steps=steps, minutes=None, average_decay=0.9)


def walk(stage: TrainingStage, stop: int | None = None) -> None:
    for step in stage.remaining():
        rng = draws(0, "tiny", step)
        target = torch.from_numpy(rng.normal(size=2)).float()
        (stage.model(torch.ones(3)) - target).square().sum().backward()
        stage.update(learning_rate(step, stage.steps, 0.1, warm_up=2))
        if stage.step == stop:
            stage.save()
            return


def test_a_resumed_stage_ends_bit_for_bit_where_an_undisturbed_one_does(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = tiny_stage(tmp_path / "whole")
    walk(whole)
    walk(tiny_stage(tmp_path / "cut"), stop=3)
    resumed = tiny_stage(tmp_path / "cut")
    assert resumed.step == 3
    walk(resumed)
    assert torch.equal(whole.parameters[0], resumed.parameters[0])
    assert all(torch.equal(a, b) for a, b in zip(whole.average, resumed.average, strict=True))


def test_a_finished_stage_does_nothing_more(tmp_path):
    walk(tiny_stage(tmp_path))
    again = tiny_stage(tmp_path)
    assert list(again.remaining()) == []


def test_the_average_is_only_borrowed(tmp_path):
    stage = tiny_stage(tmp_path)
    walk(stage)
    trained = stage.parameters[0].detach().clone()
    with stage.averaged():
        assert torch.equal(stage.parameters[0], stage.average[0])
    assert torch.equal(stage.parameters[0], trained)
    assert not torch.equal(stage.average[0], trained)


def test_a_global_batch_is_cut_over_processes_without_gap_or_overlap():
    rows = [row for rank in range(4) for row in range(32)[Process(rank, 4).share(32)]]
    assert rows == list(range(32))
    with pytest.raises(ValueError, match="cannot be cut"):
        Process(0, 3).share(32)


def test_the_learning_rate_warms_up_stays_and_falls_to_zero():
    rates = [learning_rate(step, 100, 1.0, warm_up=10, flat=0.5) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[50] == 1.0
    assert rates[75] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0)


def test_a_time_budget_picks_the_number_of_steps():
    assert steps_in(60.0, 0.5, at_least=10) == 120
    assert steps_in(1.0, 0.5, at_least=10) == 10


def test_the_vae_learns_from_one_picture(work):
    torch.manual_seed(0)
    autoencoder = build_vae(widths=(8, 8, 8, 8))
    optimizer = torch.optim.AdamW(autoencoder.parameters(), 3e-3)
    pictures = vae.to_tensor(drawings.read(work, "train").pixels[:2, :64, :64])
    errors = []
    for _ in range(6):
        loss, divergence = vae.losses(autoencoder, pictures, torch.Generator().manual_seed(0), HERE)
        (loss + vae.KL_WEIGHT * divergence).backward()
        optimizer.step()
        optimizer.zero_grad()
        errors.append(loss.item())
    assert errors[-1] < errors[0]


def test_vae_batches_are_crops_then_close_ups_and_whole_pictures(work):
    recipe = vae.VaeRecipe(steps=30, minutes=None, crops=12)
    train_set, art = drawings.read(work, "train"), drawings.read(work, "art")

    def shape(step: int) -> tuple[int, ...]:
        arguments = (np.random.default_rng(step), step, 30, recipe, train_set, art, train_set.faces(), HERE)
        return vae.batch(*arguments).shape

    assert shape(0) == shape(19) == (12, 64, 64, 3)
    assert shape(20) == (12, 64, 64, 3)
    assert shape(21) == (4, 128, 128, 3)


def test_standardised_latents_have_unit_std_and_decode_to_the_same_picture():
    torch.manual_seed(0)
    autoencoder: Any = build_vae(widths=(8, 8, 8, 8)).eval()
    pictures = torch.rand(4, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        before = vae.reconstruct(autoencoder, pictures)
        vae.standardise(autoencoder, autoencoder.encode(pictures).latent_dist.mean)
        scaled = autoencoder.encode(pictures).latent_dist.mean * vae.SCALING_FACTOR
    torch.testing.assert_close(scaled.std((0, 2, 3)), torch.ones(4), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(scaled.mean((0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-3)
    torch.testing.assert_close(vae.reconstruct(autoencoder, pictures), before, rtol=1e-3, atol=1e-3)


def test_the_text_encoder_stage_changes_weights_and_holds_clips_scales(work):
    recipe = text_encoder.TextEncoderRecipe(steps=2, minutes=None, groups=1, group_size=8)
    text_encoder.train(HERE, work, 0, recipe)
    model = unet.build_model(len(write_tokenizer(VOCABULARY, work / "tokenizer")), work / "text_encoder.pt")
    ids = torch.arange(0, 1500, 20)[None, :70]
    assert text_encoder.norm_ratio(model["text_encoder"], ids) > 30


def test_the_unet_learns_to_predict_the_noise_of_one_picture(work):
    torch.manual_seed(0)
    model = unet.build_model(vocabulary_size=50)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    clean, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    captions, timesteps = torch.randint(0, 48, (2, 8)), torch.tensor([100, 800])
    errors = []
    for _ in range(8):
        loss = unet.squared_errors(model, clean, captions, timesteps, noise).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        errors.append(loss.item())
    assert errors[-1] < 0.9 * errors[0]


def test_noise_and_weights_follow_their_papers():
    clean, noise = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    for timestep in (0, 500, 999):
        alpha = unet.ALPHAS_CUMPROD[timestep]
        at = torch.tensor([timestep])
        assert unet.add_noise(clean, noise, at).item() == pytest.approx(alpha.sqrt().item())
        snr = alpha / (1 - alpha)
        assert unet.min_snr_weight(at).item() == pytest.approx(min(1.0, 5.0 / snr.item()), rel=1e-5)


def test_timesteps_cover_every_stratum_once():
    timesteps = unet.stratified_timesteps(np.random.default_rng(0), 20)
    assert sorted(t // 50 for t in timesteps.tolist()) == list(range(20))


def test_drawing_a_chunk_again_gives_the_same_pictures(work):
    first = drawings.read(work, "train")
    pixels = first.pixels.copy()
    drawings._draw_chunk((work / "train.npy", "train", 0, 0, 12))
    assert np.array_equal(pixels, drawings.read(work, "train").pixels)
    assert not np.array_equal(pixels, drawings.read(work, "validation").pixels)


def test_latents_already_there_are_kept(work):
    before = (work / "latents.pt").read_bytes()
    latents.encode_all(work, 1, "cpu")
    assert (work / "latents.pt").read_bytes() == before
