from __future__ import annotations

import torch

from library.models.conditioning import added_conditions, size_ids


def test_size_ids_are_original_height_and_width_crop_top_and_left_target_height_and_width() -> None:
    ids = size_ids(torch.tensor([[480, 640]]), torch.tensor([[0, 32]]), torch.tensor([[1024, 768]]))
    assert ids.tolist() == [[480, 640, 0, 32, 1024, 768]]


def test_added_conditions_follow_the_pooled_embeddings_type() -> None:
    sizes = torch.tensor([[64, 64]] * 3)
    added = added_conditions(torch.randn(3, 40, dtype=torch.float16), sizes, sizes, sizes)
    assert added["time_ids"].dtype == torch.float16
    assert added["time_ids"].shape == (3, 6)
    assert added["text_embeds"].shape == (3, 40)
