"""The engine on Ray: `make test-ray`. Without Ray, only what is refused before it would be started."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys

import pytest

from library.batch.engines import on_ray
from library.batch.engines.on_ray import actors, refuse_strangers, shares
from library.errors import ConfigError

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None or not os.environ.get("TEST_RAY"),
    reason="needs Ray and takes a minute: make test-ray",
)


def test_without_authentication_nothing_is_started():
    with pytest.raises(ConfigError, match="RAY_AUTH_MODE is 'disabled': whoever reaches a port of Ray could run code"):
        refuse_strangers({"RAY_AUTH_MODE": "disabled"})
    environment: dict[str, str] = {}
    refuse_strangers(environment)
    assert environment == {"RAY_AUTH_MODE": "token"}


def test_each_worker_gets_its_share_and_too_few_gpus_are_refused():
    assert shares([""], 0.5, 2.0) == [0.5] * 4
    assert shares(["0", "1"], 1.0, 2.0) == [1.0, 1.0]
    assert shares(["cpu", "cpu"], 1.0, 0.0) == [0.0, 0.0]
    with pytest.raises(ConfigError, match="has 1 GPUs, and 2 GPUs would be needed"):
        shares(["0", "1"], 1.0, 1.0)
    with pytest.raises(ConfigError, match="has 0 GPUs, and a GPU would be needed"):
        shares([""], 1.0, 0.0)


@pytest.fixture
def cluster():
    yield  # Ray reads its environment when it is imported: that is left to what is tested
    import ray  # pyright: ignore[reportMissingImports]

    ray.shutdown()


NO_GPU = "has 0 GPUs, and 1 GPUs would be needed; `--devices cpu` needs none"


@needs_ray
def test_a_missing_gpu_is_an_error_before_ray_is_started(batch, cluster, capsys):
    for words in ((), ("--dry_run",)):
        assert batch.run("--devices", "0", *words, engine="ray") == 2
        assert NO_GPU in capsys.readouterr().err
    assert not sys.modules["ray"].is_initialized()
    assert not batch.output.exists()


@needs_ray
def test_a_ray_that_counts_gpus_in_another_way_answers_when_it_has_started(cluster, monkeypatch):
    monkeypatch.setattr(on_ray, "gpus_here", lambda: None)
    with pytest.raises(ConfigError, match=NO_GPU):
        actors(["0"], 1.0, None)


@needs_ray
def test_two_workers_of_which_one_is_killed_train_all_jobs(batch, cluster, monkeypatch):
    batch.write(steps=30, batch="max_attempts = 3")
    killed = []
    train = on_ray.OnRay.train

    def train_and_die_once(self, assignment):
        mark = batch.folder / "killed"
        if assignment["name"].startswith("one") and not mark.exists():
            mark.write_text(str(os.getpid()), encoding="utf-8")
            os.kill(os.getpid(), signal.SIGKILL)
        return train(self, assignment)

    monkeypatch.setattr(on_ray.OnRay, "train", train_and_die_once)
    assert batch.run("--devices", "cpu,cpu", engine="ray") == 0
    killed = [a.exit for name in batch.states() for a in batch.ledger.read(name).attempts]
    assert sorted(killed) == ["ok", "ok", "ok", "worker died"]
