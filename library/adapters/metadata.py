"""What a network file says about its training: the `ss_*` entries that kohya's trainers write and web UIs read.

All values are text, as Python prints them; entries with several parts are JSON. Numbers that a dataset config can
change are those that were used, not those of the command line.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from library.config.dataset_keys import KEYS
from library.config.option import Option, by_name
from library.config.options.train_network import ALL_TRAIN_NETWORK
from library.files import file_hash, legacy_file_hash, tensor_hashes

Metadata = dict[str, str]

OPTIONS = by_name(ALL_TRAIN_NETWORK)
FOLDER_OPTIONS, SUBSET_OPTIONS = ([key.name for key in KEYS if letter in key.option.described] for letter in "FS")

MINIMUM = """
    ss_v2 ss_base_model_version ss_network_module ss_network_dim ss_network_alpha ss_network_args
""".split()  # noqa: SIM905 (what loading needs; all that --no_metadata leaves)


@dataclass(frozen=True)
class ModelFacts:
    """The base model. `source` and `vae` are what the person gave: a file, a folder, or a name."""

    family: Literal["sd1", "sd2", "sdxl"]
    is_v_prediction: bool
    source: str
    vae: str | None = None
    is_flow: bool = False

    @property
    def version(self) -> str:
        """kohya's name of the architecture: sd_v1, sd_v1_v, sd_v2, sd_v2_v, sdxl_base_v1-0."""
        if self.family == "sdxl":
            return "sdxl_base_v1-0"
        return f"sd_v{self.family[-1]}" + ("_v" if self.is_v_prediction else "")


@dataclass(frozen=True)
class ImageFacts:
    """One image: its size and bucket as (width, height), how often an epoch shows it, and its captions' tags."""

    size: tuple[int, int]
    bucket: tuple[int, int]
    repeats: int
    caption: str


@dataclass(frozen=True)
class SubsetFacts:
    """One folder of images, or those of a metadata file. `options` are its settings by name (flip_aug, ...)."""

    image_dir: Path
    num_repeats: int
    images: Sequence[ImageFacts]
    is_reg: bool = False
    class_tokens: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    metadata_file: Path | None = None

    @property
    def name(self) -> str:
        """What the subset is called in tables of tags and folders."""
        return (self.metadata_file or self.image_dir).name

    @property
    def count(self) -> int:
        return len(self.images) * self.num_repeats


@dataclass(frozen=True)
class DatasetFacts:
    """One dataset. Resolution is (width, height); the limits of its buckets are None without buckets."""

    batch_size: int
    resolution: tuple[int, int]
    enable_bucket: bool
    min_bucket_reso: int | None
    max_bucket_reso: int | None
    subsets: Sequence[SubsetFacts]
    resize_interpolation: str | None = None

    def count(self, is_reg: bool) -> int:
        return sum(subset.count for subset in self.subsets if subset.is_reg == is_reg)


@dataclass(frozen=True)
class RunFacts:
    """What the options do not say. `optimizer` is `module.Class(name=value,...)`; times are seconds since 1970.

    `network_args` are the network's arguments as they were passed. `network_dim` and `network_alpha` are those in use
    where the options leave them open. `num_processes` is only for the total batch size.
    """

    session_id: int
    started_at: float
    num_epochs: int
    num_batches_per_epoch: int
    max_train_steps: int
    optimizer: str
    network_args: Mapping[str, Any] = field(default_factory=dict)
    network_dim: int | None = None
    network_alpha: float | None = None
    num_processes: int = 1
    num_validation_images: int = 0
    datasets_from_config: bool = True  # False: --train_data_dir, whose only dataset is described entry by entry


