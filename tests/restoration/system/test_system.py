"""B = {G, E}: what E is, what it is given, and that G hears it."""

from __future__ import annotations

from typing import Any

import torch

from library.models.family import Family
from miniworld.tiny import build
from restoration.system.system import IRControlNet, System


def noisy_batch(count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 4, 8, 8, generator=generator), torch.tensor([20, 900][:count])


def condition_of(system: System, seed: int, count: int = 2) -> torch.Tensor:
    return system.condition(torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed)))


def test_a_new_e_is_silent_so_that_the_system_is_g_exactly():
    model = build(Family.SD2)
    system = System(model, IRControlNet.copy_of(model.unet))
    (noisy, timesteps), text = noisy_batch(), system.text(["a photo of a sks man", "a face"])
    condition = condition_of(system, 0)
    with torch.no_grad():
        controls = system.controls(noisy, timesteps, condition)
        assert len(controls.down) == 12
        assert all(control.abs().max() == 0 for control in [*controls.down, controls.middle])
        alone = model.unet(noisy, timesteps, text).sample
        assert torch.equal(system(noisy, timesteps, text, condition), alone)


def test_e_takes_g_s_weights_and_reads_eight_channels():
    unet = build(Family.SD2).unet
    encoder = IRControlNet.copy_of(unet)
    assert encoder.config["in_channels"] == 8
    first = encoder.state_dict()["conv_in.weight"]
    assert torch.equal(first[:, :4], unet.state_dict()["conv_in.weight"])
    assert first[:, 4:].abs().max() == 0
    same = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    assert torch.equal(encoder.state_dict()[same], unet.state_dict()[same])
    assert not any("cond_embedding" in name for name in encoder.state_dict())


def test_g_hears_e_and_e_sees_the_picture(system: System):
    (noisy, timesteps), text = noisy_batch(), system.text([""])
    with torch.no_grad():
        alone = system.predict(noisy, timesteps, text.expand(2, -1, -1), None)
        first = system(noisy, timesteps, text.expand(2, -1, -1), condition_of(system, 0))
        second = system(noisy, timesteps, text.expand(2, -1, -1), condition_of(system, 1))
    assert (first - alone).abs().max() > 1e-3
    assert (first - second).abs().max() > 1e-3


def test_e_reads_the_noisy_latents_in_its_first_four_channels_and_the_picture_in_the_last_four(system: System):
    (noisy, timesteps), conditions = noisy_batch(), [condition_of(system, seed) for seed in (0, 1)]
    first = system.encoder.conv_in.weight
    whole = first.detach().clone()

    def middles(*inputs: tuple[torch.Tensor, torch.Tensor]) -> list[torch.Tensor]:
        return [system.controls(x, timesteps, condition).middle for x, condition in inputs]

    with torch.no_grad():
        first[:, 4:] = 0  # DiffBIR's weights for the picture
        without_picture = middles((noisy, conditions[0]), (noisy, conditions[1]))
        first.copy_(whole)[:, :4] = 0
        without_noise = middles((noisy, conditions[0]), (-noisy, conditions[0]), (noisy, conditions[1]))
    assert torch.equal(*without_picture)
    assert torch.equal(*without_noise[:2])
    assert not torch.equal(without_noise[0], without_noise[2])


def test_e_is_given_the_null_text_whatever_g_reads(system: System):
    given: list[torch.Tensor] = []
    forward = system.encoder.forward

    def spy(sample, timestep, encoder_hidden_states, *args, **kwargs):
        given.append(encoder_hidden_states)
        return forward(sample, timestep, encoder_hidden_states, *args, **kwargs)

    system.encoder.forward = spy
    noisy, timesteps = noisy_batch()
    with torch.no_grad():
        system(noisy, timesteps, system.text(["a photo of a sks man", "a photo of a man"]), condition_of(system, 0))
    null = system.text([""]).expand(2, -1, -1)
    assert len(given) == 1
    assert torch.equal(given[0], null)


def test_the_condition_is_the_scaled_mode_of_the_posterior_and_not_a_sample(system: System):
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    latents = system.condition(pictures)
    vae: Any = system.model.vae
    posterior = vae.encode(pictures * 2 - 1).latent_dist
    torch.testing.assert_close(latents, 0.18215 * posterior.mean, rtol=0, atol=1e-6)
    assert torch.equal(latents, system.condition(pictures))


def test_an_e_survives_saving_and_loading_bit_for_bit(system: System, tmp_path):
    system.encoder.save_pretrained(tmp_path)
    again = IRControlNet.from_pretrained(tmp_path, local_files_only=True)
    mine, theirs = system.encoder.state_dict(), again.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
