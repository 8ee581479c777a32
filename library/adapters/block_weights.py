"""A weight for each block of the model, as kohya's `lbws` and web UIs count them.

The full count has 26 blocks: the text encoders, 12 of the way in, the middle, 12 of the way out. Lists of 12, 17 and 20
numbers are for the blocks that have attention, or that exist, in SDXL (12, 20) or SD1 and SD2 (17); every other block
keeps the weight 1.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from library.adapters.layer_kinds import MIDDLE, OUT, TEXT, block_of
from library.errors import UserError

_LAYOUTS = {  # length of the list: the blocks that its numbers are for
    12: (TEXT, 5, 6, 8, 9, MIDDLE, *range(OUT, OUT + 6)),
    17: (TEXT, 2, 3, 5, 6, 8, 9, MIDDLE, *range(OUT + 3, OUT + 12)),
    20: (TEXT, *range(1, 10), MIDDLE, *range(OUT, OUT + 9)),
    26: tuple(range(26)),
}
_OF_SDXL = (12, 20)


@dataclass(frozen=True)
class BlockWeights:
    """Weights by block of the full count; a block that is not among them has 1."""

    weights: dict[int, float]
    is_sdxl: bool

    def knows(self, layer: str) -> bool:
        return block_of(layer, self.is_sdxl) is not None

    def of(self, layer: str) -> float:
        block = block_of(layer, self.is_sdxl)
        return 1.0 if block is None else self.weights.get(block, 1.0)


def read_block_weights(texts: Sequence[str], *, is_sdxl: bool | None = None) -> list[BlockWeights]:
    """One for each text, a JSON list of 12, 17, 20 or 26 numbers. Raises `UserError`.

    `is_sdxl` None: told by the length of the lists, as kohya's svd_merge_lora does.
    """
    lists = [_numbers(text) for text in texts]
    if len({len(numbers) for numbers in lists}) > 1:
        raise UserError(
            f"`lbws` has lists of {', '.join(str(len(n)) for n in lists)} numbers; give all the same length"
        )
    return [
        BlockWeights(
            dict(zip(_LAYOUTS[len(numbers)], numbers, strict=True)),
            len(numbers) in _OF_SDXL if is_sdxl is None else is_sdxl,
        )
        for numbers in lists
    ]


def _numbers(text: str) -> list[float]:
    try:
        numbers = json.loads(text)
    except ValueError:
        numbers = None
    is_list = isinstance(numbers, list) and all(isinstance(n, int | float) and n is not True for n in numbers)
    if not is_list or len(numbers) not in _LAYOUTS:  # pyright: ignore[reportArgumentType]
        raise UserError(f'`lbws` has `{text}`; give a list of 12, 17, 20 or 26 numbers, as in "[1,0.5,0,...]"')
    return [float(number) for number in numbers]  # pyright: ignore[reportOptionalIterable]
