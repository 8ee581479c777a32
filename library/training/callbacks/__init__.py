"""What happens when it is due: checkpoints, samples, validation, the report."""
