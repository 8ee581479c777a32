from __future__ import annotations

import numpy as np
import pytest
import torch

from miniworld.judge import Judge
from miniworld.pretrain.lockstep import Process
from miniworld.pretrain_restorer import encoder, faces
from miniworld.pretrain_restorer.__main__ import MODEL
from miniworld.pretrain_restorer.assemble import assemble
from miniworld.pretrain_restorer.measure import IDENTITY, images, shares_read
from restoration.system.system import IRControlNet


@pytest.fixture(autouse=True)
def _no_grids(monkeypatch):
    monkeypatch.setattr(encoder, "draw_grid", lambda *_: None)


def random_faces(folder) -> None:
    (folder / "faces").mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    for name in faces.SETS:
        latents = torch.randn(4, 4, 16, 16, generator=generator).half()
        conditions = torch.randn(4, 2, 4, 16, 16, generator=generator).half()
        torch.save({"latents": latents, "conditions": conditions}, folder / "faces" / f"{name}-000000.pt")


def train(folder, steps: int) -> None:
    encoder.train(Process(), folder, MODEL, 0, encoder.EncoderRecipe(steps, None, faces=4, batch=2))


def test_a_resumed_restorer_ends_bit_for_bit_where_an_undisturbed_one_does(tmp_path):
    for name in ("whole", "cut"):
        random_faces(tmp_path / name)
    train(tmp_path / "whole", 2)
    train(tmp_path / "cut", 1)
    train(tmp_path / "cut", 2)
    whole, cut = (
        torch.load(tmp_path / name / "encoder.checkpoint.pt", weights_only=True)["model"] for name in ("whole", "cut")
    )
    assert all(torch.equal(whole[key], cut[key]) for key in whole)

    assert whole["controlnet_mid_block.weight"].abs().max() > 0  # it was silent at the start

    assemble(tmp_path / "whole", MODEL, tmp_path / "restorer")
    loaded = IRControlNet.from_pretrained(tmp_path / "restorer")
    assert loaded.state_dict().keys() == whole.keys()
    assert loaded.config["in_channels"] == 8


def test_faces_are_drawn_and_encoded_once(tmp_path, monkeypatch):
    monkeypatch.setattr(faces, "UNSEEN", 1)
    faces.encode_faces(tmp_path, MODEL, 0, 2, 2, 1, "cpu")
    known = faces.read(tmp_path, "train", 2)
    assert known.latents.shape == (2, 4, 16, 16)
    assert known.conditions.shape == (2, 2, 4, 16, 16)
    assert not torch.equal(known.conditions[:, 0], known.conditions[:, 1])
    monkeypatch.setattr(faces, "_encode", lambda part: pytest.fail(f"{part} was encoded again"))
    faces.encode_faces(tmp_path, MODEL, 0, 2, 2, 1, "cpu")


def test_the_damage_hides_the_person_and_leaves_the_background():
    pictures, degraded = faces.unseen(0, 60)
    judge = Judge.load()
    clean = shares_read(judge, (images(pictures) * 255).astype(np.uint8), pictures)
    spoilt = shares_read(judge, (degraded * 255).astype(np.uint8), pictures)
    assert np.mean([clean[head] for head in IDENTITY]) > 0.9
    assert np.mean([spoilt[head] for head in IDENTITY]) < 0.7
    assert spoilt["background"] > 0.8
