"""Extract a LoRA from two models: networks/extract_lora_from_models.py --model_org base.safetensors
--model_tuned tuned.safetensors --dim 32 --save_to lora.safetensors"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # started by its path: the repository is where `library` is found
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from library.command import run_command
from library.config.options.config import CONFIG
from library.config.options.network_tools import EXTRACT, asked, extract_problems, written_to
from library.config.parse import parse
from library.console import show

CHECKS = (asked("model_org", "model_tuned", "save_to"), extract_problems, written_to("model_org", "model_tuned"))


def extract_lora(argv: Sequence[str]) -> None:
    description = " ".join(str(__doc__).split())
    name = "networks/extract_lora_from_models.py"
    settings = parse(argv, EXTRACT, CONFIG, prog=name, description=description, checks=CHECKS)
    for line in settings.notes():
        show(f"note: {line}")

    # The engine is imported here and nowhere above: a mistake in the options must not wait for torch.
    from tqdm import tqdm

    from library.adapters.extract import Extraction, extract, find_facts, open_model, report, write_extracted
    from library.adapters.save_network import PRECISIONS
    from library.adapters.tool_arguments import check_target, chosen_device

    device = chosen_device(settings["device"])
    check_target(settings["save_to"])
    original, tuned = open_model(Path(settings["model_org"])), open_model(Path(settings["model_tuned"]))
    model = find_facts(original, tuned, settings["v2"], settings["sdxl"], settings["v_parameterization"])
    extraction = Extraction(
        settings["dim"],
        settings["conv_dim"],
        settings["clamp_quantile"],
        settings["min_diff"],
        PRECISIONS.get(settings["load_precision"]),
    )
    found = extract(
        original,
        tuned,
        extraction,
        device,
        lambda names: iter(tqdm(names, desc="extracting", unit="layer", disable=None)),
    )
    dtype = PRECISIONS[settings["save_precision"] or "float"]
    write_extracted(settings["save_to"], found, extraction, model, dtype, brief=settings["no_metadata"])
    for line in report(found, extraction, settings["save_to"]):
        show(line)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(extract_lora, argv)


if __name__ == "__main__":
    sys.exit(main())
