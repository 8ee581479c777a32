"""The engine on Ray: `make test-ray`. Without Ray, only what is refused before it would be started."""

from __future__ import annotations

import importlib.util
import os
import signal
import time

import pytest

from library.batch.engines.on_ray import actors, refuse_strangers
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


@pytest.fixture
def cluster():
    yield  # Ray reads its environment when it is imported: that is left to what is tested
    import ray  # pyright: ignore[reportMissingImports]

    ray.shutdown()


@needs_ray
def test_a_missing_gpu_is_an_error_at_once(cluster):
    begun = time.monotonic()
    with pytest.raises(ConfigError, match="has 0 GPUs, and 1 GPUs would be needed; `--devices cpu` needs none"):
        actors(["0"], 1.0, None)
    assert time.monotonic() - begun < 60  # 4 s of it are Ray's own start, on an idle machine


@needs_ray
def test_two_workers_of_which_one_is_killed_train_all_jobs(batch, cluster, monkeypatch):
    from library.batch.engines import on_ray

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
