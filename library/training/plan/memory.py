"""What decides how much memory a planned run takes: its stages, its largest step, and what lies beside the weights."""

from __future__ import annotations

from pathlib import Path

import torch

from library.config.option import Settings
from library.data.caches.text_encoder_cache import captions_to_come
from library.data.dataset import Dataset
from library.models.family import Family
from library.models.standard import Configs
from library.streamed_weights import PIECE
from library.training.callbacks.samples import PreviewSpec
from library.training.plan.memory_estimate import Habits, cache_bytes
from library.training.plan.step_memory import Case
from library.training.runtime.memory import MemorySpec
from library.training.runtime.mixed_precision import DTYPES
from library.training.setup.checks import Checked, runs_text_encoder


def habits_of(checked: Checked, settings: Settings) -> Habits:
    return Habits(
        caches_latents=settings["cache_latents"],
        runs_text=runs_text_encoder(checked),
        encodes_text=captions_to_come(checked.dataset) is None,
        draws_samples=bool(checked.prompts)
        and (settings["sample_at_first"] or settings.take(PreviewSpec).interval is not None),
        lowram=settings["lowram"],
    )


def case_of(checked: Checked, family: Family, configs: Configs) -> Case:
    """The step that needs most: of the largest bucket, and the dataset with the largest batch there."""
    settings, dataset = checked.settings, checked.dataset
    size, batch = max(
        (
            (bucket, min(len(members), dataset.plan[number].batch_size))
            for (number, bucket), members in dataset.groups.items()
        ),
        key=lambda found: found[0][0] * found[0][1] * found[1],
    )
    sizes = [prompt.size(native_size(configs)) for prompt in checked.prompts]
    return Case(
        family,
        configs,
        *size,
        batch,
        tokens=(settings["max_token_length"] or 75) + 2,
        dtype=DTYPES[settings["mixed_precision"]],
        vae_dtype=torch.float32 if settings["no_half_vae"] else None,
        runs_text=runs_text_encoder(checked),
        text_grows=checked.word is not None,
        vae_batch=min(settings["vae_batch_size"], len(dataset.all_pictures)),
        preview=max(sizes, key=lambda size: size[0] * size[1]) if sizes else None,
        memory=settings.take(MemorySpec),
    )


def native_size(configs: Configs) -> int:
    side = configs["unet"].get("sample_size") or 64
    return int(side if isinstance(side, int) else max(side)) * 8


def latents_of(dataset: Dataset) -> list[tuple[Path, int]]:
    """(folder, numbers of the latent) for each variant of each picture that a cache keeps."""
    looks = {
        (p.look, flip): p for p in dataset.all_pictures for flip in ((False, True) if p.subset.flip_aug else (False,))
    }
    return [(p.subset.image_dir, p.choice.bucket[0] * p.choice.bucket[1] // 64 * 4) for p in looks.values()]


def held_while_loading(path: Path, model: int, dtype: torch.dtype) -> int:
    """A single file is converted piece by piece beside the weights (`model` bytes) that are made of it; a folder part
    by part, and what is in float32 already is used as it lies there."""
    if path.is_file():
        return model + min(PIECE, path.stat().st_size)
    made = most = 0
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        files = sum(file.stat().st_size for file in (path / part).glob("*.safetensors"))
        most = max(most, made + files)
        made += files * dtype.itemsize // 4
    return most


def held_in_caches(checked: Checked, settings: Settings, configs: Configs) -> int:
    """Bytes of the computer's memory that cached latents and captions take."""
    in_memory = settings["cache_latents"] and not settings["cache_latents_to_disk"]
    latents = sum(numbers for _, numbers in latents_of(checked.dataset)) if in_memory else 0
    captions = 0 if runs_text_encoder(checked) else len(captions_to_come(checked.dataset) or ())
    tokens = (settings["max_token_length"] or 75) + 2
    return cache_bytes(latents, captions, tokens, int(configs["unet"]["cross_attention_dim"]))
