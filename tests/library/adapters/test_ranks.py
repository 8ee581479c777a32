"""Ranks from singular values: those that an unmodified sd-scripts chose, and what holds for any values."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from library.adapters.ranks import RULES, RankChoice

SPECTRA = {
    "steep": [2.0**-i for i in range(12)],
    "flat": [1.0, 0.99, 0.97, 0.95, 0.9, 0.85, 0.8, 0.7],
    "two": [5.0, 4.0, 0.01, 0.009, 0.008, 0.007],
    "one": [3.0, 0.0, 0.0, 0.0],
}

# Recorded from networks/resize_lora.py of sd-scripts (48d368f) on these values in a layer of 20: method, parameter, and
# the rank with new_rank 3 and with as many as there are values.
RECORDED = {
    "steep": [
        *[("sv_ratio", 1.0, 2, 2), ("sv_ratio", 2.0, 2, 2), ("sv_ratio", 10.0, 3, 5), ("sv_ratio", 1000.0, 3, 11)],
        *[("sv_fro", 0.5, 2, 2), ("sv_fro", 0.9, 3, 3), ("sv_fro", 0.99, 3, 4)],
        *[("sv_cumulative", 0.5, 2, 2), ("sv_cumulative", 0.9, 3, 5), ("sv_cumulative", 0.99, 3, 8)],
    ],
    "flat": [
        *[("sv_ratio", 1.0, 2, 2), ("sv_ratio", 2.0, 3, 8), ("sv_ratio", 10.0, 3, 8), ("sv_ratio", 1000.0, 3, 8)],
        *[("sv_fro", 0.5, 3, 3), ("sv_fro", 0.9, 3, 7), ("sv_fro", 0.99, 3, 8)],
        *[("sv_cumulative", 0.5, 3, 5), ("sv_cumulative", 0.9, 3, 8), ("sv_cumulative", 0.99, 3, 8)],
    ],
    "two": [
        *[("sv_ratio", 1.0, 2, 2), ("sv_ratio", 2.0, 3, 3), ("sv_ratio", 10.0, 3, 3), ("sv_ratio", 1000.0, 3, 6)],
        *[("sv_fro", 0.5, 2, 2), ("sv_fro", 0.9, 3, 3), ("sv_fro", 0.99, 3, 3)],
        *[("sv_cumulative", 0.5, 2, 2), ("sv_cumulative", 0.9, 3, 3), ("sv_cumulative", 0.99, 3, 3)],
    ],
    "one": [
        *[("sv_ratio", 1.0, 2, 2), ("sv_ratio", 2.0, 2, 2), ("sv_ratio", 10.0, 2, 2), ("sv_ratio", 1000.0, 2, 2)],
        *[("sv_fro", 0.5, 2, 2), ("sv_fro", 0.9, 2, 2), ("sv_fro", 0.99, 2, 2)],
        *[("sv_cumulative", 0.5, 2, 2), ("sv_cumulative", 0.9, 2, 2), ("sv_cumulative", 0.99, 2, 2)],
    ],
}


def test_ranks_are_those_that_sd_scripts_chose() -> None:
    for name, values in SPECTRA.items():
        for method, param, at_most_3, all_there in RECORDED[name]:
            found = [
                RankChoice(most, most, method, param).of(torch.tensor(values).double(), is_convolution=False)
                for most in (3, len(values))
            ]
            assert found == [at_most_3, all_there], (name, method, param)


falling = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=40).map(
    lambda values: torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
)


@given(values=falling, share=st.floats(0.01, 1.0), most=st.integers(1, 50))
def test_a_share_is_reached_and_the_rank_never_exceeds_what_is_asked_for(
    values: torch.Tensor, share: float, most: int
) -> None:
    for method, power in (("sv_fro", 2), ("sv_cumulative", 1)):
        rank = RankChoice(most, most, method, share).of(values, is_convolution=False)
        assert 1 <= rank <= min(most, len(values))
        kept = (values[:rank] ** power).sum() / (values**power).sum()
        assert kept >= share**power - 1e-9 or rank == min(most, len(values))
        needed = RULES[method](values, share)
        if needed > 1:  # one value fewer than the rule says does not reach the share
            assert (values[: needed - 1] ** power).sum() / (values**power).sum() < share**power + 1e-9


@given(values=falling, ratio=st.floats(1.0, 1e4), exponent=st.integers(-20, 20))
def test_the_rank_does_not_depend_on_the_scale_of_the_values(values: torch.Tensor, ratio: float, exponent: int) -> None:
    power_of_two = 2.0**exponent  # exact, so that no value crosses a threshold by rounding
    for method, param in (("sv_ratio", ratio), ("sv_fro", 1 / ratio), ("sv_cumulative", 1 / ratio)):
        choice = RankChoice(64, 64, method, param)
        one, other = (choice.of(v, is_convolution=False) for v in (values, values * power_of_two))
        assert one == other


def test_a_larger_target_never_gives_a_smaller_rank() -> None:
    values = torch.tensor(SPECTRA["flat"], dtype=torch.float64)
    for method, params in (("sv_ratio", (1, 1.2, 1.5, 9)), ("sv_fro", (0.1, 0.5, 0.9, 1)), ("sv_cumulative", (0.1, 1))):
        ranks = [RankChoice(64, 64, method, param).of(values, is_convolution=False) for param in params]
        assert ranks == sorted(ranks)


def test_a_layer_of_zeros_gets_rank_one_and_convolutions_have_their_own_most() -> None:
    assert RankChoice(8, 8, "sv_fro", 0.9).of(torch.zeros(5), is_convolution=False) == 1
    assert RankChoice(8, 8).of(torch.zeros(5), is_convolution=False) == 1
    values = torch.ones(16)
    assert [RankChoice(8, 3).of(values, is_convolution=kind) for kind in (False, True)] == [8, 3]
