"""The model that is trained on."""

from library.config.option import NOTHING, THROUGH, Group, Option
from library.config.values import path_or_name

RECOGNISED = "the weights decide; a flag that contradicts them is reported"

# fmt: off
MODEL = Group("Model", (
    Option("pretrained_model_name_or_path", path_or_name, None, "the model: a file, or a diffusers folder",
           known_as=("model", "model_path", "base_model", "pretrained_model", "ckpt"), decides=THROUGH,
           differs="a file or folder on this machine: nothing is downloaded", names_a_model=True),
    Option("v2",                         bool,         False, "Stable Diffusion 2.x (checked against the weights)",
           known_as=("is_v2", "sd2"), decides=NOTHING, differs=RECOGNISED),
    Option("sdxl",                       bool,         False, "Stable Diffusion XL (checked against the weights)",
           known_as=("is_sdxl", "sdxl_model"), decides=NOTHING, of_sd_scripts=False),
    Option("v_parameterization",         bool,         False, "the model predicts v (checked against its config)",
           known_as=("v_prediction", "vpred"),
           differs="a model that says itself that it predicts v is trained so without it"),
    Option("vae",                        path_or_name, None,  "another VAE than the model's own: a file or a folder",
           known_as=("vae_path",), decides=THROUGH, differs="a file or folder on this machine: nothing is downloaded",
           names_a_model=True),
    Option("vae_custom_scale",           float,        None,  "latents = (z - shift) * scale: that (else the model's)",
           of_sd_scripts=False, in_metadata=True, positive=True),
    Option("vae_custom_shift",           float,        None,  "the shift (else the model's)",
           of_sd_scripts=False, in_metadata=True),
    Option("vae_reflection_padding",     bool,         False, "the VAE's convolutions pad by reflection",
           of_sd_scripts=False, in_metadata=True),
    Option("no_half_vae",                bool,         False, "keep the VAE in float32 (SDXL's needs it)",
           known_as=("sdxl_no_half_vae",), recorded_late=True,
           differs="pictures on which a half-precision VAE overflows are encoded in float32 without it too"),
    Option("tokenizer_cache_dir",        path_or_name, None,  "folder with tokenizers, for machines without a network",
           decides=NOTHING, differs="a folder with `vocab.json` and `merges.txt`, asked before any other place"),
    Option("lowram",                     bool,         False, "load models straight to the device",
           decides=NOTHING, in_metadata=True),
    Option("disable_mmap_load_safetensors", bool,      False, "read model files whole, not mapped into memory",
           decides=NOTHING),
))
