"""Options of the commands on network files (networks/*.py), under kohya's names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from library.config.option import Group, Option, Settings
from library.config.values import path_or_name
from library.errors import Problem

WRITTEN = (".safetensors", ".ckpt", ".pt", ".pth")

# fmt: off
SAVE_PRECISION = Option("save_precision", str, None, "precision of the file that is written (float if left out)",
                        choices=("float", "fp16", "bf16"))
SAVE_TO = Option("save_to", Path, None, "file to write")
DEVICE = Option("device", str, "cpu", "where to calculate: cpu, cuda, cuda:0")
OVERWRITE = Option("overwrite", bool, False, "allow `save_to` to be one of the files that are read")

RESIZE = Group("Resize", (
    Option("model",          Path,  None, "the LoRA or LoCon file to resize"),
    SAVE_TO,
    Option("new_rank",       int,   4,    "rank to give every layer; with dynamic_method the most that a layer gets",
           minimum=1),
    Option("new_conv_rank",  int,   None, "the same for convolutions (new_rank if left out)", minimum=1),
    Option("dynamic_method", str,   None, "how each layer's rank is found from its singular values",
           choices=("sv_ratio", "sv_fro", "sv_cumulative")),
    Option("dynamic_param",  float, None, "what dynamic_method aims at: largest over smallest value (sv_ratio), share "
           "of the Frobenius norm (sv_fro) or of the sum of the values (sv_cumulative)"),
    SAVE_PRECISION,
    DEVICE,
    OVERWRITE,
    Option("same_alpha",     bool,  False, "give all layers one alpha, and put what differs in scale into the factors: "
           "for diffusers, which reads only one"),
    Option("verbose",        bool,  False, "print a line for each layer"),
))

MODELS = Option("models", Path, None, "network files to merge", nargs="*")
RATIOS = Option("ratios", float, None, "how much of each network, in the order of models", nargs="*")
LBWS = Option("lbws", str, None, 'weights by block of each network: "[1,0.5,...]" with 12, 17, 20 or 26 numbers',
              nargs="*")
PRECISION = Option("precision", str, "float", "precision of the calculation", choices=("float", "fp16", "bf16"))
SD_MODEL = Option("sd_model", path_or_name, None,
                  "model to merge into: a .safetensors or .ckpt file, or a diffusers folder (without it, the networks "
                  "are merged into one)")
NO_METADATA = Option("no_metadata", bool, False, "write no modelspec; what loading needs is always written")
SAVE_MERGED = Option("save_precision", str, None, "precision of the file that is written (a network: that of the "
                     "calculation if left out; a model: its own, and its VAE's always)",
                     choices=("float", "fp16", "bf16"))
CONCAT = Option("concat", bool, False, "put networks side by side: exactly the sum, and the ranks add up")
SHUFFLE = Option("shuffle", bool, False, "put the ranks of each layer in a random order, which changes no result")
V2 = Option("v2", bool, False, "Stable Diffusion 2.x (checked against the weights)")

MERGE = Group("Merge", (
    V2, SD_MODEL, SAVE_TO, MODELS, RATIOS, SAVE_MERGED, PRECISION, CONCAT, SHUFFLE, NO_METADATA, DEVICE, OVERWRITE,
))
SDXL_MERGE = Group("Merge", (
    SD_MODEL, SAVE_TO, MODELS, RATIOS, LBWS, SAVE_MERGED, PRECISION, CONCAT, SHUFFLE, NO_METADATA, DEVICE, OVERWRITE,
))
SVD_MERGE = Group("Merge to a rank", (
    SAVE_TO, MODELS, RATIOS, LBWS,
    Option("new_rank",       int,   4,    "rank of the layers of the merged network", minimum=1),
    Option("new_conv_rank",  int,   None, "rank of its k x k convolutions (new_rank if left out)", minimum=1),
    SAVE_MERGED,
    Option("precision",      str,   "float", "precision of the file, where save_precision is left out; the calculation "
           "is in float64", choices=("float", "fp16", "bf16")),
    NO_METADATA, DEVICE, OVERWRITE,
))
NOT_WHOLE = "models are read a layer at a time, and never lie anywhere as a whole"
EXTRACT = Group("Extract", (
    V2,
    Option("sdxl",               bool,  False, "Stable Diffusion XL (checked against the weights)"),
    Option("v_parameterization", bool,  False, "the model predicts v (else what the models say of themselves)"),
    Option("model_org",          path_or_name, None, "the original model: a file, or a diffusers folder"),
    Option("model_tuned",        path_or_name, None, "the model that was made of it"),
    SAVE_TO,
    Option("dim",                int,   4,     "rank of each layer", minimum=1),
    Option("conv_dim",           int,   None,  "rank of k x k convolutions (without it, resnets are left out)",
           minimum=1),
    Option("clamp_quantile",     float, 1.0,   "cut values of the factors above this quantile, as sd-scripts does by "
           "default at 0.99; 1 cuts none", minimum=0.5, maximum=1),
    Option("min_diff",           float, 0.01,  "the text encoders are extracted if a weight differs by more than this",
           minimum=0),
    Option("load_precision",     str,   None,  "round the weights of both models to this first",
           choices=("float", "fp16", "bf16")),
    SAVE_PRECISION, DEVICE, NO_METADATA, OVERWRITE,
    Option("load_original_model_to", str, None, "device of the original model", inert=NOT_WHOLE),
    Option("load_tuned_model_to",    str, None, "device of the tuned model", inert=NOT_WHOLE),
))
# fmt: on


def extract_problems(settings: Settings) -> list[Problem]:
    if settings["v2"] and settings["sdxl"]:
        return [Problem(f"{settings.place('v2')} and {settings.place('sdxl')} are two kinds of model; leave one out")]
    return []


def merge_problems(settings: Settings) -> list[Problem]:
    """As many ratios, and weights by block if any, as networks; nothing that is for another kind of merge."""
    problems = []
    models = settings["models"] or []
    for name in ("ratios", "lbws"):
        given = settings.values.get(name)
        if given is not None and models and len(given) != len(models):
            text = f"{settings.place(name)} has {len(given)} entries, but `models` has {len(models)}; give one for each"
            problems.append(Problem(text))
    for name in ("concat", "shuffle"):
        if settings.values.get(name) and settings.values.get("sd_model"):
            problems.append(Problem(f"{settings.place(name)} is about networks, and has no effect with `sd_model`"))
    return problems


def resize_problems(settings: Settings) -> list[Problem]:
    problems = []
    method, param = settings["dynamic_method"], settings["dynamic_param"]
    if method and param is None:
        problems.append(Problem(f"{settings.place('dynamic_method')} needs `dynamic_param`, the number to aim at"))
    if param is not None and not method:
        problems.append(Problem(f"{settings.place('dynamic_param')} needs `dynamic_method`"))
    if param is not None and method == "sv_ratio" and param < 1:
        problems.append(
            Problem(f"{settings.place('dynamic_param')} is {param}; a ratio of singular values is 1 or more")
        )
    if param is not None and method in ("sv_fro", "sv_cumulative") and not 0 < param <= 1:
        problems.append(Problem(f"{settings.place('dynamic_param')} is {param}; a share is above 0 and at most 1"))
    return problems


def asked(*names: str) -> Callable[[Settings], list[Problem]]:
    """A check that these options are given."""

    def check(settings: Settings) -> list[Problem]:
        missing = [name for name in names if settings[name] in (None, [])]
        return [Problem(f"`{name}` is not set; {settings.options[name].help}") for name in missing]

    return check


def written_to(*read: str) -> Callable[[Settings], list[Problem]]:
    """A check of `save_to`: a known ending, and none of the files of these options unless that is asked for."""

    def check(settings: Settings) -> list[Problem]:
        target: Path | None = settings["save_to"]
        if target is None:
            return []
        problems = []
        is_folder = Path(settings.values.get("sd_model") or "").is_dir() and bool(settings.values.get("sd_model"))
        if target.suffix not in WRITTEN and not is_folder:
            problems.append(
                Problem(f"{settings.place('save_to')} is `{target}`; give a name that ends in {', '.join(WRITTEN)}")
            )
        for name in read:
            values = settings[name] if isinstance(settings[name], list) else [settings[name]]
            for source in values:
                if source is not None and Path(source).resolve() == target.resolve() and not settings["overwrite"]:
                    problems.append(
                        Problem(
                            f"{settings.place('save_to')} is `{source}`, which is read; add `--overwrite` to replace it"
                        )
                    )
        return problems

    return check
