"""Options of the commands on network files (networks/*.py), under kohya's names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from library.config.option import Group, Option, Settings
from library.errors import Problem

WRITTEN = (".safetensors", ".ckpt", ".pt", ".pth")

# fmt: off
SAVE_PRECISION = Option("save_precision", str, None, "precision of the file that is written (float if left out)",
                        choices=("float", "fp16", "bf16"))
SAVE_TO = Option("save_to", Path, None, "file to write")
DEVICE = Option("device", str, "cpu", "where to calculate: cpu, cuda, cuda:0")
OVERWRITE = Option("overwrite", bool, False, "allow `save_to` to be one of the files that are read")

RESIZE = Group("Resize", (
    Option("model",          Path,  None, "the LoRA or LoCon file to resize"),
    SAVE_TO,
    Option("new_rank",       int,   4,    "rank to give every layer; with dynamic_method the most that a layer gets",
           minimum=1),
    Option("new_conv_rank",  int,   None, "the same for convolutions (new_rank if left out)", minimum=1),
    Option("dynamic_method", str,   None, "how each layer's rank is found from its singular values",
           choices=("sv_ratio", "sv_fro", "sv_cumulative")),
    Option("dynamic_param",  float, None, "what dynamic_method aims at: largest over smallest value (sv_ratio), share "
           "of the Frobenius norm (sv_fro) or of the sum of the values (sv_cumulative)"),
    SAVE_PRECISION,
    DEVICE,
    OVERWRITE,
    Option("verbose",        bool,  False, "print a line for each layer"),
))
# fmt: on


def resize_problems(settings: Settings) -> list[Problem]:
    problems = []
    method, param = settings["dynamic_method"], settings["dynamic_param"]
    if method and param is None:
        problems.append(Problem(f"{settings.place('dynamic_method')} needs `dynamic_param`, the number to aim at"))
    if param is not None and not method:
        problems.append(Problem(f"{settings.place('dynamic_param')} needs `dynamic_method`"))
    if param is not None and method == "sv_ratio" and param < 1:
        problems.append(
            Problem(f"{settings.place('dynamic_param')} is {param}; a ratio of singular values is 1 or more")
        )
    if param is not None and method in ("sv_fro", "sv_cumulative") and not 0 < param <= 1:
        problems.append(Problem(f"{settings.place('dynamic_param')} is {param}; a share is above 0 and at most 1"))
    return problems


def asked(*names: str) -> Callable[[Settings], list[Problem]]:
    """A check that these options are given."""

    def check(settings: Settings) -> list[Problem]:
        missing = [name for name in names if settings[name] in (None, [])]
        return [Problem(f"`{name}` is not given; it is the {settings.options[name].help}") for name in missing]

    return check


def written_to(*read: str) -> Callable[[Settings], list[Problem]]:
    """A check of `save_to`: a known ending, and none of the files of these options unless that is asked for."""

    def check(settings: Settings) -> list[Problem]:
        target: Path | None = settings["save_to"]
        if target is None:
            return []
        problems = []
        if target.suffix not in WRITTEN:
            problems.append(
                Problem(f"{settings.place('save_to')} is `{target}`; give a name that ends in {', '.join(WRITTEN)}")
            )
        for name in read:
            values = settings[name] if isinstance(settings[name], list) else [settings[name]]
            for source in values:
                if source is not None and Path(source).resolve() == target.resolve() and not settings["overwrite"]:
                    problems.append(
                        Problem(
                            f"{settings.place('save_to')} is `{source}`, which is read; add `--overwrite` to replace it"
                        )
                    )
        return problems

    return check
