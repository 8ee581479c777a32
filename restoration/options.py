"""The options of the restoration commands. One config file describes one person and serves all commands; each declares
the groups that it reads, and passes over the others'.

What two pivots both have, such as a learning rate, has a name of its own on the command line, and the short one inside
its table: `--text_learning_rate 8e-6` is `[text_pivot] learning_rate = 8e-6`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform

from library.config.option import JOB, NOTHING, PICTURES, THROUGH, Group, Needs, Option, Settings
from library.config.options.averaging import AVERAGES
from library.config.options.config import CONFIG
from library.config.options.logging import LOGGING
from library.config.options.loss import LOSS
from library.config.options.model import MODEL
from library.config.options.network import NETWORK
from library.config.options.optimizer import OPTIMIZER
from library.config.options.saving import SAVING
from library.config.options.training import TRAINING
from library.config.spec import declared, spec_of
from library.config.values import path_or_name, period, two_numbers
from restoration.damage.ranges import PRESETS, RANGES, SECOND, Degradation

TEXT, MODEL_PIVOT, BOTH = "text", "model", "both"
PIVOT_FILES = {TEXT: "_G", MODEL_PIVOT: "_E"}
"""What is added to `output_name` for the file, the log and the states of a pivot."""


def picked(group: Group, title: str, names: str, **defaults: Any) -> Group:
    """Some options of the main job's groups, some of them with another default."""
    chosen = {option.name: option for option in group}
    options = [chosen[name] for name in names.split()]
    return Group(title, [replace(o, default=defaults[o.name]) if o.name in defaults else o for o in options])


def face_choice(raw: object) -> str:
    """A word of `which_face`, or numbers from the left, 1 first: "2" or "1,3"."""
    written = ",".join(str(part) for part in raw) if isinstance(raw, list) else str(raw)
    words = [word.strip() for word in written.split(",")]
    if written in FACE_CHOICES or all(word.isdecimal() and int(word) > 0 for word in words):
        return ",".join(words)
    raise ValueError(f"must be {', '.join(FACE_CHOICES)} or numbers from the left such as 2 or 1,3, not {written!r}")


FACE_CHOICES = ("auto", "identity", "largest", "all")

