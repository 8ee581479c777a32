from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch

from library.models.family import Family
from library.models.hashes import weights_hash
from miniworld.tiny import build


def test_a_files_hash_is_its_sha256_and_follows_its_content(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"one")
    assert weights_hash(path) == hashlib.sha256(b"one").hexdigest()
    path.write_bytes(b"two")  # the same size
    os.utime(path, ns=(1, 1))
    assert weights_hash(path) == hashlib.sha256(b"two").hexdigest()


def test_a_modules_hash_is_the_same_for_the_same_weights_and_follows_every_bit() -> None:
    first, again = build(Family.SD1, seed=2).vae, build(Family.SD1, seed=2).vae
    assert weights_hash(first) == weights_hash(again)
    assert weights_hash(first) != weights_hash(build(Family.SD1, seed=3).vae)
    with torch.no_grad():
        next(again.parameters()).view(-1)[0] += 1e-3
    assert weights_hash(first) != weights_hash(again)


def test_a_modules_hash_depends_on_its_type_and_reads_every_type() -> None:
    hashes = {weights_hash(torch.nn.Linear(2, 2).to(dtype)) for dtype in (torch.float32, torch.float16, torch.bfloat16)}
    assert len(hashes) == 3


def test_a_weight_under_another_name_is_another_model() -> None:
    weight = torch.ones(2, 2)
    a, b = torch.nn.Module(), torch.nn.Module()
    a.register_parameter("first", torch.nn.Parameter(weight))
    b.register_parameter("second", torch.nn.Parameter(weight))
    assert weights_hash(a) != weights_hash(b)
