"""A VAE that pads by reflection: every convolution that pads does, its folder says so, and its caches are its own."""

import numpy as np
import torch

from library.models.family import Family
from library.models.load import load_model
from library.models.save import save_folder
from library.models.vae_padding import pad_by_reflection, pads_by_reflection
from library.sampling.generate import decode
from library.training.setup.caching import hash_of_vae
from miniworld.tiny import build


def test_reflection_is_what_the_border_sees_and_a_folder_remembers_it(tmp_path):
    model = build(Family.SD1)
    conv = model.vae.encoder.conv_in
    picture = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    reflected = torch.nn.functional.pad(picture, (1, 1, 1, 1), mode="reflect")
    expected = torch.nn.functional.conv2d(reflected, conv.weight, conv.bias)
    before, zeros = conv(picture), hash_of_vae(model)
    pad_by_reflection(model.vae)
    torch.testing.assert_close(conv(picture), expected)
    assert not torch.equal(before, conv(picture))
    assert hash_of_vae(model) != zeros
    save_folder(model, tmp_path / "model")
    again = load_model(tmp_path / "model")
    assert pads_by_reflection(again.vae)
    ours, theirs = (vae.encode(picture, return_dict=False)[0].mean for vae in (again.vae, model.vae))
    assert torch.equal(ours, theirs)


def test_scale_and_shift_of_the_config_are_undone_by_decoding():
    model = build(Family.SD1)
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    plain = decode(model.vae, z * model.scaling_factor, torch.float32, 1)[0]
    model.vae.register_to_config(scaling_factor=0.128, shift_factor=0.1726)
    assert (model.scaling_factor, model.shift_factor) == (0.128, 0.1726)
    shifted = decode(model.vae, (z - 0.1726) * 0.128, torch.float32, 1)[0]
    difference = np.asarray(plain).astype(int) - np.asarray(shifted).astype(int)
    assert abs(difference).max() <= 1  # float32 rounds
