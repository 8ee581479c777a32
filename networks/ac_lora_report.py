"""What AC-LoRA says of itself: lines that a person understands, pictures, and the metadata of its files.

All of it comes from the events of the RESTARTs: {"event": "restart", "restart": number from 1, "epoch", "step", "p",
"loss", "mean_rank", "kept_energy", "ranks": {module: I}, "energy": {module: share}}.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from typing import Any, Mapping, Sequence

Event = Mapping[str, Any]

BLOCK = re.compile(r"_((?:down_blocks|up_blocks|input_blocks|output_blocks)_\d+|mid_block|middle_block)_")
KINDS = {
    "self-attention": r"_attn1_",
    "cross-attention": r"_attn2_",
    "feed-forward": r"_ff_",
    "projection": r"_proj_(in|out)$",
    "convolution": r"_(conv\d?|conv_shortcut|op|skip_connection|in_layers_\d|out_layers_\d)$",
}


def block_of(module: str) -> str:
    """The part of the model that a person would name: a block of the U-Net, or a text encoder.

    Names with dots are paths in a model that has adapters of PEFT: up to the first number.
    """
    if "." in module and not module.startswith("lora_"):
        path = re.match(r"(?:base_model\.model\.)?(.*?\.\d+|[^.]+)(?:\.|$)", module)
        return path[1] if path else module
    if not module.startswith("lora_unet"):
        number = re.match(r"lora_te(\d)_", module)
        return f"text encoder {number[1]}" if number else "text encoder"
    found = BLOCK.search(module)
    return found[1] if found else "the rest of the U-Net"


def mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else 0.0


def mean_ranks_of_blocks(ranks: Mapping[str, int]) -> dict[str, float]:
    blocks = defaultdict(list)
    for module, rank in ranks.items():
        blocks[block_of(module)].append(rank)
    return {block: mean(numbers) for block, numbers in blocks.items()}


def lines(events: Sequence[Event], sizes: Mapping[str, int], written: tuple[int, int] | None) -> list[str]:
    """What the run did, in a few sentences.

    `sizes` are the modules' maximum ranks, `written` the numbers of parameters in the last file and in an uncut one.
    """
    if not events:
        return ["AC-LoRA made no RESTART"]
    last = events[-1]
    ranks = {module: rank for module, rank in last["ranks"].items() if rank}
    restarted = [(e, {m: r for m, r in e["ranks"].items() if r}) for e in events]
    cut = sum(sizes[module] - rank for _, kept in restarted for module, rank in kept.items())
    seen = sum(sizes[module] for _, kept in restarted for module in kept)
    most = max(sizes.values())
    blocks = sorted(mean_ranks_of_blocks(ranks).items(), key=lambda item: -item[1])
    named = ", ".join(f"{block} ({rank:.1f})" for block, rank in blocks[:3])
    least = f"; least in {blocks[-1][0]} ({blocks[-1][1]:.1f})" if len(blocks) > 3 else ""
    times = "1 RESTART" if len(events) == 1 else f"{len(events)} RESTARTs"
    out = [
        f"AC-LoRA made {times} and cut {cut:,} of {seen:,} ranks; at the last, after epoch {last['epoch']}, p was "
        f"{last['p']:.3f}",
        f"Rank was needed most in {named}{least}",
        f"Of the maximum rank {most} the modules used {mean(list(ranks.values())):.1f} on average "
        f"(from {min(ranks.values())} to {max(ranks.values())})",
    ]
    if written:
        kept, full = written
        out.append(f"The file holds {kept:,} of {full:,} parameters: {full / max(kept, 1):.1f} times smaller")
    return out


def heat_map(events: Sequence[Event]) -> dict[str, Any]:
    """Rank of every module (rows, along the forward pass) at every RESTART (columns)."""
    modules = sorted(events[-1]["ranks"], key=lambda module: (module.startswith("lora_unet"), place_in_unet(module)))
    return {
        "rows": modules,
        "columns": [f"{event['epoch']:g}" for event in events],
        "values": [[event["ranks"].get(module) or None for event in events] for module in modules],
        "label": "rank after each RESTART (column: epochs done)",
        "groups": [block_of(module) for module in modules],
    }


def rank_over_depth(ranks: Mapping[str, int]) -> dict[str, Any]:
    """Final rank along the U-Net, from its input to its output, one line for each kind of layer (means; NaN: none)."""
    depth: dict[str, dict[str, list[int]]] = {}
    for module, rank in sorted(ranks.items(), key=lambda item: place_in_unet(item[0])):
        kind = next((kind for kind, pattern in KINDS.items() if re.search(pattern, module)), "other layers")
        if module.startswith("lora_unet") and rank:
            unit = re.sub(r"_(transformer_blocks|proj_in|proj_out|conv|resnets_\d+_).*$", "", module)
            depth.setdefault(unit, {}).setdefault(kind, []).append(rank)
    kinds = [kind for kind in [*KINDS, "other layers"] if any(kind in unit for unit in depth.values())]
    return {
        "x": list(range(len(depth))),
        "lines": {k: [mean(unit[k]) if k in unit else float("nan") for unit in depth.values()] for k in kinds},
        "x_label": "depth in the U-Net (input to output)",
        "y_label": "rank",
    }


def place_in_unet(module: str) -> tuple:
    """Order of the modules along the forward pass: down, middle, up, numbers as numbers."""
    side = 0 if re.search(r"_(down|input)_blocks_", module) else 2 if re.search(r"_(up|output)_blocks_", module) else 1
    return (side, [(int(part), "") if part.isdigit() else (-1, part) for part in module.split("_")])


def figures(events: Sequence[Event]) -> dict[str, Any]:
    """Pictures as plain data: {"heat_maps": {title: ...}, "series": {title: ...}}."""
    if not events:
        return {}
    course = {
        "x": [event["epoch"] for event in events],
        "lines": {"p": [e["p"] for e in events], "kept energy": [e["kept_energy"] for e in events]},
        "x_label": "epochs done",
        "y_label": "share",
    }
    depth = rank_over_depth(events[-1]["ranks"])
    depths = {"rank_over_depth": depth} if depth["x"] else {}
    return {"heat_maps": {"ranks": heat_map(events)}, "series": {"threshold": course, **depths}}


def metadata(events: Sequence[Event], mode: str, export: str, ranks: Mapping[str, int]) -> dict[str, str]:
    """The ss_ac_lora_* entries of a file; `ranks` are those that the file has."""
    restarts = [
        {
            "epoch": event["epoch"],
            "p": round(event["p"], 6),
            "loss": event["loss"] and round(event["loss"], 6),
            "mean_rank": round(event["mean_rank"], 3),
            "rank_quantiles": quantiles([rank for rank in event["ranks"].values() if rank]),
        }
        for event in events
    ]
    return {
        "ss_ac_lora_version": "1",
        "ss_ac_lora_mode": mode,
        "ss_ac_lora_restarts": json.dumps(restarts),
        "ss_ac_lora_ranks": json.dumps(dict(ranks)),
        "ss_ac_lora_export": export,
    }


def quantiles(numbers: Sequence[int]) -> list[int]:
    """Smallest, lower quarter, median, upper quarter, largest."""
    ordered = sorted(numbers)
    return [ordered[round(q * (len(ordered) - 1) / 4)] for q in range(5)] if ordered else []