def training_metadata(
    settings: Mapping[str, Any],
    model: ModelFacts,
    datasets: Sequence[DatasetFacts],
    run: RunFacts,
    declared: Mapping[str, Option] = OPTIONS,
) -> Metadata:
    """All entries that stay the same during a run; `settings` are the values of the `declared` options by name."""
    facts: dict[str, Any] = {
        f"ss_{name}": _plain(settings.get(name))
        for name, option in declared.items()
        if option.in_metadata and (option.of_sd_scripts or settings.get(name))
    }
    if model.is_flow:
        facts["ss_flow_model"] = True
    facts |= {
        "ss_session_id": run.session_id,
        "ss_training_started_at": run.started_at,
        "ss_optimizer": run.optimizer,
        "ss_num_epochs": run.num_epochs,
        "ss_num_batches_per_epoch": run.num_batches_per_epoch,
        "ss_max_train_steps": run.max_train_steps,
        "ss_num_train_images": sum(dataset.count(is_reg=False) for dataset in datasets),
        "ss_num_reg_images": sum(dataset.count(is_reg=True) for dataset in datasets),
        "ss_num_validation_images": run.num_validation_images,
        "ss_debiased_estimation": settings.get("debiased_estimation_loss"),
        "ss_sd_scripts_commit_hash": software_version(),
        "ss_v2": model.family == "sd2",
        "ss_base_model_version": model.version,
    }
    if run.network_dim is not None:
        facts["ss_network_dim"] = run.network_dim
    if run.network_alpha is not None:
        facts["ss_network_alpha"] = run.network_alpha
    if run.network_args:
        facts["ss_network_args"] = _json(dict(run.network_args))
    facts |= _checkpoint("ss_sd_model", "ss_new_sd_model", model.source)
    if model.vae:
        facts |= _checkpoint("ss_vae", "ss_new_vae", model.vae)
    if run.datasets_from_config:
        facts |= _described_datasets(datasets)
    else:
        facts |= _described_folders(settings, datasets[0], run)
    return {name: str(value) for name, value in facts.items()}


def saving_metadata(metadata: Metadata, *, epoch: int, steps: int, finished_at: float) -> Metadata:
    """The entries of one file: those of the run and the place in it. `epoch` and `steps` count what is done."""
    place = {"ss_epoch": epoch, "ss_steps": steps, "ss_training_finished_at": finished_at}
    return metadata | {name: str(value) for name, value in place.items()}


def minimum_metadata(metadata: Metadata) -> Metadata:
    """What --no_metadata leaves: only what is needed to load the file."""
    return {name: metadata[name] for name in MINIMUM if name in metadata}


def with_hashes(tensors: Mapping[str, Any], metadata: Metadata) -> Metadata:
    """The metadata with `sshs_model_hash` and `sshs_legacy_hash` of a file that holds these tensors."""
    return metadata | tensor_hashes(tensors, metadata)


def tag_frequency(captions: Iterable[str]) -> dict[str, int]:
    """How often each comma-separated tag occurs, in lower case, in the order of first occurrence."""
    tags = (tag.strip().lower() for caption in captions for tag in caption.split(","))
    return dict(Counter(tag for tag in tags if tag))


def bucket_info(images: Sequence[ImageFacts]) -> dict[str, Any]:
    """Images per bucket in an epoch, and the mean difference of aspect ratio (width / height) to the bucket's."""
    counts: Counter[tuple[int, int]] = Counter()
    for image in images:
        counts[image.bucket] += image.repeats
    errors = [abs(i.size[0] / i.size[1] - i.bucket[0] / i.bucket[1]) for i in images]
    buckets = {str(n): {"resolution": list(b), "count": counts[b]} for n, b in enumerate(sorted(counts))}
    return {"buckets": buckets, "mean_img_ar_error": sum(errors) / len(errors) if errors else 0.0}


@cache
def software_version() -> str:
    """This software and the commit that is checked out, read from git's own files; "(unknown)" outside of git."""
    git = Path(__file__).parents[2] / ".git"
    commit = "(unknown)"
    try:
        if git.is_file():  # a linked work tree
            git = Path(git.read_text(encoding="utf-8").removeprefix("gitdir:").strip())
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        commit = head if not head.startswith("ref:") else _resolve(git, head.removeprefix("ref:").strip())
    except OSError:
        pass
    return f"pivot-scripts/{commit}"


def _resolve(git: Path, ref: str) -> str:
    common = git / "commondir"
    root = (git / common.read_text(encoding="utf-8").strip()) if common.is_file() else git
    if (root / ref).is_file():
        return (root / ref).read_text(encoding="utf-8").strip()
    for line in (root / "packed-refs").read_text(encoding="utf-8").splitlines():
        if line.endswith(f" {ref}"):
            return line.split(" ")[0]
    return "(unknown)"