# fmt: off
RESTORER = Group("The restorer", (
    *picked(MODEL, "", "pretrained_model_name_or_path v2 v_parameterization tokenizer_cache_dir"),
    Option("controlnet_model_name_or_path", path_or_name, None,
           "the restorer's ControlNet E, of any layout; nothing if the model's file or folder has it",
           known_as=("controlnet", "controlnet_path", "encoder"), decides=THROUGH, names_a_model=True),
    Option("cleaner",                    path_or_name, None,
           "file of the cleaner before it (SwinIR ...), none, or bicubic; else the restorer's own, if it has one",
           known_as=("preprocess_model", "stage1")),
))
IDENTITY = Group("The person", (
    Option("prompt",                     str,   None,  'what stands for the person: "a photo of a sks woman"',
           known_as=("instance_prompt",)),
    Option("class_prompt",               str,   None,  "what stands for people like them (else prompt without token)"),
    Option("token",                      str,   "sks", "the word in the prompt that means this person",
           recorded_late=True),
    Option("reference_dir",              Path,  None,  "folder of about ten pictures of the person, aligned",
           known_as=("instance_data_dir", "references", "refs"), decides=PICTURES),
    Option("reg_data_dir",               Path,  None,
           "folder of other faces, which keep the rest of the model as it is (prior preservation)",
           known_as=("class_data_dir",), decides=PICTURES),
    Option("num_class_images",           int,   200,   "how many of them G draws where reg_data_dir is not given",
           minimum=1, decides=THROUGH),
    Option("resolution",                 int,   None,  "side of the pictures (else what the model was trained on)",
           minimum=64),
))
PIVOTS = Group("Training", (
    Option("pivot",                      str,   BOTH,  "text: step 1, the U-Net around the prompt; model: step 2, the "
           "ControlNet around the U-Net; both, one after the other", choices=(TEXT, MODEL_PIVOT, BOTH),
           shapes_tensors=True),
    Option("text_learning_rate",         float, 8e-6,  "learning rate of step 1", minimum=0,
           in_tables=(("text_pivot", "learning_rate"),), decides=THROUGH),
    Option("text_max_train_steps",       int,   2500,  "optimizer steps of step 1", minimum=1,
           in_tables=(("text_pivot", "max_train_steps"),), decides=JOB),
    Option("prior_loss_weight",          float, 1.0,   "weight of the prior preservation loss; 0 is none", minimum=0),
    Option("in_context",                 bool,  True,  "train G inside the restorer (eq. 6); false is eq. 5"),
    Option("model_learning_rate",        float, 5e-5,  "learning rate of step 2", minimum=0,
           in_tables=(("model_pivot", "learning_rate"),), decides=THROUGH),
    Option("model_max_train_steps",      int,   800,   "optimizer steps of step 2", minimum=1,
           in_tables=(("model_pivot", "max_train_steps"),), decides=JOB),
    Option("train_data_dir",             Path,  None,  "step 2 on this folder of faces instead of the references",
           decides=PICTURES),
    Option("identities",                 str,   None,
           "step 2 on several people, each FOLDER=THEIR_G.safetensors", nargs="*", recorded_late=True),
    Option("high_noise_text",            str,   "prompt",
           "what G reads in step 2 at noise levels where eq. 8 reads nothing: prompt or null",
           choices=("prompt", "null")),
    Option("unet_weights",               Path,  None,  "G_p of step 1 (else OUTPUT_NAME_G in output_dir)",
           decides=THROUGH),
    Option("train_batch_size",           int,   1,     "pictures per step; step 1 adds as many of the prior",
           minimum=1, known_as=("batch_size",)),
    Option("cache_conditions",           bool,  True,  "degrade and encode all pictures before the first step",
           decides=NOTHING),
    *picked(LOSS, "", "min_timestep max_timestep zero_terminal_snr"),
))
NETWORK_ON_G = picked(NETWORK, "A network on G instead of all its weights (step 1; our addition)",
    "network_module network_dim network_alpha network_args network_dropout scale_weight_norms")
RUN = picked(TRAINING, "Length, precision, memory",
    "seed mixed_precision gradient_checkpointing gradient_accumulation_steps xformers sdpa mem_eff_attn", seed=231)
OPTIMIZER_HERE = Group("Optimizer", [o for o in OPTIMIZER if o.name != "learning_rate"])
SAVING_HERE = picked(SAVING, "Saving and resuming",
    "output_dir output_name save_precision save_every_n_epochs save_every_n_steps save_last_n_epochs save_last_n_steps "
    "save_last_n_epochs_state save_last_n_steps_state save_state save_state_on_train_end resume "
    "resume_with_changes overwrite", save_precision="fp16")
