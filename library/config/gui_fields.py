"""The fields of the kohya_ss GUI: what they show in a GUI just opened, and what of them a network module is given.

Facts of the GUI as it was in July 2026; `tests/golden/gui_presets.json.gz` holds what it writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CALLED_OTHERWISE = {
    "max_resolution": "resolution",
    "optimizer": "optimizer_type",
    "lora_network_weights": "network_weights",
}
SHOWN: Mapping[str, Any] = {
    **{"learning_rate": 1e-4, "unet_lr": 1e-4, "text_encoder_lr": 1e-4, "lr_scheduler": "cosine", "lr_warmup": 10},
    **{"network_dim": 8, "network_alpha": 1, "mixed_precision": "fp16", "save_precision": "fp16", "xformers": True},
    **{"max_resolution": "512,512", "enable_bucket": True, "bucket_no_upscale": True, "max_bucket_reso": 2048},
    **{"cache_latents": True, "caption_extension": ".txt", "save_every_n_epochs": 1, "max_data_loader_n_workers": 0},
    **{"noise_offset_type": "Original", "multires_noise_discount": 0.3, "epoch": 1, "train_batch_size": 1},
    **{"sample_sampler": "euler_a", "gradient_accumulation_steps": 1, "max_timestep": 1000, "clip_skip": 1},
    **{"dynamo_backend": "no", "output_name": "last"},
}
"""What a field shows where a preset leaves it out, if that is not what sd-scripts would take.

