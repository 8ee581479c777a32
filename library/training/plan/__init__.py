"""What `--plan` prints: steps, parameters, files and memory, counted without loading a model."""
