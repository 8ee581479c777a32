"""What reaches a pivot and a restored picture: conditions, weights, seeds, colours, guidance."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from library.diffusion.noise import NoiseSpec
from restoration.damage.degradation import PRESETS, degrade, generator, jpeg
from restoration.pivots import samples
from restoration.pivots.batches import Latents
from restoration.pivots.faces import ReferenceFace, read_face
from restoration.restoring import restore_folder
from restoration.restoring.colour import COLOUR_FIXES
from restoration.restoring.sampling import Sampling, restore, sample, scheduler_for
from restoration.system.cleaner import bicubic
from tests.restoration.conftest import one_picture, write_faces
from tests.restoration.restoring.test_sampling import Calls, run
from tests.restoration.test_train import first_batch, system_of


def test_a_training_condition_is_the_scaled_mode_of_the_cleaned_damage_of_its_epoch(tmp_path, faces):
    class Eighth:
        std = 1.0

        def encode_posterior(self, images):
            return images[:, :, ::8, ::8], self.std * torch.ones(1, 3, 8, 8)

    face = ReferenceFace(write_faces(tmp_path / "ana", faces[:1]) / "00.png", "p")
    latents = Latents(Eighth(), lambda pictures: 0.5 * pictures, PRESETS["face"], 0.18215, 64, seed=7)
    for epoch in (1, 2):
        damaged = degrade(read_face(face.path, 64), PRESETS["face"], generator(7, epoch, face.sample_id))
        expected = 0.18215 * torch.from_numpy(damaged - 1)[::8, ::8].permute(2, 0, 1)  # 2 (0.5 d) - 1
        torch.testing.assert_close(latents.condition(face, epoch), expected)
    assert not torch.equal(latents.condition(face, 1), latents.condition(face, 2))
    Eighth.std = 0.0
    clean = Latents(Eighth(), lambda pictures: pictures, PRESETS["face"], 0.18215, 64, seed=7).clean(face, 1)
    wanted = 2 * torch.from_numpy(read_face(face.path, 64))[::8, ::8].permute(2, 0, 1) - 1
    torch.testing.assert_close(clean, 0.18215 * wanted)


def test_the_damage_in_training_is_brought_to_the_size_of_the_pictures(built):
    assert built("text").batches.latents._degradation == PRESETS["face"].for_size(64)


def test_step_2_trains_e_around_g_p_with_the_persons_prompt_at_all_timesteps(built, person, tmp_path):
    assert person(pivot="text", text_max_train_steps=1) == 0
    run = built("model")
    g_p = load_file(tmp_path / "out" / "ana_G.safetensors")
    assert torch.equal(system_of(run).unet.state_dict()["conv_in.weight"], g_p["conv_in.weight"])
    assert first_batch(run).captions == ["a photo of a sks woman"]
    assert run.objective._noise == NoiseSpec()
    assert first_batch(built("model", train_data_dir=tmp_path / "others")).captions == ["a photo of a woman"]


def test_guidance_reaches_the_sampler_with_its_sign(system):
    Calls(system)  # G answers 0.1 x to the null text and 0.2 x to the prompt: w = 2 is 0.3 x
    two = run(system, Sampling(gamma=0.0, guidance_scale=2.0, steps=4))
    system.model.unet.forward = lambda noisy, timesteps, text, **_: (noisy * 0.3,)
    torch.testing.assert_close(two, run(system, Sampling(gamma=0.0, steps=4)))


def test_noise_depends_on_the_seed_and_the_pictures_name(system):
    def noise(name, seed):
        return sample(system, torch.zeros(1, 4, 8, 8), system.null, system.null, [name], Sampling(steps=1, seed=seed))

    first = noise("a.png", 1)
    assert torch.equal(first, noise("a.png", 1))
    assert not torch.equal(first, noise("b.png", 1))
    assert not torch.equal(first, noise("a.png", 2))


def test_the_colour_fix_reads_the_decoded_picture_first_and_the_degraded_one_second(system, monkeypatch):
    seen = []
    monkeypatch.setitem(COLOUR_FIXES, "none", lambda mine, theirs: seen.append((mine, theirs)) or mine)
    pictures, short = torch.rand(1, 3, 64, 64), Sampling(steps=2, color_fix="none")
    restore(system, pictures, system.null, ["a"], short)
    latents = sample(system, system.condition(pictures), system.null, system.null, ["a"], short)
    with torch.no_grad():
        expected = system.model.vae.decode(latents / 0.18215).sample / 2 + 0.5
    torch.testing.assert_close(seen[0][0], expected)
    assert torch.equal(seen[0][1], pictures)


def test_v2_1_s_sampler_begins_at_no_signal():
    config = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    assert float(scheduler_for(config).alphas_cumprod[-1]) == 0


@pytest.fixture
def given(monkeypatch):
    seen, real = [], restore_folder.restore
    monkeypatch.setattr(restore_folder, "restore", lambda *a: seen.append(a) or real(*a))
    return seen


def test_a_person_is_g_p_and_e_pr_and_blind_is_neither(restored, trained, given, tmp_path, faces):
    source = one_picture(tmp_path / "in", faces[0])
    g, e = (load_file(trained / f"ana_{part}.safetensors")["conv_in.weight"] for part in "GE")
    for blind in ({}, {"blind": True}):
        assert restored(source, f"out{len(blind)}", cleaner="bicubic", **blind)[0] == 0
        system, _, text, _, sampling, cleaner = given[-1]
        assert torch.equal(system.unet.state_dict()["conv_in.weight"], g) is not bool(blind)
        assert torch.equal(system.encoder.state_dict()["conv_in.weight"], e) is not bool(blind)
        assert torch.equal(text, system.null) is bool(blind)
        assert sampling.gamma == (1.0 if blind else 0.3)
        assert cleaner is bicubic


def test_restoring_reads_colours_red_first_and_blurs_for_a_swap_by_the_pictures_size(restored, given, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, 20:30, 0] = 255
    Image.fromarray(pixels).save(folder / "a.png")
    assert restored(folder, mode="swap")[0] == 0
    expected = cv2.GaussianBlur(pixels, (0, 0), 8 * 64 / 512)
    assert np.array_equal(np.round(given[0][1][0].permute(1, 2, 0).numpy() * 255), expected)


def test_a_jpeg_is_pillows_of_the_same_quality_so_that_luma_weighs_the_right_colours():
    picture = np.random.default_rng(0).random((64, 64, 3), dtype=np.float32)
    file = io.BytesIO()
    Image.fromarray(np.uint8(np.round(picture * 255))).save(file, "JPEG", quality=60)
    assert np.abs(jpeg(picture, 60) - np.asarray(Image.open(file), np.float32) / 255).max() < 1.5 / 255


def test_previews_go_through_the_cleaner_and_the_colour_fix_of_the_options(built, monkeypatch):
    seen, real = [], samples.restore
    monkeypatch.setattr(samples, "restore", lambda *a, **k: seen.append((a, k)) or real(*a, **k))
    run = built("text", cleaner="bicubic", sample_every_n_steps=1, color_fix="none")
    run.previews._draw(None, 1)
    arguments, named = seen[0]
    assert bicubic in (*arguments, *named.values())
    assert arguments[4].color_fix == "none"


def test_step_1_keeps_nothing_of_e_for_the_backward_pass(built):
    run = built("text")
    system, batch = system_of(run), first_batch(run)
    system.encoder.requires_grad_(True)  # even then
    run.objective.loss(batch).weighted_mean().backward()
    assert all(parameter.grad is None for parameter in system.encoder.parameters())


def test_without_a_weight_the_prior_is_neither_drawn_nor_read(built, words, tmp_path):
    run = built("text", prior_loss_weight=0, reg_data_dir=tmp_path / "ana")
    assert run.batches.prior == []
    assert len(first_batch(run).captions) == 1


def test_a_controlnet_is_not_a_base_model(person, restorer_folder, capsys):
    wrong = restorer_folder / "controlnet" / "diffusion_pytorch_model.safetensors"
    assert person(pretrained_model_name_or_path=wrong) != 0
    assert "diffusion_pytorch_model.safetensors" in capsys.readouterr().err
