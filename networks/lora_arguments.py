"""The options of a LoRA network: network_dim, network_alpha and network_args, read and checked before anything is made.

All network_args arrive as text. Ranks, alphas and learning rates may differ between the blocks of the U-Net, which are
counted as kohya's trainers count them: 25 for SD1 and SD2 (12 down, 1 middle, 12 up), 23 for SDXL (the embeddings,
9 down, 3 middle, 9 up, the output).
"""

from __future__ import annotations

import difflib
import logging
import math
import re
from dataclasses import dataclass
from typing import Any, Optional

logger = logging.getLogger(__name__)

OPTIONS = {  # names of network_args; all values arrive as text
    "conv_dim": "rank of k x k convolutions; without it they are not trained",
    "conv_alpha": "alpha of k x k convolutions (default 1; 0: the rank)",
    "block_dims": "rank of each U-Net block: 25 numbers for SD1/SD2, 23 for SDXL; 0 leaves a block out",
    "block_alphas": "alpha of each U-Net block, beside block_dims",
    "conv_block_dims": "rank of each U-Net block's k x k convolutions, beside block_dims",
    "conv_block_alphas": "alpha of each U-Net block's k x k convolutions, beside conv_block_dims",
    "down_lr_weight": "factor on unet_lr for each down block (12 numbers, SDXL 9), or a curve such as cosine+.25",
    "mid_lr_weight": "factor on unet_lr for the middle block (1 number, SDXL 3)",
    "up_lr_weight": "factor on unet_lr for each up block (12 numbers, SDXL 9), or a curve",
    "block_lr_zero_threshold": "blocks whose factor is not above this are left out (default 0)",
    "dropout": "probability of dropping a value between A and B; overrides --network_dropout",
    "rank_dropout": "probability of dropping one rank of a module for one sample",
    "module_dropout": "probability of leaving a module out of one forward pass",
    "loraplus_lr_ratio": "LoRA+: learning rate of B over that of A",
    "loraplus_unet_lr_ratio": "the same for the U-Net only",
    "loraplus_text_encoder_lr_ratio": "the same for the text encoders only",
}

NEEDS = {"block_alphas": "block_dims", "conv_block_dims": "block_dims", "conv_block_alphas": "conv_block_dims"}

CURVES = {  # factor of a learning rate at x = 0 (first block) ... 1 (last block)
    "cosine": lambda x: math.sin(math.pi / 2 * (1 - x)),
    "sine": lambda x: math.sin(math.pi / 2 * x),
    "linear": lambda x: x,
    "reverse_linear": lambda x: 1 - x,
    "zeros": lambda x: 0.0,
}


@dataclass(frozen=True)
class Arguments:
    """What --network_dim, --network_alpha and network_args ask for, checked."""

    sdxl: bool
    rank: int = 4
    alpha: float = 1.0
    ranks: tuple = (4,)  # of the U-Net: one for all blocks, or one for each of 25 (SDXL 23)
    alphas: tuple = (1.0,)
    conv_ranks: Optional[tuple] = None
    conv_alphas: tuple = (1.0,)
    lr_weights: Optional[tuple] = None
    dropouts: tuple = (0.0, 0.0, 0.0)  # of single values, of ranks, of whole modules
    unet_ratio: Optional[float] = None
    text_encoder_ratio: Optional[float] = None

    def rank_and_alpha(self, lora_name, is_wide_conv):
        """Rank and alpha of a module, or None if it is not trained."""
        if not lora_name.startswith("lora_unet"):
            return self.rank, self.alpha
        ranks, alphas = (self.conv_ranks or (0,), self.conv_alphas) if is_wide_conv else (self.ranks, self.alphas)
        block = block_index(lora_name, self.sdxl) if self.lr_weights or len(self.ranks) > 1 else 0
        if self.lr_weights and self.lr_weights[block] == 0:
            return None
        rank, alpha = ranks[block % len(ranks)], alphas[block % len(alphas)]  # a single one is meant for all blocks
        return (rank, alpha) if rank else None


