"""How a batch is run; what it trains is in its jobs file."""

import re
from pathlib import Path
from typing import Any

from library.config.option import Group, Option
from library.config.values import text

ENGINES = ("local", "inline", "ray")
RETRIES = ("failed", "none")
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def duration(raw: Any) -> float:
    """Seconds: "8h", "90min", "1h30m", or a number of seconds."""
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text(raw).casefold())
    joined = "".join(number + unit for number, unit in parts)
    units = [unit or "s" for _, unit in parts]
    if not parts or joined != re.sub(r"\s", "", text(raw).casefold()) or any(unit not in _UNITS for unit in units):
        raise ValueError(f'must be a time such as "8h", "90min" or "1h30m", not {raw!r}')
    return sum(float(number) * _UNITS[unit] for (number, _), unit in zip(parts, units, strict=True))


# fmt: off
BATCH = Group("Batch", (
    Option("jobs",                       Path,     None,    "TOML file that says which jobs there are"),
    Option("engine",                     str,      "local", "what trains: processes of this machine, this one, or Ray",
           choices=ENGINES),
    Option("devices",                    str,      None,
           "a worker on each of these GPUs: 0,1; `cpu` is a worker without one (left out: one worker)"),
    Option("gpu_share",                  float,    1.0,     "with Ray: the part of a GPU that a worker gets",
           minimum=0.01, maximum=1),
    Option("ray_address",                str,      None,    "with Ray: a cluster that runs already"),
    Option("dry_run",                    bool,     False,   "check all jobs, show them, and stop; loads no model"),
    Option("skip_missing",               bool,     False,
           "leave out methods whose network module is not installed, instead of refusing to begin"),
    Option("only",                       str,      None,    "only the jobs of these names; * stands for anything",
           nargs="*"),
    Option("retry",                      str,      None,
           "failed: also the jobs that were given up; none: no job a second time", choices=RETRIES),
    Option("fail_fast",                  bool,     False,   "begin no job after one has failed"),
    Option("time_budget",                duration, None,    "stop after this time, with a state: 8h, 90min"),
    Option("worker",                     bool,     False,
           "take what jobs are free, wait for nobody, write no page: for arrays of SLURM"),
    Option("status",                     bool,     False,   "show how far the batch is, and stop"),
    Option("stop",                       bool,     False,   "ask the drivers of this batch to stop, with states"),
    Option("verify",                     bool,     False,   "compare the files of finished jobs with their hashes"),
))
