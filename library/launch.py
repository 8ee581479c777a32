"""`accelerate launch --cpu --num_processes N` made true: by itself it starts one process, whatever N is."""

from __future__ import annotations

import os
import sys

from library.errors import UserError


def start_the_missing_processes() -> None:
    """Start this command again under torchrun if accelerate was asked for several CPU processes and started one.

    Without MPI accelerate only prepares the address at which they would meet; a run would go on with a fraction of the
    batch that was asked for. Raises `UserError` if it cannot be found out how many processes were meant.
    """
    environment = os.environ
    prepared = "MASTER_ADDR" in environment and environment.get("ACCELERATE_USE_CPU", "").lower() == "true"
    joined = any(
        name in environment for name in ("LOCAL_RANK", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
    )
    if not prepared or joined:
        return
    count = _processes_asked_for()
    if count is None:
        raise UserError(
            "accelerate launch was asked for several CPU processes and started one; use torchrun instead: "
            f"torchrun --nproc_per_node N {' '.join(sys.argv)}"
        )
    port = environment.get("MASTER_PORT", "29500")
    launcher = ["-m", "torch.distributed.run", f"--nproc_per_node={count}", f"--master_port={port}"]
    os.execv(sys.executable, [sys.executable, *launcher, *sys.argv])


def _processes_asked_for() -> int | None:
    """The number on the command line of the `accelerate launch` that started this process."""
    import psutil  # comes with accelerate

    try:
        words = psutil.Process().parent().cmdline()  # pyright: ignore[reportOptionalMemberAccess]
    except (psutil.Error, AttributeError):
        return None
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, _, value = word.lstrip("-").replace("-", "_").partition("=")
        number = value or following
        if name == "num_processes" and number.isdigit():
            return int(number)
    return None
