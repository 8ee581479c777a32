"""Convert restorers between layouts: restoration/convert.py --input face_full_v1.ckpt --output folder

- `--save_model_as diffusers` (the default) writes a folder: unet, vae, text_encoder ..., `controlnet`, and the tensors
  of the cleaner, where the input has them; of a file that holds E alone it writes `controlnet` alone.
- `--save_model_as diffbir_v2` writes E alone under DiffBIR's names, for DiffBIR itself and the programs around it.
- `--save_model_as diffbir_v1` writes everything into one file.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started by its path: the repository is where `library` and `restoration` are found
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from library.command import run_command
from library.config.option import Group, Option
from library.config.options.config import CONFIG
from library.config.parse import parse
from library.config.values import path_or_name
from library.console import show
from library.errors import UserError

OPTIONS = Group(
    "What to convert",
    (
        Option("input", path_or_name, None, "a restorer: a file of any layout, or a folder that was written here"),
        Option("model", path_or_name, None, "the Stable Diffusion that belongs to an E that comes alone"),
        Option("output", path_or_name, None, "folder (diffusers), or file (diffbir_v1, diffbir_v2)"),
        Option(
            "save_model_as",
            str,
            "diffusers",
            "the layout to write",
            choices=("diffusers", "diffbir_v1", "diffbir_v2"),
        ),
    ),
)


def convert(argv: Sequence[str]) -> None:
    settings = parse(argv, OPTIONS, CONFIG, prog="restoration/convert.py", description=str(__doc__).splitlines()[0])
    for name in ("input", "output"):
        if settings[name] is None:
            raise UserError(f"`{name}` is not set; {settings.options[name].help}")

    # The engine is imported here and nowhere above: a mistake in the options must not wait for torch.
    from restoration.system.conversion import convert_restorer

    model = Path(settings["model"]) if settings["model"] else None
    for line in convert_restorer(Path(settings["input"]), model, Path(settings["output"]), settings["save_model_as"]):
        show(line)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(convert, argv)


if __name__ == "__main__":
    sys.exit(main())
