"""What a run would do, found out without loading a model or writing a file: `--plan`."""

from __future__ import annotations

import os
import re
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from library.config.dataset_specs import DatasetPlan
from library.config.option import Settings
from library.config.values import split_key_values
from library.data.dataset import Dataset
from library.data.dataset import build as build_dataset
from library.data.order import Geometry, steps_per_epoch
from library.data.preflight.at_hand import found_at_hand
from library.data.preflight.findings import Finding
from library.data.text_cache import captions_to_come
from library.models.family import Family, StableDiffusion
from library.models.skeleton import model_configs
from library.models.standard import Configs
from library.pieces import PIECE
from library.sampling.prompts import SamplePrompt, read_prompts
from library.training.assemble import Resumed, check_rates
from library.training.build import SAVED_AS, Checked, runs_text_encoder
from library.training.clock import Clock, LengthSpec, new_clock
from library.training.counted import FAKE, Case, Counted, count
from library.training.file_names import SavingSpec
from library.training.memory import MemorySpec
from library.training.memory_estimate import Habits, Parts, Surroundings, cache_bytes
from library.training.network import NetworkSpec, NetworkTrainable, create_network, optimizer_groups
from library.training.new_word import check_word
from library.training.optimizers import OptimizerSpec, create_optimizer
from library.training.planned_files import PlannedFile, planned_files
from library.training.plugins import check_arguments, import_plugin
from library.training.precision import DTYPES
from library.training.previews import PreviewSpec
from library.training.trainables import SAMPLED_ELEMENTS

PART = re.compile(r"_(te\d*|unet)(?=_)")
MOST_ELEMENTS = 2**20  # of a parameter that the optimizer is tried on


@dataclass
class TrainedPart:
    """The network's share in one part of the model; `rates` are learning rates, empty where it is not trained."""

    modules: set[str] = field(default_factory=set)
    parameters: int = 0
    rates: set[float] = field(default_factory=set)


@dataclass(frozen=True)
class NetworkShape:
    """A network without its numbers: by part ("unet", "te", "te1", ...), and the bytes of its file and its state."""

    parts: dict[str, TrainedPart]
    file_bytes: int
    state_bytes: int
    optimizer_bytes: int


@dataclass(frozen=True)
class Plan:
    """Everything that `--plan` shows."""

    settings: Settings
    family: Family
    dataset: Dataset
    clock: Clock
    geometry: Geometry
    prompts: Sequence[SamplePrompt]
    network: NetworkShape | None
    vectors: int  # numbers of a new word's vectors
    parts: Parts | None  # None where a step cannot be counted; `uncounted` says why
    uncounted: str
    habits: Habits
    around: Surroundings
    files: Sequence[PlannedFile]
    findings: Sequence[Finding]  # what a look at the pictures found without opening one


def make_plan(settings: Settings, datasets: DatasetPlan, say: Callable[[str], None]) -> Plan:
    """Look at the options, the pictures' and the model's headers, and count. Raises `UserError` as a run would."""
    libraries = psutil.Process().memory_info().rss
    family, configs = model_configs(Path(settings["pretrained_model_name_or_path"]))
    checked = checked_without_writing(settings, datasets, say)
    dataset = checked.dataset
    geometry = Geometry(settings["gradient_accumulation_steps"], int(os.environ.get("WORLD_SIZE", "1")))
    clock = new_clock(settings.take(LengthSpec), steps_per_epoch(dataset, geometry.parts), resumed=False, say=say)
    check_rates(settings, clock.total_steps)
    habits = habits_of(checked, settings)
    counted, shape, uncounted = count_network(checked, case_of(checked, family, configs), say)
    vectors = vectors_of(settings, configs)
    word_bytes = 4 * vectors
    parts = None
    if counted is not None:
        optimizer = (shape.optimizer_bytes if shape else 0) + 2 * word_bytes
        beside = (counted.encode, counted.decode)
        model = (counted.unet, counted.vae, counted.text_encoders)
        parts = Parts(*model, counted.network + word_bytes, optimizer, counted.step, *beside)
    files = planned_files(
        settings.take(SavingSpec),
        settings.take(PreviewSpec),
        clock,
        network=shape.file_bytes if shape else None,
        state=(shape.state_bytes + shape.optimizer_bytes if shape else 0) + 4 * word_bytes,
        word=word_bytes or None,
        prompts=len(checked.prompts),
        latents=latents_of(dataset) if settings["cache_latents_to_disk"] else None,
    )
    model_path, dtype = Path(settings["pretrained_model_name_or_path"]), DTYPES[settings["mixed_precision"]]
    loading = held_while_loading(model_path, parts.model if parts else 0, dtype)
    around = Surroundings(libraries, held_in_caches(checked, settings, configs), loading)
    return Plan(
        settings,
        family,
        dataset,
        clock,
        geometry,
        checked.prompts,
        shape,
        vectors,
        parts,
        uncounted,
        habits,
        around,
        list(files),
        found_at_hand(dataset),
    )


