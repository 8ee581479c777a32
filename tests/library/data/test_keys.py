"""Draws by name: pinned for ever, because runs of last year are resumed with the programs of next year."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from library.data.keys import key, permutation, seed_of


def test_seeds_never_change():
    assert seed_of(42, 3, "0/5_cat/a.png#0", "noise") == 18054446459223486405
    assert seed_of(0, 0, "", "order") == 9562921251338672051


def test_normal_draws_never_change():
    drawn = torch.randn(4, generator=key(42, 3, "0/5_cat/a.png#0", "noise"))
    torch.testing.assert_close(drawn, torch.tensor([-0.4713853, -1.1662177, 0.1423827, 0.0534772]), atol=1e-6, rtol=0)


def test_permutations_never_change():
    assert permutation(10, 42, 3, "order") == [4, 3, 2, 5, 0, 9, 7, 1, 8, 6]


def test_every_part_of_the_name_changes_the_draw():
    names = [
        (1, 0, "a", "x"),
        (2, 0, "a", "x"),
        (1, 1, "a", "x"),
        (1, 0, "b", "x"),
        (1, 0, "a", "y"),
        (11, 0, "", "ax"),
    ]
    assert len({seed_of(*name) for name in names}) == len(names)


def test_names_in_any_script_have_draws():
    odd = "0/ねこ [1] 🐈/a\udc80.png#0"  # the last is a byte that is no UTF-8, as Linux file names may hold
    assert torch.rand(1, generator=key(1, 1, odd, "x")) != torch.rand(1, generator=key(1, 1, odd, "y"))


@given(st.integers(0, 300), st.integers(0, 2**63), st.integers(0, 1000))
def test_a_permutation_holds_every_index_once(n: int, seed: int, epoch: int):
    assert sorted(permutation(n, seed, epoch, "order")) == list(range(n))
