"""`--engine ray`: one actor for each part of a GPU, on one machine or a cluster. Only the driver writes the ledger.

Ray keeps the actors and brings a dead one up again; which jobs are done, and what is tried again, stays the ledger's.
Model, pictures and output folder must be on paths that every machine sees, and so must this repository.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from library.batch.engines.assignment import WORKER_DIED, Assignment, Outcome
from library.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
OLDEST = (2, 60)
RESTARTS = 3
AUTHENTICATION, TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"


class OnRay:
    """What an actor runs: the same trainer as elsewhere, in a process of Ray's."""

    def __init__(self) -> None:
        self._trainer: Any = None

    def missing(self, paths: Sequence[str]) -> list[str]:
        """Which of the paths this machine does not see, and its name."""
        return [f"{path} (on {socket.gethostname()})" for path in paths if not os.path.exists(path)]

    def train(self, assignment: dict[str, Any]) -> dict[str, Any]:
        asked = Assignment.of(assignment)
        with (
            open(asked.log or os.devnull, "a", encoding="utf-8") as log,
            contextlib.redirect_stdout(log),
            contextlib.redirect_stderr(log),
        ):
            if self._trainer is None:
                from library.batch.training import TrainerHere

                self._trainer = TrainerHere()
            return asdict(self._trainer.train(asked))


class Actor:
    """A trainer on Ray. `share` of a GPU belongs to it; 0 is a worker without one."""

    def __init__(self, number: int, share: float) -> None:
        self.device = f"ray worker {number}" + (f" ({share:g} GPU)" if share else "")
        self._share = share
        self._actor: Any = None
        self._has_looked = False

    def train(self, assignment: Assignment) -> Outcome:
        import ray  # pyright: ignore[reportMissingImports]
        from ray import exceptions  # pyright: ignore[reportMissingImports]

        actor = self._running()
        try:
            if not self._has_looked:
                self._look(actor, [assignment.config, assignment.log])
            answer: Any = ray.get(actor.train.remote(asdict(assignment)))
        except exceptions.RayActorError as error:
            self.close()
            return Outcome(WORKER_DIED, str(error).strip().splitlines()[0])
        outcome = replace(Outcome(**answer), signal=None)
        if outcome.leaves_doubt:
            self.close()
        return outcome

    def close(self) -> None:
        import ray  # pyright: ignore[reportMissingImports]

        actor, self._actor = self._actor, None
        if actor is not None:
            with contextlib.suppress(Exception):  # it may be gone, and so may the cluster
                ray.kill(actor)

    def _look(self, actor: Any, paths: Sequence[str]) -> None:
        import ray  # pyright: ignore[reportMissingImports]

        seen = [str(Path(path).parent) for path in paths if path]
        missing = ray.get(actor.missing.remote(seen))
        if missing:
            raise ConfigError(f"a worker of Ray does not see {missing[0]}; put it where every machine finds it")
        self._has_looked = True

    def _running(self) -> Any:
        import ray  # pyright: ignore[reportMissingImports]

        if self._actor is None:
            remote = ray.remote(OnRay)
            how = {"num_cpus": 1, "num_gpus": self._share, "max_restarts": RESTARTS, "max_task_retries": 0}
            self._actor = remote.options(**how).remote()
        return self._actor


def actors(devices: Sequence[str], share: float, address: str | None) -> list[Actor]:
    """Connect to the cluster, or start one on this machine, and give each device an actor.

    Raises ConfigError where Ray is not there, is too old, would speak to strangers, or has too few GPUs: of itself it
    would wait for them.
    """
    refuse_before_start(devices, share, address)
    ray = _ray()
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))}
    if "OMP_NUM_THREADS" in os.environ:
        environment["OMP_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"]  # else Ray sets it by the CPUs of a worker
    local: dict[str, Any] = {}
    if address is None:
        local = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        local["num_cpus"] = max(len(devices), os.cpu_count() or 1)
    try:
        ray.init(address=address or "local", runtime_env={"env_vars": environment}, log_to_driver=False, **local)
    except (ConnectionError, ValueError, RuntimeError) as error:
        line = str(error).strip().splitlines()[0]
        what = f"`--ray_address {address}` cannot be reached" if address else "Ray cannot be started here"
        raise ConfigError(f"{what}: {line}" + ("; is its token in RAY_AUTH_TOKEN?" if address else "")) from None
    parts = shares(devices, share, float(ray.cluster_resources().get("GPU", 0)))
    return [Actor(number, part) for number, part in enumerate(parts, start=1)]


def refuse_before_start(devices: Sequence[str], share: float, address: str | None) -> None:
    """Raise ConfigError for what can be known before Ray is started, which takes seconds: also a missing GPU of this
    machine. Those of a cluster are known when it answers."""
    refuse_strangers(os.environ)
    if address is None:  # both are read while Ray is imported
        os.environ.setdefault(TOKEN, secrets.token_hex(32))  # else Ray writes one into the home folder
        os.environ.setdefault("RAY_worker_niceness", "0")  # else whatever runs beside it goes before the training
    _ray()
    gpus = gpus_here() if address is None else None
    if gpus is not None:
        shares(devices, share, gpus)


def shares(devices: Sequence[str], share: float, gpus: float) -> list[float]:
    """The part of a GPU of each worker; without devices as many workers as there is room for. Raises ConfigError."""
    wanted = [0.0 if device == "cpu" else share for device in devices]
    if list(devices) == [""]:
        wanted = [share] * int(gpus / share)
    if not wanted or sum(wanted) > gpus + 1e-9:
        asked = f"{sum(wanted):g} GPUs" if wanted else "a GPU"
        raise ConfigError(
            f"the cluster of Ray has {gpus:g} GPUs, and {asked} would be needed; `--devices cpu` needs none."
        )
    return wanted


def gpus_here() -> float | None:
    """The GPUs that Ray will find on this machine, counted as it does; None where this Ray counts in another way."""
    try:
        from ray._private.accelerators import (  # pyright: ignore[reportMissingImports]
            get_accelerator_manager_for_resource,
        )

        manager: Any = get_accelerator_manager_for_resource("GPU")
        there = manager.get_current_node_num_accelerators()
        visible = manager.get_current_process_visible_accelerator_ids()
        return float(there if visible is None else min(there, len(visible)))
    except Exception:  # names of Ray's own, which may change: its start answers as well, only later
        return None


def refuse_strangers(environment: Any) -> None:
    """Raise ConfigError where Ray is told to take orders from everybody: its ports are open on all interfaces."""
    mode = environment.get(AUTHENTICATION, "token")
    if mode != "token":
        raise ConfigError(
            f"{AUTHENTICATION} is {mode!r}: whoever reaches a port of Ray could run code here, and its ports are open "
            f"beyond this machine; set {AUTHENTICATION}=token"
        )
    environment[AUTHENTICATION] = "token"


def _ray() -> Any:
    try:
        import ray  # pyright: ignore[reportMissingImports]
        import ray.exceptions  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConfigError("`--engine ray` needs Ray: pip install -r requirements-ray.txt") from None
    version = tuple(int(part) for part in ray.__version__.split(".")[:2])
    if version < OLDEST:
        raise ConfigError(f"Ray {ray.__version__} is too old (CVE-2025-62593): pip install -r requirements-ray.txt")
    return ray