`max_train_steps` is no part of it: a GUI that had no such field trained the epochs, and its presets mean them.
"""
TEXT_IS_ZERO = (
    *("adaptive_noise_scale", "caption_dropout_every_n_epochs", "clip_skip", "epoch", "gradient_accumulation_steps"),
    *("keep_tokens", "learning_rate", "lr_warmup", "max_data_loader_n_workers", "max_train_epochs", "max_train_steps"),
    *("noise_offset", "save_every_n_epochs", "seed", "text_encoder_lr", "unet_lr"),
)
"""Numbers that the GUI takes for 0 where a text in them is none; the three below have another value then."""
TEXT_IS = {"lr_scheduler_num_cycles": 1, "lr_scheduler_power": 1, "max_token_length": 75}

ONLY_WITH_SDXL = {
    "sdxl_no_half_vae": "no_half_vae",
    "sdxl_cache_text_encoder_outputs": "cache_text_encoder_outputs",
}
NOISE = {
    "Original": ("noise_offset", "adaptive_noise_scale", "noise_offset_random_strength"),
    "Multires": ("multires_noise_iterations", "multires_noise_discount"),
}
"""What is passed on for each `noise_offset_type`; the fields of the other one are not."""

OTHER_MODELS = {
    **{"flux1_checkbox": "Flux", "sd3_checkbox": "Stable Diffusion 3", "anima_checkbox": "Anima"},
    **{"hunyuan_image_checkbox": "HunyuanImage", "lumina_checkbox": "Lumina Image"},
}
OTHER_TYPES = {
    **{"Flux1": "Flux", "Flux1 OFT": "Flux", "Anima": "Anima", "Lumina": "Lumina Image"},
    "HunyuanImage-2.1": "HunyuanImage",
}
OTHER_TABS = {
    **{"train_text_encoder": "Finetuning", "dataset_repeats": "Finetuning"},
    **{
        "learning_rate_te": "Dreambooth",
        "learning_rate_te1": "Dreambooth",
        "num_vectors_per_token": "Textual Inversion",
    },
}
"""Fields that only another tab of the GUI has."""

BLOCKS = (
    *("down_lr_weight", "mid_lr_weight", "up_lr_weight", "block_lr_zero_threshold", "block_dims", "block_alphas"),
    *("conv_block_dims", "conv_block_alphas", "rank_dropout", "module_dropout"),
)
LORA_PLUS = ("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio")
CONVOLUTION = ("conv_dim", "conv_alpha")
DROPOUT = ("rank_dropout", "module_dropout")
LOCON = (
    *(*CONVOLUTION, "use_tucker", "rank_dropout", "bypass_mode", "dora_wd", "module_dropout", "use_scalar"),
    *("rank_dropout_scale", "train_norm"),
)
LOKR = (
    *(*CONVOLUTION, "use_tucker", "rank_dropout", "bypass_mode", "dora_wd", "module_dropout", "factor", "use_cp"),
    *("use_scalar", "decompose_both", "rank_dropout_scale", "train_norm"),
)
OFT = (*CONVOLUTION, "module_dropout", "use_tucker", "rank_dropout", "rank_dropout_scale", "train_norm")
LYCORIS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "LoCon": ("locon", LOCON),
    "LyCORIS/LoCon": ("locon", LOCON),
    "LyCORIS/LoHa": ("loha", LOCON),
    "LyCORIS/LoKr": ("lokr", LOKR),
    "LyCORIS/DyLoRA": ("dylora", (*CONVOLUTION, "use_tucker", "block_size", *DROPOUT, "train_norm")),
    "LyCORIS/iA3": ("ia3", (*CONVOLUTION, "train_on_input")),
    "LyCORIS/BOFT": ("boft", OFT),
    "LyCORIS/Diag-OFT": ("diag-oft", (*OFT, "constrain", "rescaled")),
    "LyCORIS/GLoRA": ("glora", (*CONVOLUTION, "use_tucker", *DROPOUT, "rank_dropout_scale", "train_norm")),
    "LyCORIS/Native Fine-Tuning": ("full", (*DROPOUT, "rank_dropout_scale", "train_norm")),
}
"""LoRA_type -> algo of `lycoris.kohya`, and what is always written, 0 and False too."""
KOHYA: Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "Standard": ("networks.lora", (), BLOCKS),
    "Kohya LoCon": ("networks.lora", CONVOLUTION, BLOCKS),
    "LoRA-FA": ("networks.lora_fa", (), BLOCKS),
    "Kohya DyLoRA": ("networks.dylora", (), (*CONVOLUTION, *BLOCKS, "unit")),
    "Kohya LoHa": ("networks.loha", (), (*CONVOLUTION, "use_tucker", *DROPOUT)),
    "Kohya LoKr": ("networks.lokr", (), (*CONVOLUTION, "use_tucker", "factor", *DROPOUT)),
}
"""LoRA_type -> network module, what is always written, and what is written where it is not 0, False or empty."""
ARGUMENT_SHOWN: Mapping[str, Any] = {
    **{"conv_dim": 1, "conv_alpha": 1, "factor": -1, "unit": 1, "constrain": 0, "LyCORIS_preset": "full"},
    **{"train_on_input": True, "use_tucker": False, "bypass_mode": False, "dora_wd": False, "use_scalar": False},
    **{"rank_dropout_scale": False, "train_norm": False, "use_cp": False, "decompose_both": False, "rescaled": False},
    **{"rank_dropout": 0, "module_dropout": 0},
}
"""What a field of an argument shows where a preset leaves it out."""

LAUNCHER = {
    **{"num_processes": 1, "num_machines": 1, "multi_gpu": False, "gpu_ids": "", "main_process_port": 0},
    **{"extra_accelerate_launch_args": "", "dynamo_mode": "default", "dynamo_use_fullgraph": False},
    "dynamo_use_dynamic": False,
}
"""Fields that the GUI hands to `accelerate launch`, and where they ask for nothing."""
LOST: Mapping[str, Any] = {**LAUNCHER, "train_inpainting": False}
"""Fields that would change the training, and cannot be taken over."""

ELSEWHERE = (
    *("LoRA_type", "LyCORIS_preset", "additional_parameters", "lr_warmup", "lr_warmup_steps", "use_8bit_adam"),
    *("noise_offset_type", "xformers", "text_encoder_lr", "unet_lr", "max_train_epochs", "max_train_steps"),
    *("epoch", "optimizer_args", "lr_scheduler_args", "use_wandb", "conv_dim", "conv_alpha", "factor", "unit"),
    *("constrain", "train_on_input", "use_tucker", "bypass_mode", "dora_wd", "use_scalar", "rank_dropout_scale"),
    *("train_norm", "use_cp", "decompose_both", "rescaled", *BLOCKS, *LORA_PLUS, *LOST, *OTHER_MODELS),
    *(*ONLY_WITH_SDXL, *NOISE["Original"], *NOISE["Multires"], "max_data_loader_n_workers", "wandb_run_name"),
    "sample_sampler",
)
"""Fields that become something else than the option of their name."""
PASSED_OVER = (
    *("model_list", "stop_text_encoder_training", "stop_text_encoder_training_pct", "num_cpu_threads_per_process"),
    *("lowvram", "no_token_padding", "save_as_bool", "conv_dims", "conv_alphas", "training_preset", "file_path"),
    *("color_mode", "full_matrix", "t5xxl_lr", "train_lora_ggpo", "ggpo_sigma", "ggpo_beta", "model_type", "ae"),
    *("clip_l", "t5xxl", "discrete_flow_shift", "model_prediction_type", "timestep_sampling", "split_mode"),
    *("train_blocks", "t5xxl_max_token_length", "enable_all_linear", "guidance_scale", "mem_eff_save", "split_qkv"),
    *("apply_t5_attn_mask", "train_t5xxl", "cpu_offload_checkpointing", "blocks_to_swap", "single_blocks_to_swap"),
    *("double_blocks_to_swap", "show_timesteps", "show_timesteps_resolution", "img_attn_dim", "img_mlp_dim"),
    *("img_mod_dim", "single_dim", "txt_attn_dim", "txt_mlp_dim", "txt_mod_dim", "single_mod_dim", "in_dims"),
    *("train_double_block_indices", "train_single_block_indices", "clip_g", "clip_g_dropout_rate", "logit_mean"),
    *("logit_std", "mode_scale", "pos_emb_random_crop_rate", "save_clip", "save_t5xxl", "t5xxl_device"),
    *("t5xxl_dtype", "weighting_scheme", "fp8_base_unet", "create_caption", "create_buckets", "folder_color"),
)
"""Fields of which the GUI makes nothing for Stable Diffusion 1, 2 and XL, with those of earlier versions."""
PASSED_OVER_FROM = ("flux1_", "flux_", "sd3_", "hunyuan_", "anima_", "lumina_")


def is_passed_over(key: str) -> bool:
    return key in PASSED_OVER or key.startswith(PASSED_OVER_FROM)
