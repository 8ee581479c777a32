"""Gradient checkpointing: activations are computed again in the backward pass instead of being kept."""

from __future__ import annotations

from library.models.family import StableDiffusion


def checkpoint_gradients(model: StableDiffusion, train_text_encoder: bool) -> None:
    """Recompute activations in the backward pass instead of keeping them."""
    model.unet.enable_gradient_checkpointing()
    if train_text_encoder:
        for text_encoder in model.text_encoders:
            name = "activation_checkpointing_enable"  # transformers' new name for it; 5.17 has the old one only
            enable = getattr(text_encoder, name, text_encoder.gradient_checkpointing_enable)
            enable({"use_reentrant": False})
