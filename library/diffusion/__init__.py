"""Noise schedules, targets and loss weights as pure functions."""
