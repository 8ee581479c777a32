"""Which function compares which golden file, in the order of the table.

Each takes the content of its file and yields `Comparison`s; a file may have several.
"""

from collections.abc import Callable, Iterable
from typing import Any

from tests.golden_table import captions, images, noise, optimizers, prompts
from tests.golden_table.comparison import Comparison

COMPARED: tuple[tuple[str, Callable[[Any], Iterable[Comparison]]], ...] = (
    ("captions.json.gz", captions.wordings),
    ("captions.json.gz", captions.caption_files),
    ("weighted_prompts.json.gz", prompts.weighted_prompts),
    ("buckets.json.gz", images.buckets),
    ("folders.json.gz", images.folders),
    ("noise_schedule.json.gz", noise.noise_schedule),
    ("noise_schedule.json.gz", noise.drawn),
    ("loss_weights.json.gz", noise.weights),
    ("loss_weights.json.gz", noise.distances),
    ("optimizers.json.gz", optimizers.optimizers),
    ("lr_schedules.json.gz", optimizers.learning_rates),
)
