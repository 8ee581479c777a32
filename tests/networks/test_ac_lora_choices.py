"""What each choice of a RESTART does to a module: sums, cuts, noise, energies; each against plain float64."""

from __future__ import annotations

import pytest
import torch

from networks import ac_lora_restart
from networks.ac_lora_restart import Choices, Module, restart_module
from networks.ac_lora_spectra import signal_rank


def a_module(rows: int = 12, seed: int = 0) -> Module:
    generator = torch.Generator().manual_seed(seed)
    down, up = torch.randn(rows, 400, generator=generator), torch.randn(300, rows, generator=generator)
    down *= torch.logspace(0, -1, rows)[:, None]
    return Module("m", down, up * torch.logspace(0, -0.5, rows))


def update(module):
    return module.up.double() @ module.down.double()


def test_the_plain_sum_holds_for_the_product_too():
    D = torch.linalg.svdvals(update(a_module()))[:12]
    plain, squared = (int(signal_rank(D, 0.9, kind, reach=True)) for kind in (False, True))
    assert plain != squared
    assert restart_module(a_module(), 0.9, Choices(of_product=True, squared=False, noise="none")).rank == plain


@pytest.mark.parametrize(("noise", "kappa"), [("full", 1.0), ("full", 0.1), ("tail", 1.0), ("tail", 0.1)])
def test_the_noise_of_a_and_b_has_the_discarded_parts_deviation_times_the_scale(noise, kappa):
    module, before = a_module(), a_module()
    rank = restart_module(module, 0.95, Choices(noise=noise, noise_scale=kappa)).rank
    assert 3 < rank < 10
    U, D, V = torch.linalg.svd(before.down.double(), full_matrices=False)
    kept = (U[:, :rank] * D[:rank]) @ V[:rank]
    added = module.down.double() - kept
    sigma = (
        (before.down.double() - kept).std() if noise == "full" else (D[rank:] ** 2).sum().div((12 - rank) * 400).sqrt()
    )
    if noise == "tail":
        assert (U[:, :rank].T @ added).norm() < 1e-4 * D[0]
        added = U[:, rank:].T @ added
    assert float(added.square().mean().sqrt()) == pytest.approx(kappa * float(sigma), rel=0.06)


@pytest.mark.parametrize("kappa", [1.0, 0.1])
def test_full_noise_on_the_product_is_on_every_slot_with_the_discarded_parts_deviation(kappa):
    module, bare = a_module(), a_module()
    rank = restart_module(module, 0.95, Choices(of_product=True, noise_scale=kappa)).rank
    restart_module(bare, 0.95, Choices(of_product=True, noise="none"))
    D = torch.linalg.svdvals(update(a_module()))[:12]
    for new, without, n in ((module.down, bare.down, 400), (module.up.T, bare.up.T, 300)):
        sigma = kappa * float(D[rank:].sum() / (12 * n)) ** 0.5
        for part in (slice(rank), slice(rank, None)):
            assert float((new - without)[part].square().mean().sqrt()) == pytest.approx(sigma, rel=0.1)


def test_a_soft_cut_holds_for_a_and_b_by_themselves_too():
    module, D = a_module(), torch.linalg.svdvals(a_module().down.double())
    rank = restart_module(module, 0.9, Choices(noise="none", soft=True)).rank
    left = torch.linalg.svdvals(module.down.double())
    assert torch.allclose(left[:rank], D[:rank] - D[rank], atol=1e-4 * float(D[0]))


def test_the_energy_that_a_module_kept_is_that_of_the_matrix_that_lost_more():
    before = a_module()
    done = restart_module(a_module(), 0.9, Choices())
    shares = []
    for matrix in (before.down, before.up):
        D = torch.linalg.svdvals(matrix.double()) ** 2
        shares.append(float(D[: done.rank].sum() / D.sum()))
    assert shares[0] != pytest.approx(shares[1], abs=1e-3)
    assert done.energy == pytest.approx(min(shares), abs=1e-5)


def test_products_are_in_full_precision_and_what_the_training_allows_is_put_back(monkeypatch):
    seen, original = [], ac_lora_restart.gram
    monkeypatch.setattr(
        ac_lora_restart, "gram", lambda m: (seen.append(torch.get_float32_matmul_precision()), original(m))[1]
    )
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        restart_module(a_module(), 0.9, Choices())
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert set(seen) == {"highest"}


def test_a_batch_holds_no_more_than_its_bytes():
    modules = [a_module()._replace(name=str(i)) for i in range(3)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ac_lora_restart, "BATCH_BYTES", 2 * 4 * 12 * 400)
        assert [len(batch) for batch in ac_lora_restart.batches(modules)] == [2, 1]