class Reader:
    """Reads options that arrive as text, and collects all that is wrong with them for one error."""

    def __init__(self, given):
        self.given = {name: value for name, value in given.items() if value is not None and value != ""}
        self.problems = []
        for name in given:
            if name not in OPTIONS:
                near = difflib.get_close_matches(name, OPTIONS, 1)
                hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(OPTIONS)}"
                self.problems.append(f"{name} is not an option of this network; {hint}")

    def convert(self, name, text, kind, low, high):
        try:
            number = float(text)
            if not math.isfinite(number) or kind(number) != number or not low <= number < high:
                raise ValueError
            return kind(number)
        except (TypeError, ValueError):
            what = "a whole number" if kind is int else "a number"
            limit = f"from {low:g}" + (f" to below {high:g}" if high < math.inf else "")
            self.problems.append(f"{name} must be {what} {limit}, not {text!r}")
            return kind(low)

    def number(self, name, default: Any = None, kind=float, low=0.0, high=math.inf):
        return self.convert(name, self.given[name], kind, low, high) if name in self.given else default

    def numbers(self, name, count, kind=float):
        """A tuple of `count` numbers, or None if the option is not given."""
        if name not in self.given:
            return None
        numbers = tuple(self.convert(name, text, kind, 0, math.inf) for text in str(self.given[name]).split(","))
        if len(numbers) != count:
            self.problems.append(f"{name} needs {count} numbers for this model, not {len(numbers)}")
        return numbers

    def lr_weights(self, name, count):
        """`count` factors; 1 where none is given. A curve is `name` or `name+base`."""
        text = str(self.given.get(name, ""))
        curve, _, base = text.partition("+")
        if curve.strip() in CURVES:
            base = self.convert(name, base or 0, float, 0, math.inf)
            return tuple(CURVES[curve.strip()](i / max(count - 1, 1)) + base for i in range(count))
        weights = [self.convert(name, part, float, 0, math.inf) for part in text.split(",")] if text else []
        if text and len(weights) != count:
            rest = (
                "missing ones count as 1" if len(weights) < count else f"the last {len(weights) - count} are not used"
            )
            logger.warning(f"{name} has {len(weights)} numbers, this model {count} blocks; {rest}")
        return tuple((weights + [1.0] * count)[:count])


def read_arguments(sdxl, network_dim, network_alpha, neuron_dropout, given):
    """Check everything at once and fill in the defaults; ValueError with all problems."""
    read = Reader(given)
    rank = read.convert("network_dim", 4 if network_dim is None else network_dim, int, 1, math.inf)
    alpha = read.convert("network_alpha", 1.0 if network_alpha is None else network_alpha, float, 0, math.inf)
    blocks, side, middle = (23, 9, 3) if sdxl else (25, 12, 1)
    ranks, alphas = read.numbers("block_dims", blocks, int), read.numbers("block_alphas", blocks)
    conv_ranks, conv_alphas = read.numbers("conv_block_dims", blocks, int), read.numbers("conv_block_alphas", blocks)
    conv_rank, conv_alpha = read.number("conv_dim", kind=int), read.number("conv_alpha", 1.0)
    for name, needed in NEEDS.items():
        if name in read.given and needed not in read.given:
            read.problems.append(f"{name} has no effect without {needed}: give {needed} too")
    if "conv_alpha" in read.given and not (conv_rank or conv_ranks):
        logger.warning("conv_alpha has no effect without conv_dim: k x k convolutions are not trained")
    lr_weights = None
    if any(name in read.given for name in ("down_lr_weight", "mid_lr_weight", "up_lr_weight")):
        threshold = read.number("block_lr_zero_threshold", 0.0)
        sides = (("down_lr_weight", side), ("mid_lr_weight", middle), ("up_lr_weight", side))
        weights = [weight for name, count in sides for weight in read.lr_weights(name, count)]
        weights = [1.0, *weights, 1.0] if sdxl else weights  # SDXL counts the embeddings and the output as blocks
        lr_weights = tuple(weight if weight > threshold else 0.0 for weight in weights)
    ratio = read.number("loraplus_lr_ratio")
    neuron_dropout = read.convert("network_dropout", neuron_dropout or 0.0, float, 0, 1)
    arguments = Arguments(
        sdxl, rank, alpha, ranks or (rank,), alphas or (alpha,), lr_weights=lr_weights,
        conv_ranks=conv_ranks or ((conv_rank,) if conv_rank else None), conv_alphas=conv_alphas or (conv_alpha,),
        dropouts=(read.number("dropout", neuron_dropout, high=1), read.number("rank_dropout", 0.0, high=1),
                  read.number("module_dropout", 0.0, high=1)),
        unet_ratio=read.number("loraplus_unet_lr_ratio", ratio),
        text_encoder_ratio=read.number("loraplus_text_encoder_lr_ratio", ratio),
    )  # fmt: skip
    if read.problems:
        raise ValueError("; ".join(read.problems))
    return arguments


def block_index(lora_name, sdxl):
    """Number of a U-Net module's block: 0-24 (SD1/SD2) or 0-22 (SDXL), by diffusers' or by the original names."""
    original = re.search(r"_(input_blocks|middle_block|output_blocks)_(\d+)_", lora_name)
    if original:
        return {"input_blocks": 1, "middle_block": 10, "output_blocks": 13}[original[1]] + int(original[2])
    middle = re.search(r"_mid_block_(resnets|attentions)_(\d+)_", lora_name)
    if middle:
        return 10 + 2 * int(middle[2]) + (middle[1] == "attentions") if sdxl else 12
    side = re.search(r"_(down|up)_blocks_(\d+)_(resnets|attentions|downsamplers|upsamplers)_(\d+)_", lora_name)
    if not side:
        return 0
    position = 3 * int(side[2]) + (2 if side[3].endswith("samplers") else int(side[4]))
    return position + (13 if side[1] == "up" else 2 if sdxl else 1)
