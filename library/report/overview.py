"""What a reader of a run's page wants to know first: is it done, is it good, what went wrong, where the time went."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from statistics import median
from typing import Any

from library.formatting import duration, file_size
from library.report.run_files import RunFiles


@dataclass(frozen=True)
class State:
    """`kind`: "good", "warn", "bad" or "" for a run under way; `word` for a badge; `sentence` with the steps."""

    kind: str
    word: str
    sentence: str


@dataclass(frozen=True)
class Notice:
    """Sentences worth a box; `kind` as for `State`."""

    kind: str
    lines: list[str]


def state_of(run: RunFiles, *, running: bool) -> State:
    """How far the run is. Without the log's last line it has stopped, whatever stopped it, unless it is `running`."""
    begin, step = run.last("begin") or {}, run.last_step
    total = begin.get("total_steps")
    of = f"step {step:,}" + (f" of {total:,}" if isinstance(total, int) else "")
    last = next((e for e in reversed(run.events) if e["event"] in ("begin", "end", "stopped")), {"event": "begin"})
    if last["event"] == "end":
        return State("good", "Finished", f"finished at {of}")
    if running and last["event"] == "begin":
        return State("", "Running", f"at {of} when this page was written")
    reason = f": {last['reason']}" if last.get("reason") else ""
    return State("warn", "Stopped", f"stopped at {of}{reason}")


def best_of(run: RunFiles) -> int | None:
    """The step of the best file as the verdict names it, else that of the lowest validation loss."""
    verdict = run.last("verdict")
    if verdict is not None and isinstance(verdict.get("best_step"), int):
        return verdict["best_step"]
    measured = validation_losses(run)
    return min(measured, key=lambda step: (measured[step], step)) if measured else None


def validation_losses(run: RunFiles) -> dict[int, float]:
    """The loss on what is held out, by step; a measurement that was not finite is left out."""
    found = {event["step"]: event.get("validation_loss") for event in run.all("validation")}
    return {step: loss for step, loss in found.items() if loss is not None}


def notices(run: RunFiles) -> list[Notice]:
    """The verdict, failures, and what else should not be overlooked."""
    found = []
    verdict = run.last("verdict")
    if verdict is not None:
        sentence = str(verdict.get("sentence", ""))
        found.append(Notice("warn" if verdict.get("overfitted") else "", [sentence[:1].upper() + sentence[1:] + "."]))
    for event in newest_findings(run):
        if event.get("failure") and run.last("end") is not None:
            found.append(Notice("bad", [str(event["failure"])]))
    if stop := about_the_stop(run):
        found.insert(0, Notice("warn", stop))
    skipped = run.steps.skipped
    if skipped:
        listed = ", ".join(map(str, skipped[:10])) + (", ..." if len(skipped) > 10 else "")
        found.append(
            Notice("warn", [f"{len(skipped)} steps were left out: loss or gradients were not finite (step {listed})."])
        )
    return found


REASONS = {
    "SIGINT": "Ctrl+C, or its terminal, asked it to stop (SIGINT)",
    "SIGTERM": "somebody or the system asked it to stop (SIGTERM)",
    "SIGHUP": "its terminal was closed (SIGHUP)",
}


def about_the_stop(run: RunFiles) -> list[str]:
    """Why a run has not come to its end, which state it left, and the command that goes on; nothing where it has."""
    last = next((e for e in reversed(run.events) if e["event"] in ("begin", "end", "stopped")), None)
    if last is None or last["event"] != "stopped":
        return []
    reason = str(last.get("reason", ""))
    lines = [f"The run was stopped at step {last['step']:,}: {REASONS.get(reason, reason)}."]
    if last.get("state"):
        lines.append(f"All of it is kept in {last['state']}.")
    if way := way_on(str((run.last("settings") or {}).get("command", ""))):
        lines.append(f"Go on with: {way}")
    return lines


def way_on(command: str) -> str:
    """The command that a run was started by, as one that goes on from its newest state."""
    if not command:
        return ""
    try:
        words = shlex.split(command)
    except ValueError:
        return ""
    if words[0].endswith(("train_batch.py", "child.py")):
        return "the command of the batch, once more"
    if "--resume" in words:
        place = words.index("--resume")
        del words[place : place + 2]
    words = [word for word in words if not word.startswith("--resume=") and word != "--overwrite"]
    return shlex.join(["python", *words, "--resume", "latest"])


def newest_findings(run: RunFiles) -> list[dict[str, Any]]:
    """The last findings of each trainable."""
    newest: dict[str, dict[str, Any]] = {}
    for event in run.all("findings"):
        newest[str(event.get("trainable", "trained"))] = event
    return list(newest.values())


def facts(run: RunFiles, best_step: int | None) -> list[tuple[str, str, str]]:
    """(name, value, note) of the figures at the page's head."""
    steps = run.steps
    begin = run.last("begin") or {}
    rows: list[tuple[str, str, str]] = []
    total = begin.get("total_steps")
    rows.append(("Steps", f"{run.last_step:,}", f"of {total:,}" if isinstance(total, int) else ""))
    averages = [value for value in (steps.average[-1],) if not math.isnan(value)] if len(steps) else []
    if averages:
        rows.append(("Loss", f"{averages[0]:.4f}", "mean of the last epoch"))
    measured = validation_losses(run)
    if measured:
        last = max(measured)
        rows.append(("Validation loss", f"{measured[last]:.4f}", f"at step {last:,}"))
    if best_step is not None:
        rows.append(("Best step", f"{best_step:,}", "lowest validation loss"))
    seconds = [value for value in steps.seconds if not math.isnan(value)]
    if seconds:
        rows.append(("Per step", f"{median(seconds):.3g} s", "median"))
    spent = time_split(run)
    if spent:
        rows.append(("Time", duration(sum(spent.values())), "loading included"))
    memory = run.last("time")
    if memory is not None and memory.get("peak_memory"):
        rows.append(("Peak memory", file_size(memory["peak_memory"]), str(memory.get("memory_of", ""))))
    return rows


def time_split(run: RunFiles) -> dict[str, float]:
    """Seconds by part, over all sessions of a run that was resumed; the longest first."""
    parts: dict[str, float] = {}
    session: dict[str, float] = {}
    for event in [*run.events, {"event": "begin"}]:
        if event["event"] == "time":
            session = {str(part): float(seconds) for part, seconds in event.get("spent", {}).items()}
        elif event["event"] == "begin":
            for part, seconds in session.items():
                parts[part] = parts.get(part, 0.0) + seconds
            session = {}
    return dict(sorted(parts.items(), key=lambda item: -item[1]))
