"""Pictures from a model: samplers, prompt files, previews during training."""
