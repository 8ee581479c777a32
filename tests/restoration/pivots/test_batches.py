"""What a batch of step 1 holds: the person's pictures and as many of the prior, all of them degraded."""

from __future__ import annotations

import torch

from restoration.damage.degradation import PRESETS, degrade, generator
from restoration.pivots.batches import Latents, RestorationBatches
from restoration.pivots.faces import ReferenceFace, read_face
from restoration.system.cleaner import no_cleaner
from tests.restoration.conftest import write_faces


class Eighth:
    """A VAE that takes every eighth pixel."""

    def encode_posterior(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return images[:, :, ::8, ::8], torch.zeros(1, 3, 8, 8)


def test_prior_pictures_are_degraded_too_and_keep_their_clean_latents(tmp_path, faces):
    rows = [
        ReferenceFace(write_faces(tmp_path / name, faces[[number]]) / "00.png", name)
        for name, number in (("ana", 0), ("others", 10))
    ]
    latents = Latents(Eighth(), no_cleaner, PRESETS["face"], 1.0, 64, seed=7)
    texts = {name: torch.zeros(4, 8) for name in ("ana", "others")}
    [[batch]] = list(RestorationBatches(rows[:1], rows[1:], latents, texts, seed=7).epoch(1))
    assert batch.captions == ["ana", "others"]
    for row, face in enumerate(rows):
        clean = read_face(face.path, 64)
        damaged = degrade(clean, PRESETS["face"], generator(7, 1, face.sample_id))
        for latent, pixels in ((batch.latents[row], clean), (batch.conditions[row], damaged)):
            expected = 2 * torch.from_numpy(pixels)[::8, ::8].permute(2, 0, 1) - 1
            torch.testing.assert_close(latent, expected, rtol=0, atol=1e-6)
        assert not torch.equal(batch.latents[row], batch.conditions[row])
