"""Kill what trains a batch, or what drives it, at random moments: python -m tests.benchmarks.batch_kills [--kills 50]

One batch is left alone. Of another, on the same jobs, the worker is killed with SIGKILL again and again; of a third the
driver, which is started again each time. Both must end with the same weights, bit for bit, with no half file, and with
an attempt for each kill that hit a job; after a killed driver its worker must be gone within ten seconds.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from pathlib import Path

from tests.benchmarks.batch_world import World, is_alive, records, weights, workers_of

GONE_WITHIN = 10.0


def steps_done(output: Path) -> int:
    """Lines of all logs: a clock that goes with the work and not with the load of the machine."""
    return sum(log.read_bytes().count(b"\n") for log in output.glob("*/*-log.jsonl"))


def wait_for_work(output: Path, more: int, jitter: float, alive) -> bool:
    """Until so many lines more are logged, and a moment longer; False if it ended first."""
    goal = steps_done(output) + more
    while alive() and steps_done(output) < goal:
        time.sleep(0.02)
    time.sleep(jitter)
    return alive()


def kill_workers(world: World, output: Path, kills: int, rng: random.Random) -> int:
    """How many workers were killed while one driver went on. Asserts that it ended well."""
    driver = world.start(output)
    hits = 0
    while driver.poll() is None and hits < kills:
        workers = workers_of(driver.pid)
        if not workers:
            time.sleep(0.05)
            continue
        worker = workers[0]
        if rng.random() < 0.2:  # while it starts, or between two jobs
            time.sleep(rng.uniform(0, 3))
        else:
            wait_for_work(output, rng.randrange(1, 9), rng.uniform(0, 0.5), lambda w=worker: is_alive(w))
        if driver.poll() is None and is_alive(worker):
            os.kill(worker, signal.SIGKILL)
            hits += 1
            print(f"worker killed {hits} times", flush=True)
            while is_alive(worker):
                time.sleep(0.01)
    assert driver.wait() == 0, f"exit code {driver.returncode}"
    return hits


def kill_drivers(world: World, output: Path, kills: int, rng: random.Random) -> tuple[int, float]:
    """How many drivers were killed, and the longest that a worker outlived its driver, in seconds."""
    hits, longest = 0, 0.0
    while hits < kills:
        driver = world.start(output)
        while driver.poll() is None and not workers_of(driver.pid):
            time.sleep(0.02)
        if rng.random() < 0.2:
            time.sleep(rng.uniform(0, 3))
        else:
            wait_for_work(output, rng.randrange(1, 9), rng.uniform(0, 0.5), lambda d=driver: d.poll() is None)
        workers = workers_of(driver.pid)
        if driver.poll() is not None:
            break
        driver.kill()
        driver.wait()
        killed = time.monotonic()
        while any(map(is_alive, workers)):
            time.sleep(0.01)
        longest = max(longest, time.monotonic() - killed)
        assert longest <= GONE_WITHIN, f"a worker outlived its driver by {longest:.1f} s"
        hits += 1
        print(f"driver killed {hits} times, worker gone {time.monotonic() - killed:.2f} s later", flush=True)
    assert world.run(output) == 0
    return hits, longest


def check(quiet: Path, killed: Path) -> None:
    ours, theirs = weights(killed), weights(quiet)
    assert ours.keys() == theirs.keys() == records(quiet).keys()
    differing = [name for name in ours if ours[name] != theirs[name]]
    assert not differing, f"weights differ: {differing}"
    left = [str(path) for path in killed.rglob(".*.tmp-*")]
    assert not left, f"half files: {left}"


def attempts(output: Path) -> dict[str, int]:
    """How attempts ended, over all jobs."""
    found: dict[str, int] = {}
    for record in records(output).values():
        for attempt in record["attempts"]:
            found[attempt["exit"]] = found.get(attempt["exit"], 0) + 1
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="of workers")
    parser.add_argument("--driver_kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=40, help="of each job")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        world = World(Path(name), datasets=3, steps=arguments.steps)
        quiet, by_worker, by_driver = (Path(name, kind) for kind in ("quiet", "worker", "driver"))
        assert world.run(quiet) == 0
        print(f"left alone: {attempts(quiet)}", flush=True)
        if arguments.driver_kills:
            hits, longest = kill_drivers(world, by_driver, arguments.driver_kills, rng)
            check(quiet, by_driver)
            ended = attempts(by_driver)
            print(f"{hits} drivers killed, workers gone within {longest:.2f} s, attempts: {ended}; weights identical")
        hits = kill_workers(world, by_worker, arguments.kills, rng)
        check(quiet, by_worker)
        ended = attempts(by_worker)
        done = len(records(by_worker))
        assert ended["ok"] == done, ended
        assert ended.get("worker died", 0) <= hits, ended
        print(f"{hits} workers killed, attempts: {ended}; weights identical, no half file, no job lost")


if __name__ == "__main__":
    main()