PREVIEWS = Group("Previews", (
    Option("sample_every_n_steps",       period, None, "restore some references, degraded, after each nth step",
           minimum=1, decides=JOB),
    Option("sample_at_first",            bool,  False, "the same before training", decides=JOB),
))
_STAGE = (
    Option("blur_share",                 float, None,  "how often there is a blur", minimum=0, maximum=1),
    Option("kernel_size",                two_numbers, None, "sides of the blur's window, pixels"),
    Option("kernel_shares",              float, None,  "how often it is: round, oval, both generalized, both plateau",
           nargs="*"),
    Option("sinc_share",                 float, None,  "how often it is a sinc filter instead", minimum=0, maximum=1),
    Option("blur_sigma",                 two_numbers, None, "its standard deviation, pixels of a 512 px picture"),
    Option("generalized_beta",           two_numbers, None, "exponent of generalized Gaussians"),
    Option("plateau_beta",               two_numbers, None, "exponent of plateaus"),
    Option("downscale",                  two_numbers, None, "r: how many times smaller the picture is made"),
    Option("resize",                     two_numbers, None, "realesrgan: smallest and largest factor"),
    Option("resize_shares",              float, None,  "realesrgan: how often up, down, keep", nargs="*"),
    Option("interpolations",             str,   None,  "how it is resized: bilinear, area, bicubic", nargs="*"),
    Option("gaussian_share",             float, None,  "how often the noise is Gaussian, not Poisson's",
           minimum=0, maximum=1),
    Option("noise",                      two_numbers, None, "its standard deviation, of 255"),
    Option("poisson_scale",              two_numbers, None, "strength of Poisson noise"),
    Option("grey_noise_share",           float, None,  "how often all channels get the same", minimum=0, maximum=1),
    Option("jpeg_quality",               two_numbers, None, "quality of the JPEG, 1-100"),
)
DEGRADATION = Group("Degradation", (
    Option("degradation",                str,   "face", "how pictures are damaged", choices=tuple(PRESETS),
           in_tables=(("degradation", "preset"),)),
    *_STAGE,
    *(replace(option, name=SECOND + option.name, help=f"{option.help} (the second stage alone)") for option in _STAGE),
))
SAMPLING = Group("How pictures are restored", (
    Option("gamma",                      float, 0.5,
           "share of the steps, from noise on, in which nobody in particular is restored (eq. 8)",
           minimum=0, maximum=1),
    Option("guidance_scale",             float, 1.0,   "w of eq. 8: 1 is the person alone", minimum=0,
           known_as=("w", "cfg_scale", "guidance"), decides=JOB),
    Option("steps",                      int,   50,    "steps from noise to picture", minimum=1, maximum=1000,
           known_as=("sample_steps", "num_inference_steps"), decides=JOB),
    Option("passes",                     int,   1,     "more than 1: restore the restored picture again", minimum=1,
           decides=JOB),
    Option("color_fix",                  str,   "auto",
           "colours from the degraded picture; auto: tone where it is black and white or sepia, else wavelet",
           choices=("auto", "wavelet", "adain", "tone", "none"), known_as=("colour_fix", "color_fix_type"),
           decides=JOB),
))
FILES = Group("Files", (
    Option("input",                      Path,  None,  "folder of pictures, or one picture"),
    Option("output",                     Path,  None,  "folder to write; names are kept, pictures become .png"),
    Option("skip_existing",              bool,  False, "go on where an earlier call stopped"),
), decides=NOTHING)
RESTORING = Group("Restoring", (
    Option("blind",                      bool,  False, "without the person: the restorer as it was (eq. 4)"),
    Option("encoder_weights",            Path,  None,  "E_pr of step 2 (else OUTPUT_NAME_E in output_dir, if there)"),
    Option("batch_size",                 int,   1,     "pictures of one size that are restored together", minimum=1),
    Option("restore_mode",               str,   "aligned",
           "aligned: each picture is one face; faces: find, restore and paste back the faces of larger photos",
           choices=("aligned", "faces")),
    Option("other_faces",                str,   "keep",
           "the other people's faces in it: keep them as they are, or restore them blind", choices=("keep", "blind"),
           needs=Needs("restore_mode", ("faces",))),
    Option("mode",                       str,   "restore", "restore; swap: blur another person first; edit: with words",
           choices=("restore", "swap", "edit")),
    Option("swap_blur",                  float, 8.0,   "sigma of that blur, in pixels of a 512 px picture", minimum=0),
    Option("edit",                       str,   None,  'words added to the prompt: "smiling"'),
    Option("device",                     str,   None,  "cpu or cuda (else cuda where there is one)",
           choices=("cpu", "cuda")),
), decides=NOTHING)
DETECTOR = Group("Finding faces", (
    Option("face_detector",              Path,  None,  "OpenCV's YuNet (face_detection_yunet_2023mar.onnx)"),
    Option("min_face",                   int,   64,    "faces smaller than this are left alone, pixels", minimum=8),
    Option("which_face",                 face_choice, "auto",
           "whose face of several is the person's: auto (by identity_model; else the largest, in references nobody's), "
           "identity, largest, all, or numbers from the left: 2 or 1,3"),
    Option("min_sharpness",              float, 20.0,
           "prepare: reject faces blurrier than this (variance of the Laplacian)", minimum=0),
), decides=NOTHING)
EVALUATION = Group("Evaluation", (
    Option("restored",                   Path,  None,  "folder of restored pictures (else output)"),
    Option("reference",                  Path,  None,  "folder of the undamaged pictures, of the same names"),
    Option("identity_refs",              Path,  None,  "pictures of the person (else reference_dir)"),
    Option("identity_model",             Path,  None,  "ArcFace .onnx, or OpenCV's SFace .onnx"),
    Option("least_likeness",             float, 0.25,  "cosine to the references below which a face is not theirs; it "
           "depends on the network", minimum=-1, maximum=1, needs=Needs("identity_model")),
    Option("lpips_weights",              Path,  None,  "AlexNet, for LPIPS (alexnet-owt-7be5be79.pth)"),
    Option("lpips_heads",                Path,  None,  "the heads of LPIPS (alex.pth); else those of torchmetrics"),
    Option("fid_model",                  Path,  None,  "Inception, for FID (pt_inception-2015-12-05-6726825d.pth)"),
    Option("columns",                    str,   None,  "further folders on the sheet, each NAME=FOLDER", nargs="*"),
), decides=NOTHING)
# fmt: on

