from __future__ import annotations

import torch

from miniworld.architecture import (
    TEXT_WIDTH,
    TOKEN_ROW_BOUND,
    build_text_encoder,
    build_unet,
    build_vae,
    keep_clip_scales,
    token_rows,
    use_plain_attention,
)


def test_the_vae_shrinks_eight_times_to_four_channels():
    vae = build_vae(widths=(8, 8, 8, 8))
    latents = vae.encode(torch.zeros(1, 3, 64, 64)).latent_dist.mean  # pyright: ignore
    assert latents.shape == (1, 4, 8, 8)


def test_an_untrained_unet_predicts_no_noise_at_all():
    unet = build_unet(widths=(16, 16))
    prediction = unet(torch.randn(2, 4, 8, 8), torch.tensor([3, 700]), torch.randn(2, 5, TEXT_WIDTH)).sample
    assert torch.equal(prediction, torch.zeros_like(prediction))


def test_plain_attention_gives_the_same_prediction_as_the_fused_kernel():
    torch.manual_seed(0)
    unet = build_unet(widths=(16, 16))
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    arguments = torch.randn(2, 4, 8, 8), torch.tensor([3, 700]), torch.randn(2, 5, TEXT_WIDTH)
    fused = unet(*arguments).sample
    use_plain_attention(unet)
    torch.testing.assert_close(unet(*arguments).sample, fused, rtol=1e-4, atol=1e-4)


def test_the_text_encoder_has_clips_scales_and_gets_them_back_after_training_moved_them():
    encoder = build_text_encoder(vocabulary_size=40, layers=1)
    with torch.no_grad():
        token_rows(encoder).mul_(9)
        encoder.final_layer_norm.weight.mul_(3)
        encoder.final_layer_norm.bias.add_(0.5)
    keep_clip_scales(encoder)
    outputs = encoder(torch.arange(40)[None]).last_hidden_state
    assert token_rows(encoder).norm(dim=1).max() <= TOKEN_ROW_BOUND + 1e-5
    torch.testing.assert_close(outputs.square().sum(-1).mean().sqrt(), torch.tensor(TEXT_WIDTH**0.5), rtol=0.1, atol=0)


def test_small_rows_are_left_as_they_are():
    encoder = build_text_encoder(vocabulary_size=40, layers=1)
    with torch.no_grad():
        token_rows(encoder).mul_(0.5)
    before = token_rows(encoder).clone()
    keep_clip_scales(encoder)
    torch.testing.assert_close(token_rows(encoder), before)
