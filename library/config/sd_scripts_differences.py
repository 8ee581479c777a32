"""Options of sd-scripts that work here, and in which something differs on purpose: what, and why.

Those without effect say so themselves (`Option.inert`); all others do what they do there. The page
docs/coming-from-sd-scripts.md is written from these three.
"""

from __future__ import annotations

ONCE = "each draw belongs to its picture and epoch: workers, processes and resuming do not change it"
RECOGNISED = "the weights decide; a flag that contradicts them is said"
ONE_BATCH = "with several processes or accumulation, a step is one batch of one bucket, cut into parts"
STATE = "a state has all that resuming needs to be exact, and a list of its files; it is there whole or not at all"

PLACE = "where a new run's count begins; a resumed run finds its place itself"

DIFFERS = {
    "config_file": "also JSON that the kohya_ss GUI saved; values are read into their types, unknown keys are said",
    "output_config": "secrets are not written",
    "pretrained_model_name_or_path": "a file or folder on this machine: nothing is downloaded",
    "vae": "a file or folder on this machine: nothing is downloaded",
    "v2": RECOGNISED,
    "v_parameterization": "a model that says itself that it predicts v is trained so without it",
    "no_half_vae": "pictures on which a half-precision VAE overflows are encoded in float32 without it too",
    "tokenizer_cache_dir": "a folder with `vocab.json` and `merges.txt`, asked before any other place",
    "network_module": "imported before a model is loaded; `networks.lora` is this project's, with the same file names",
    "network_args": "a name that the module does not know is refused with the nearest one, if the module declares them",
    "network_alpha": "in the file alpha is float32, also where a whole number was given",
    "network_weights": "`networks.lora` refuses a file of which no tensor fits",
    "resolution": "also a plain number, a list and 512x768",
    "train_batch_size": ONE_BATCH,
    "enable_bucket": "SDXL is told where its pixels were cut",
    "bucket_reso_steps": "any multiple of 8",
    "cache_latents": "keeps the VAE's mean and deviation and draws anew at each visit; sd-scripts keeps one draw",
    "cache_latents_to_disk": "files know picture, size and VAE, so none is stale; kohya's .npz are left alone",
    "cache_text_encoder_outputs_to_disk": "for all models; works with caption dropout; files know the text encoder",
    "flip_aug": ONCE,
    "color_aug": ONCE,
    "random_crop": ONCE,
    "face_crop_aug_range": ONCE,
    "masked_loss": "a run in which no picture has a mask says so",
    "debug_dataset": "writes a sheet of pictures and prints captions; needs no screen",
    "dataset_class": "refused: such a class feeds sd-scripts' own loop; a `dataset_config` describes any pictures",
    "dataset_config": "ranges are checked, and a wrong file in its place is recognised",
    "train_data_dir": "on the command line it goes before a config's datasets",
    "reg_data_dir": "folders in the order of their names",
    "shuffle_caption": ONCE,
    "caption_dropout_rate": ONCE,
    "caption_tag_dropout_rate": ONCE,
    "caption_dropout_every_n_epochs": "true to its word with any number of workers and under masks",
    "keep_tokens_separator": "never stays in the caption",
    "caption_prefix": "before every line of a caption of several lines",
    "caption_suffix": "behind every line of a caption of several lines",
    "max_token_length": "any number is read as whole chunks of 75",
    "weighted_captions": "blanks around a weight are allowed",
    "max_train_epochs": "an epoch is one pass over every picture times its repeats",
    "seed": "left out, one is drawn, written down, and used again when the run is resumed",
    "fp8_base": "with a scale for each channel; can run on a CPU",
    "fp8_base_unet": "with a scale for each channel; can run on a CPU",
    "gradient_accumulation_steps": ONE_BATCH,
    "max_data_loader_n_workers": "threads, whose number does not change what is trained",
    "xformers": "where it cannot run, PyTorch's attention is used and that is said",
    "mem_eff_attn": "PyTorch's attention is used, which needs less",
    "use_8bit_adam": "together with another `optimizer_type` it is refused",
    "use_lion_optimizer": "together with another `optimizer_type` it is refused",
    "lr_scheduler": "rates follow optimizer steps, whatever the number of processes",
    "lr_warmup_steps": "1 or more is a number of steps also as a float; a percentage may stand in TOML",
    "huber_scale": "also scales the `snr` schedule",
    "zero_terminal_snr": "loss weights follow the rescaled schedule",
    "min_timestep": "must be below `max_timestep`",
    "save_state": STATE,
    "save_state_on_train_end": STATE,
    "resume": "exact to the bit on a CPU; also `latest`; a state of another configuration is refused",
    "initial_epoch": PLACE,
    "initial_step": PLACE,
    "skip_until_initial_step": "begins inside the epoch, also with accumulation",
    "sample_prompts": "also the prompts themselves; checked at the start; the size is the model's own if left out",
    "sample_every_n_epochs": "without prompts it has no effect and says so",
    "sample_every_n_steps": "without prompts it has no effect and says so",
    "sample_at_first": "the first and the last pictures are also set side by side",
    "wandb_api_key": "never written to a file",
    "validation_split": "chosen by file name, so that new pictures move few others; never a regularization picture",
    "validation_seed": "left out, training and validation do not overlap either",
    "console_log_file": "errors that end a command are on the console all the same",
}
