"""When AC-LoRA makes its RESTARTs, and what there is to say of that before a run (Algorithm 1; epochs count from 0)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from networks.ac_lora_options import Options

FEW_RESTARTS = 4
FEWEST_STEPS = 50
"""Optimizer steps between RESTARTs that are counted in steps because a run has too few epochs."""
REMEDY = "train longer, or set ac_every_n_epochs or ac_every_n_steps to less"
PAPER_NOTICE = (
    "AC-LoRA in the paper's letter (ac_mode=paper): it regularises, but the ranks that it finds follow the maximum "
    "rank, not the data; ac_mode=product keeps low ranks, in a small file"
)


def every_n_epochs(options: Options, total_epochs: int, steps_per_epoch: int) -> int:
    """E: as given, or a tenth of the run (the paper's 10 at 100 epochs); never closer than `ac_min_steps`."""
    every = options.every_n_epochs or max(1, int(total_epochs / 10 + 0.5))
    return max(every, math.ceil(options.min_steps / max(steps_per_epoch, 1)))


def for_length(options: Options, total_epochs: int, total_steps: int) -> Options:
    """The options for a run of this length: where nobody says how often, and its epochs leave no place for a RESTART
    (one long epoch, say), they come every tenth of its steps, if that is far enough apart for ranks to grow."""
    automatic = options.every_n_epochs is None and not options.every_n_steps
    every = max(math.ceil(total_steps / 10), options.min_steps, FEWEST_STEPS)
    if not automatic or total_steps < 2 * every or can_restart(options, total_epochs, total_steps):
        return options
    return replace(options, every_n_steps=every)


def can_restart(options: Options, total_epochs: int, total_steps: int) -> bool:
    """Whether a run of this length makes a RESTART, with these options."""
    steps_per_epoch = max(1, math.ceil(total_steps / max(total_epochs, 1)))
    return planned_restarts(options, total_epochs, total_steps, steps_per_epoch) > 0


def length_problems(options: Options, total_epochs: int, total_steps: int) -> list[str]:
    """What speaks against a run of this length before it is begun: that the method would do nothing in it."""
    if options.is_off or options.rank_pattern is not None:
        return []
    if can_restart(for_length(options, total_epochs, total_steps), total_epochs, total_steps):
        return []
    return [
        f"AC-LoRA can make no RESTART in {_length(total_epochs, total_steps)}, so this would train a plain LoRA: "
        f"{REMEDY}; ac_every_n_epochs=0 says that none is wanted"
    ]


def _length(total_epochs: int, total_steps: int) -> str:
    return f"{total_epochs} epoch{'s' * (total_epochs != 1)} of {total_steps} steps altogether"


def is_due(options: Options, p: Any, last_restart: int, epochs_seen: int) -> bool:
    """Whether a RESTART is due where a run is by `p`: the last was at step `last_restart`, and progress was last
    reported when `epochs_seen` epochs were complete."""
    if options.every_n_steps:
        return p.global_step - last_restart >= max(options.every_n_steps, options.min_steps)
    if options.is_off or p.epochs_done <= epochs_seen:
        return False
    epoch = p.epochs_done - 1
    every = every_n_epochs(options, p.total_epochs, p.global_step // p.epochs_done)
    return epoch % every == 0 and (epoch > 0 or options.first_epoch)


def planned_restarts(options: Options, total_epochs: int, total_steps: int, steps_per_epoch: int) -> int:
    """How many RESTARTs a run of this length makes; none comes after its last step."""
    if options.every_n_steps:
        return (total_steps - 1) // max(options.every_n_steps, options.min_steps)
    every = every_n_epochs(options, total_epochs, steps_per_epoch)
    return len(range(0 if options.first_epoch else every, total_epochs - 1, every))


def announcement(options: Options, total_epochs: int, total_steps: int) -> list[str]:
    """Lines worth saying before the first step of a run of this length."""
    if options.is_off:
        return ["AC-LoRA: RESTARTs are off (ac_every_n_epochs=0); this is a plain LoRA, cut when it is saved"]
    steps_per_epoch = max(1, math.ceil(total_steps / max(total_epochs, 1)))
    planned = planned_restarts(options, total_epochs, total_steps, steps_per_epoch)
    length = _length(total_epochs, total_steps)
    lines = [PAPER_NOTICE] if options.mode == "paper" else []
    if not planned:
        lines.append(f"AC-LoRA can make no RESTART in {length}: {REMEDY}")
    elif planned < FEW_RESTARTS:
        lines.append(
            f"AC-LoRA will make only {planned} RESTART{'s' * (planned > 1)} in {length}, which is few to find ranks "
            f"by: {REMEDY}"
        )
    else:
        every = f", one every {options.every_n_steps} steps" if options.every_n_steps else ""
        lines.append(f"AC-LoRA will make {planned} RESTARTs in {length}{every}")
    if total_steps < 100 and options.first_epoch and planned:
        lines.append("AC-LoRA: in a run as short as this, ac_first_epoch=false often does better")
    return lines