EVERYTHING = (
    *(CONFIG, RESTORER, IDENTITY, PIVOTS, NETWORK_ON_G, RUN, OPTIMIZER_HERE, AVERAGES, SAVING_HERE, LOGGING),
    *(PREVIEWS, DEGRADATION, SAMPLING, FILES, RESTORING, DETECTOR, EVALUATION),
)
"""A config file may hold what any of the commands reads."""

FOLDERS_OF_FACES = tuple(option.name for group in EVERYTHING for option in group if option.decides is PICTURES)
"""Options that say where pictures of faces lie."""
T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def restoration_spec(cls: type[T]) -> type[T]:
    """A frozen dataclass of options of the restoration commands."""
    return spec_of(*EVERYTHING)(cls)


def groups_for(*first: Group) -> list[Group]:
    """All groups, a command's own in front: `--help` begins with them, and a shared config file has no unknown keys."""
    mine = list(first)
    declared = {option.name for group in mine for option in group}
    rest = [Group(g.title, [o for o in g if o.name not in declared]) for g in EVERYTHING]
    return [*mine, *(group for group in rest if group)]


def degradation_of(settings: Settings) -> Degradation:
    """The preset with the ranges that a person has set; lengths are still those of a 512 px picture."""
    names: Iterable[str] = (prefix + name for prefix in ("", SECOND) for name in RANGES)
    values = {name: settings[name] for name in names if settings[name] is not None}
    ranges = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return PRESETS[settings["degradation"]].with_ranges(ranges)


@restoration_spec
class PersonFileSpec:
    """The options on where the files of a person are; field names are the options'."""

    output_dir: Path
    output_name: str | None = declared
    unet_weights: Path | None = declared

    def stem(self, pivot: str) -> str:
        return (self.output_name or "person") + PIVOT_FILES[pivot]

    @property
    def g_p(self) -> Path:
        """The G_p that step 2 and restoring use."""
        return self.unet_weights or self.output_dir / f"{self.stem(TEXT)}.safetensors"


def settings_of(settings: Settings, pivot: str) -> Settings:
    """The settings with a pivot's own learning rate, steps and file name under the names that every training reads."""
    own = {name: settings[f"{pivot}_{name}"] for name in ("learning_rate", "max_train_steps")}
    return settings.changed(**own, output_name=settings.take(PersonFileSpec).stem(pivot), pivot=pivot)
