"""The pull towards the start, and bounds on norms."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from embeddings.near_start import NearStart, clamp_norms, distance_to_start, rescale_norms

START = torch.tensor([[3.0, 4.0], [0.0, 2.0]])


class Still(NearStart):
    def initial_embeddings(self, ctx: Any) -> torch.Tensor:
        return START


def shown(start: torch.Tensor = START) -> Any:
    return SimpleNamespace(start=start)


def test_at_the_start_the_pull_and_its_gradient_are_zero():
    rows = START.clone().requires_grad_()
    pull = distance_to_start(rows, START)
    pull.backward()
    assert float(pull.detach()) == pytest.approx(0, abs=1e-5)
    assert rows.grad is not None
    assert torch.equal(rows.grad, torch.zeros_like(rows))


@pytest.mark.parametrize("far", [0.1, 1.0, 100.0])
def test_elsewhere_the_gradient_has_the_weight_over_n_as_its_length_however_far(far):
    rows = (START + torch.tensor([[far, 0.0], [0.0, -far]])).requires_grad_()
    pull = Still(None, {"reg_weight": "0.3"}).regularization(shown(), rows)
    assert pull is not None
    pull.backward()
    assert rows.grad is not None
    torch.testing.assert_close(rows.grad, torch.tensor([[0.15, 0.0], [0.0, -0.15]]), atol=1e-6, rtol=0)
    torch.testing.assert_close(pull.detach(), torch.tensor(0.3 * far), atol=1e-6, rtol=1e-6)


def test_the_mean_squared_difference_is_there_for_comparison():
    pull = Still(None, {"reg_weight": "2", "reg_type": "mse"}).regularization(shown(), START + 1)
    torch.testing.assert_close(pull, torch.tensor(2.0))


def test_no_weight_is_no_pull_and_the_option_counts_where_the_argument_is_left_out():
    assert Still(None, {}).regularization(shown(), START) is None
    args = SimpleNamespace(reg_weight=0.5)
    assert Still(args, {}).reg_weight == 0.5
    assert Still(args, {"reg_weight": "0.25"}).reg_weight == 0.25


def test_norms_are_clamped_above_only_and_rescaled_both_ways():
    rows = torch.tensor([[6.0, 8.0], [0.0, 1.0]])
    clamped = rows.clone()
    clamp_norms(clamped, START, 1.25)
    torch.testing.assert_close(clamped, torch.tensor([[3.75, 5.0], [0.0, 1.0]]))
    rescale_norms(rows, START)
    torch.testing.assert_close(rows, START)


def test_norm_control_is_what_the_argument_says():
    for text, norms in (("none", [10.0, 1.0]), ("clamp:1.25", [6.25, 1.0]), ("rescale", [5.0, 2.0])):
        rows = torch.tensor([[6.0, 8.0], [0.0, 1.0]])
        Still(None, {"norm_control": text}).after_step(shown(), rows, 1)
        assert rows.norm(dim=-1).tolist() == pytest.approx(norms)
