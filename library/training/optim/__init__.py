"""Optimizers, their state on disk, and learning-rate schedulers."""