def checked_without_writing(settings: Settings, datasets: DatasetPlan, say: Callable[[str], None]) -> Checked:
    """What `check_before_loading` finds out, but for what it tries in the output folder."""
    module, arguments = None, split_key_values(settings["network_args"])
    if settings["network_module"] is not None:
        module = import_plugin(settings["network_module"], "network_module", ("create_network",))
        check_arguments(module, arguments, "network_args")
    prompts = read_prompts(settings["sample_prompts"]) if settings["sample_prompts"] else []
    dataset = build_dataset(datasets, prior_loss_weight=settings["prior_loss_weight"], fallback=settings["output_dir"])
    word = check_word(settings, dataset, say)
    return Checked(settings, module, arguments, word, dataset, prompts, Resumed(None, None))


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


def count_network(
    checked: Checked, case: Case, say: Callable[[str], None]
) -> tuple[Counted | None, NetworkShape | None, str]:
    """A step counted and the network's shape; or neither, and why a network module cannot be counted."""
    found: list[NetworkTrainable] = []
    # Weights to start from change no size; reading them would be loading.
    unread = {"base_weights": None} | ({} if checked.settings["dim_from_weights"] else {"network_weights": None})
    settings = replace(checked.settings, values={**checked.settings.values, **unread}, _namespace=None)
    memory = settings.take(MemorySpec)

    def make(model: StableDiffusion) -> Any:
        if checked.module is None:
            return None
        # Converting tensors without content afterwards is what PyTorch cannot do: they are made as they will be.
        torch.set_default_dtype(torch.float16 if memory.full_fp16 else DTYPES["bf16" if memory.full_bf16 else "no"])
        spec = settings.take(NetworkSpec)
        network = create_network(checked.module, spec, checked.arguments, model, settings.namespace())
        rates = (settings[name] for name in ("text_encoder_lr", "unet_lr", "learning_rate"))
        found.append(NetworkTrainable(network, *optimizer_groups(network, *rates), model, FAKE))
        return network

    try:
        counted = count(case, make)
    except Exception as error:  # a network module of somebody else may do what tensors without content cannot
        if not found and checked.module is None:
            raise
        return None, None, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return counted, network_shape(found[0], settings) if found else None, ""


def network_shape(trainable: NetworkTrainable, settings: Settings) -> NetworkShape:
    rates = {id(p): group["lr"] for group in trainable.parameter_groups() for p in group["params"]}
    parts: dict[str, TrainedPart] = {}
    for name, parameter in trainable.network.named_parameters():
        module = name.partition(".")[0]
        place = PART.search(f"_{module}")
        part = parts.setdefault(place[1] if place else "network", TrainedPart())
        part.modules.add(module)
        part.parameters += parameter.numel()
        if id(parameter) in rates and rates[id(parameter)] != 0:
            part.rates.add(rates[id(parameter)])
    saved = SAVED_AS[settings["save_precision"]]
    tensors = dict(trainable.network.state_dict())
    each = [t.nbytes if saved is None or t.dim() == 0 else t.numel() * saved.itemsize for t in tensors.values()]
    samples = sum(4 * min(parameter.numel(), SAMPLED_ELEMENTS) for parameter in trainable.parameters)
    shapes = Tally((tuple(p.shape), p.dtype) for p in trainable.parameters)
    return NetworkShape(
        parts=parts,
        file_bytes=sum(each) + header_bytes(tensors),
        state_bytes=sum(t.nbytes for t in tensors.values()) + samples + 4 * header_bytes(tensors),
        optimizer_bytes=optimizer_bytes(settings.take(OptimizerSpec), shapes),
    )


def header_bytes(tensors: dict[str, torch.Tensor]) -> int:
    """About: the names, types, shapes and places of a safetensors file, and its metadata."""
    return sum(len(name) + 75 for name in tensors) + 4000


def optimizer_bytes(spec: OptimizerSpec, shapes: Tally[tuple[tuple[int, ...], torch.dtype]]) -> int:
    """What the optimizer keeps beside the parameters: tried on one parameter of each shape, or of a part of it."""
    total = 0.0
    for (shape, dtype), number in shapes.items():
        rows = max(1, min(shape[0], MOST_ELEMENTS * shape[0] // max(1, torch.Size(shape).numel())))
        parameter = torch.nn.Parameter(torch.full((rows, *shape[1:]), 0.5, dtype=dtype))
        optimizer, _ = create_optimizer(spec, [{"params": [parameter], "lr": spec.learning_rate}])
        parameter.grad = torch.full_like(parameter, 1e-3)
        optimizer.step()
        held = sum(value.nbytes for value in tensors_in(optimizer.state[parameter]))
        total += held * (shape[0] / rows) * number
    return int(total)


def tensors_in(state: Any) -> Iterator[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, dict):
        for value in state.values():
            yield from tensors_in(value)


def vectors_of(settings: Settings, configs: Configs) -> int:
    """Numbers that a new word's vectors have, in all text encoders together."""
    if settings["token_string"] is None:
        return 0
    widths = [config["hidden_size"] for name, config in configs.items() if name.startswith("text_encoder")]
    return settings["num_vectors_per_token"] * sum(widths)


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