def _described_datasets(datasets: Sequence[DatasetFacts]) -> dict[str, str]:
    tags: dict[str, dict[str, int]] = {}
    folders: dict[str, dict[str, int]] = {}
    described = []
    for dataset in datasets:
        own_tags = _tags(dataset)
        tags = own_tags | tags  # of a folder in several datasets, the first counts
        folders |= _folders(dataset, is_reg=False)
        described.append(
            {
                "is_dreambooth": all(subset.metadata_file is None for subset in dataset.subsets),
                "batch_size_per_device": dataset.batch_size,
                "num_train_images": dataset.count(is_reg=False),
                "num_reg_images": dataset.count(is_reg=True),
                "resolution": list(dataset.resolution),
                "enable_bucket": dataset.enable_bucket,
                "min_bucket_reso": dataset.min_bucket_reso,
                "max_bucket_reso": dataset.max_bucket_reso,
                "tag_frequency": own_tags,
                "bucket_info": _buckets(dataset),
                "resize_interpolation": dataset.resize_interpolation,
                "subsets": [_described_subset(subset) for subset in dataset.subsets],
            }
        )
    return {"ss_datasets": _json(described), "ss_tag_frequency": _json(tags), "ss_dataset_dirs": _json(folders)}


def _described_subset(subset: SubsetFacts) -> dict[str, Any]:
    described = {
        "img_count": len(subset.images),
        "num_repeats": subset.num_repeats,
        **{name: subset.options.get(name) for name in SUBSET_OPTIONS},
        "image_dir": subset.image_dir.name,
    }
    if subset.metadata_file is not None:
        return described | {"metadata_file": subset.metadata_file.name}
    return described | {"class_tokens": subset.class_tokens, "is_reg": subset.is_reg}


def _described_folders(settings: Mapping[str, Any], dataset: DatasetFacts, run: RunFacts) -> dict[str, Any]:
    accumulation = settings.get("gradient_accumulation_steps") or 1
    return {
        **{f"ss_{name}": settings.get(name) for name in FOLDER_OPTIONS},
        "ss_batch_size_per_device": dataset.batch_size,
        "ss_total_batch_size": dataset.batch_size * run.num_processes * accumulation,
        "ss_resolution": tuple(dataset.resolution),
        "ss_enable_bucket": dataset.enable_bucket,
        "ss_min_bucket_reso": dataset.min_bucket_reso,
        "ss_max_bucket_reso": dataset.max_bucket_reso,
        "ss_dataset_dirs": _json(_folders(dataset, is_reg=False)),
        "ss_reg_dataset_dirs": _json(_folders(dataset, is_reg=True)),
        "ss_tag_frequency": _json(_tags(dataset)),
        "ss_bucket_info": _json(_buckets(dataset)),
    }


def _tags(dataset: DatasetFacts) -> dict[str, dict[str, int]]:
    return {s.name: tag_frequency(image.caption for image in s.images) for s in dataset.subsets}


def _folders(dataset: DatasetFacts, is_reg: bool) -> dict[str, dict[str, int]]:
    return {
        subset.name: {"n_repeats": subset.num_repeats, "img_count": len(subset.images)}
        for subset in dataset.subsets
        if subset.is_reg == is_reg
    }


def _buckets(dataset: DatasetFacts) -> dict[str, Any] | None:
    if not dataset.enable_bucket:
        return None
    return bucket_info([image for subset in dataset.subsets for image in subset.images])


def _checkpoint(name: str, new_name: str, source: str) -> dict[str, str]:
    """A checkpoint's name, and its hashes if it is a file (a folder has none)."""
    path = Path(source)
    facts = {f"{name}_name": path.name if path.exists() else source}
    if path.is_file():
        facts |= {f"{name}_hash": legacy_file_hash(path), f"{new_name}_hash": file_hash(path)}
    return facts


def _plain(value: Any) -> Any:
    """A list of one number is that number: an option that may take several was given one."""
    if isinstance(value, (list, tuple)) and len(value) == 1:
        return value[0]
    return list(value) if isinstance(value, tuple) else value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
