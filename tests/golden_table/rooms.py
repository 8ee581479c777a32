"""Which function compares which golden file, in the order of the table.

Each takes the content of its file and yields `Comparison`s; a file may have several.
"""

from collections.abc import Callable, Iterable
from typing import Any

from tests.golden_table import captions, files, images, networks, noise, optimizers, prompts, runs, textual_inversion
from tests.golden_table.comparison import Comparison

COMPARED: tuple[tuple[str, Callable[[Any], Iterable[Comparison]]], ...] = (
    ("captions.json.gz", captions.wordings),
    ("captions.json.gz", captions.caption_files),
    ("weighted_prompts.json.gz", prompts.weighted_prompts),
    ("buckets.json.gz", images.buckets),
    ("folders.json.gz", images.folders),
    ("caption_tokens.json.gz", prompts.caption_tokens),
    ("sample_prompts.json", prompts.sample_prompts),
    ("lora_keys_sd1.json.gz", networks.keys("sd1")),
    ("lora_keys_sd2_single_file.json.gz", networks.keys("sd2_single_file")),
    ("lora_keys_sd2_diffusers.json.gz", networks.keys("sd2_diffusers")),
    ("lora_keys_sdxl.json.gz", networks.keys("sdxl")),
    ("lora_keys_block_dims.json.gz", networks.blocks),
    ("names.json.gz", runs.run_names),
    ("ti.json.gz", textual_inversion.textual_inversion),
    ("metadata_sd15.json.gz", files.metadata_of_runs),
    ("metadata_sdxl.json.gz", files.metadata_of_runs),
    ("metadata_families.json.gz", files.metadata_of_families),
    ("noise_schedule.json.gz", noise.noise_schedule),
    ("noise_schedule.json.gz", noise.drawn),
    ("loss_weights.json.gz", noise.weights),
    ("loss_weights.json.gz", noise.distances),
    ("optimizers.json.gz", optimizers.optimizers),
    ("lr_schedules.json.gz", optimizers.learning_rates),
)
