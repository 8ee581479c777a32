"""How each option is changed alone, and where the change must show.

A path is a name of `world.make_world`, written as {name}. `beside` is what both runs have, the one with the option and
the one without it. Channels are the fields of `Observation`; `parts` is only for what must not change a result.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    value: Any
    shows: tuple[str, ...] = ("weights",)
    beside: dict[str, Any] = field(default_factory=dict)
    code: int = 0  # the exit code of the run with the option
    asks_for: dict[str, Any] = field(default_factory=dict)  # what the option cannot be set without


def shows(value: Any, *channels: str, code: int = 0, **beside: Any) -> Case:
    return Case(value, channels or ("weights",), beside, code)


Beside = dict[str, Any]


def scheduled(lr_scheduler: str) -> Beside:
    return {"lr_scheduler": lr_scheduler, "max_train_steps": 4}


EPOCHS: Beside = {"max_train_epochs": 3, "train_batch_size": 4}  # of one step each
STEPS: Beside = {"max_train_steps": 4, "save_every_n_steps": 1}
WORD: Beside = {"token_string": "zwx", "init_word": "person"}
WANDB: Beside = {"log_with": "wandb", "logging_dir": "logs"}
TENSORBOARD: Beside = {"logging_dir": "logs"}
HELD_OUT: Beside = {"validation_split": 0.5}
OFTEN: Beside = {**HELD_OUT, "validate_every_n_steps": 1, "max_train_steps": 6}
CACHED: Beside = {"cache_latents": True}
BUCKETS: Beside = {"enable_bucket": True, "min_bucket_reso": 64, "resolution": 128}
UNET_ONLY: Beside = {"network_train_unet_only": True}

CONFIGURATION = {
    "config_file": shows("{config.toml}"),
    "output_config": shows(True, "files", "said", config_file="new.toml"),
    "explain": shows(True, "files", "said"),
    "plan": shows(True, "files", "said"),
    "strict_config": shows(True, "code", "said", code=2, config_file="{odd.toml}"),
}
MODEL = {
    "pretrained_model_name_or_path": shows("{other_model}"),
    "v2": shows(True, "said"),
    "sdxl": shows(True, "said"),
    "v_parameterization": shows(True),
    "vae": shows("{other_vae}"),
    "vae_custom_scale": shows(0.5),
    "vae_custom_shift": shows(0.5),
    "vae_reflection_padding": shows(True),
    "no_half_vae": shows(True, mixed_precision="bf16"),
    "tokenizer_cache_dir": shows("{model}", "said"),
    "lowram": shows(True, "said"),
    "disable_mmap_load_safetensors": shows(True, "said"),
}
NETWORK = {
    "network_module": shows("halved_lora"),
    "network_dim": shows(3),
    "network_alpha": shows(2),
    "network_args": shows(["conv_dim=2"]),
    "network_weights": shows("{trained.safetensors}"),
    "dim_from_weights": shows(True, network_weights="{trained.safetensors}", network_dim=4),
    "network_dropout": shows(0.5),
    "network_train_unet_only": shows(True),
    "network_train_text_encoder_only": shows(True),
    "scale_weight_norms": shows(1e-3, "weights", "log"),
    "base_weights": shows("{trained.safetensors}"),
    "base_weights_multiplier": shows(0.1, base_weights="{trained.safetensors}"),
    "unet_lr": shows(1e-2, "weights", "log"),
    "text_encoder_lr": shows(1e-2, "weights", "log"),
    "training_comment": shows("mine", "metadata"),
}
EMBEDDING = {
    "token_string": Case("zwx", ("weights", "files"), asks_for={"init_word": "person"}),
    "num_vectors_per_token": shows(2, **WORD),
    "init_word": shows("house", **WORD),
    "weights": shows("{word.safetensors}", **WORD),
    "embedding_initializer": shows("embeddings.cross_init", **WORD),
    "initializer_args": shows(["scale=3.0"], embedding_initializer="embeddings.random", **WORD),
    "use_object_template": shows(True, **WORD),
    "use_style_template": shows(True, **WORD),
    "caption_template": shows(["a stone {}"], **WORD),
    "embedding_lr": shows(1e-2, **WORD),
    "reg_weight": shows(1e3, embedding_initializer="embeddings.cross_init", **WORD),
    "embedding_start_step": shows(1, **WORD),
    "embedding_stop_step": shows(1, **WORD),
    "network_start_step": shows(1, **WORD),
    "bundle_embeddings": shows(True, **WORD),
}
IMAGES = {
    "dataset_config": shows("{dataset.toml}"),
    "train_data_dir": shows("{other_pictures}"),
    "reg_data_dir": shows("{reg}"),
    "prior_loss_weight": shows(0.1, reg_data_dir="{reg}", train_batch_size=8),
    "in_json": shows("{captions.json}", train_data_dir="{pictures/1_sks}"),
    "dataset_repeats": shows(3, "weights", "log", in_json="{captions.json}", train_data_dir="{pictures/1_sks}"),
    "dataset_class": shows("mine.Images", "code", "said", code=2),
    "train_inpainting": shows(True, "code", "said", code=2),
    "resolution": shows(128),
    "train_batch_size": shows(4),
    "enable_bucket": shows(True, min_bucket_reso=64, resolution=128),
    "min_bucket_reso": shows(128, **BUCKETS),
    "max_bucket_reso": shows(128, **BUCKETS),
    "bucket_reso_steps": shows(32, **BUCKETS),
    "skip_image_resolution": shows("64"),
    "bucket_no_upscale": shows(True, **BUCKETS),
    "resize_interpolation": shows("nearest"),
    "cache_latents": shows(True, "parts"),
    "cache_latents_to_disk": shows(True, "parts", **CACHED),
    "vae_batch_size": shows(3, "parts", **CACHED),
    "cache_text_encoder_outputs_to_disk": shows(True, "files", **UNET_ONLY),
    "flip_aug": shows(True),
    "color_aug": shows(True),
    "random_crop": shows(True),
    "face_crop_aug_range": shows("2.0,4.0"),
    "alpha_mask": shows(True),
    "masked_loss": shows(True, "weights", dataset_config="{masked.toml}"),
    "debug_dataset": shows(True, "said", "weights"),
}
CAPTIONS = {
    "caption_extension": shows(".text"),
    "shuffle_caption": shows(True),
    "keep_tokens": shows(5, shuffle_caption=True),
    "keep_tokens_separator": shows("|||", shuffle_caption=True),
    "caption_separator": shows(" ", shuffle_caption=True),
    "secondary_separator": shows(";;;"),
    "enable_wildcard": shows(True),
    "caption_prefix": shows("a photo of"),
    "caption_suffix": shows("at night"),
    "caption_dropout_rate": shows(1.0),
    "caption_dropout_every_n_epochs": shows(1),
    "caption_tag_dropout_rate": shows(0.9),
    "token_warmup_min": shows(3, token_warmup_step=4),
    "token_warmup_step": shows(4),
    "max_token_length": shows(150),
    "weighted_captions": shows(True),
    "clip_skip": shows(2),
}
TRAINING = {
    "max_train_steps": shows(3, "weights", "log"),
    "max_train_epochs": shows(2, "weights", "log"),
    "seed": shows(8, "weights", "log"),
    "mixed_precision": shows("bf16"),
    "full_fp16": shows(True, mixed_precision="fp16"),
    "full_bf16": shows(True, mixed_precision="bf16"),
    "fp8_base": shows(True, "weights", "said", mixed_precision="bf16"),
    "fp8_base_unet": shows(True, "weights", "said", mixed_precision="bf16"),
    "gradient_checkpointing": shows(True, "parts"),
    "gradient_accumulation_steps": shows(2, "weights", "log"),
    "max_data_loader_n_workers": shows(1, "parts"),
    "xformers": shows(True, "said"),
    "mem_eff_attn": shows(True, "said"),
    "highvram": shows(True, "said"),
    "ddp_timeout": shows(5, "said"),
}
OPTIMIZER = {
    "optimizer_type": shows("SGDNesterov"),
    "optimizer_args": shows(["weight_decay=10.0"]),
    "use_8bit_adam": shows(True, "parts"),
    "use_lion_optimizer": shows(True),
    "learning_rate": shows(1e-2, "weights", "log"),
    "max_grad_norm": shows(1e-4, "weights", "log", optimizer_type="SGDNesterov"),
    "lr_scheduler": shows("linear", "weights", "log"),
    "lr_scheduler_type": shows("StepLR", "weights", "log", lr_scheduler_args=["step_size=1"]),
    "lr_scheduler_args": shows(["num_cycles=1.5"], "weights", "log", **scheduled("cosine")),
    "lr_warmup_steps": shows(2, "weights", "log", **scheduled("cosine")),
    "lr_decay_steps": shows(2, "weights", "log", **scheduled("warmup_stable_decay")),
    "lr_scheduler_num_cycles": shows(2, "log", **scheduled("cosine_with_restarts")),
    "lr_scheduler_power": shows(2, "log", **scheduled("polynomial")),
    "lr_scheduler_timescale": shows(1, "log", **scheduled("inverse_sqrt")),
    "lr_scheduler_min_lr_ratio": shows(0.5, "log", **scheduled("warmup_stable_decay"), lr_decay_steps=2),
}
AVERAGED: Beside = {"ema_decay": 0.5, "max_train_steps": 4}
AVERAGES = {
    "ema_decay": shows(0.5, "weights", "files", "metadata"),
    "ema_update_every": shows(2, **AVERAGED),
    "ema_device": shows("cpu", "said", **AVERAGED),
    "ema_validate": shows(True, "log", **AVERAGED, **HELD_OUT),
}
LOSS = {
    "loss_type": shows("l1", "weights", "log"),
    "huber_schedule": shows("constant", loss_type="huber"),
    "huber_c": shows(0.5, loss_type="huber"),
    "huber_scale": shows(3.0, loss_type="huber"),
    "min_snr_gamma": shows(0.1),
    "scale_v_pred_loss_like_noise_pred": shows(True, v_parameterization=True),
    "v_pred_like_loss": shows(0.5),
    "debiased_estimation_loss": shows(True),
    "noise_offset": shows(0.5),
    "noise_offset_random_strength": shows(True, noise_offset=0.5),
    "adaptive_noise_scale": shows(0.5, noise_offset=0.5),
    "multires_noise_iterations": shows(4),
    "multires_noise_discount": shows(0.9, multires_noise_iterations=4),
    "immiscible_noise": shows(4),
    "ip_noise_gamma": shows(0.5),
    "ip_noise_gamma_random_strength": shows(True, ip_noise_gamma=0.5),
    "zero_terminal_snr": shows(True),
    "min_timestep": shows(900),
    "max_timestep": shows(100),
}
RECTIFIED: Beside = {"flow_model": True}
FLOW = {
    "flow_model": shows(True, "weights", "log", "metadata", "said"),
    "flow_timestep_distribution": shows("uniform", **RECTIFIED),
    "flow_logit_mean": shows(-1.0, **RECTIFIED),
    "flow_logit_std": shows(0.5, **RECTIFIED),
    "flow_uniform_static_ratio": shows(2.5, **RECTIFIED),
    "flow_uniform_shift": shows(True, **RECTIFIED),
    "flow_uniform_base_pixels": shows(64, flow_uniform_shift=True, **RECTIFIED),
    "flow_use_ot": shows(True, train_batch_size=4, **RECTIFIED),
    "contrastive_flow_matching": shows(True, **RECTIFIED),
    "cfm_lambda": shows(0.5, contrastive_flow_matching=True, **RECTIFIED),
}
SAVING = {
    "output_dir": shows("elsewhere", "files"),
    "output_name": shows("mine", "files"),
    "save_model_as": shows("ckpt", "files"),
    "overwrite": shows(True, "code", output_dir="{finished}", max_train_steps=3),
    "save_precision": shows("bf16"),
    "save_every_n_epochs": shows(1, "files", **EPOCHS),
    "save_every_n_steps": shows(1, "files"),
    "save_n_epoch_ratio": shows(3, "files", **EPOCHS),
    "save_last_n_epochs": shows(1, "files", save_every_n_epochs=1, **EPOCHS),
    "save_last_n_epochs_state": shows(1, "files", save_every_n_epochs=1, save_state=True, **EPOCHS),
    "save_last_n_steps": shows(1, "files", **STEPS),
    "save_last_n_steps_state": shows(1, "files", save_state=True, **STEPS),
    "save_state": shows(True, "files", **STEPS),
    "save_state_on_train_end": shows(True, "files"),
    "resume": shows("{trained-state}", "log", max_train_steps=4),
    "resume_with_changes": shows(True, "log", resume="{trained-state}", max_train_steps=4, learning_rate=5e-4),
    "initial_epoch": shows(2, "log", **EPOCHS),
    "initial_step": shows(2, "log", max_train_steps=4),
    "skip_until_initial_step": shows(True, "log", initial_step=1),
    "no_metadata": shows(True, "metadata"),
}
SAMPLES = {
    "sample_prompts": shows("{prompts.txt}", "files", sample_every_n_steps=1),
    "sample_every_n_epochs": shows(1, "files", sample_prompts="{prompts.txt}"),
    "sample_every_n_steps": shows(1, "files", sample_prompts="{prompts.txt}"),
    "sample_at_first": shows(True, "files", sample_prompts="{prompts.txt}"),
    "sample_sampler": shows("euler_a", "files", sample_prompts="{prompts.txt}", sample_every_n_steps=2),
}
LOGGING = {
    "logging_dir": shows("logs", "files"),
    "log_with": shows("wandb", "files", **TENSORBOARD),
    "log_prefix": shows("mine", "files", **TENSORBOARD),
    "log_tracker_name": shows("mine", "files", **TENSORBOARD),
    "log_tracker_config": shows("{tracker.toml}", "files", **WANDB),
    "wandb_run_name": shows("mine", "files", **WANDB),
    "wandb_api_key": shows("key", "files", **WANDB),
    "log_config": shows(True, "files", **WANDB),
    "report": shows(True, "files", "said"),
    "console_log_level": shows("ERROR", "said"),
    "console_log_file": shows("run.log", "said", "files"),
}
METADATA = {
    f"metadata_{name}": shows("mine", "metadata")
    for name in ("title", "author", "description", "license", "tags", "usage_hint", "merged_from")
} | {
    "metadata_thumbnail": shows("{thumb.png}", "metadata"),
    "metadata_trigger_phrase": shows("mine", "metadata"),
    "metadata_preprocessor": shows("mine", "metadata"),
    "metadata_is_negative_embedding": shows("True", "metadata"),
}
VALIDATION = {
    "validation_split": shows(0.5, "weights", "log"),
    "validation_seed": shows(1, "weights", "log", **HELD_OUT),
    "validate_every_n_steps": shows(1, "log", train_batch_size=1, **HELD_OUT),
    "validate_every_n_epochs": shows(2, "log", **HELD_OUT),
    "max_validation_steps": shows(1, "log", train_batch_size=1, **HELD_OUT),
    "save_best": shows(True, "files", "log", **HELD_OUT),
    "early_stop": shows(True, "weights", "log", learning_rate=1, early_stop_patience=1, **OFTEN),
    "early_stop_patience": shows(1, "weights", "log", learning_rate=1, early_stop=True, **OFTEN),
}
CASES: dict[str, Case] = {
    **CONFIGURATION,
    **MODEL,
    **NETWORK,
    **EMBEDDING,
    **IMAGES,
    **CAPTIONS,
    **TRAINING,
    **OPTIMIZER,
    **AVERAGES,
    **LOSS,
    **FLOW,
    **SAVING,
    **SAMPLES,
    **LOGGING,
    **METADATA,
    **VALIDATION,
}
