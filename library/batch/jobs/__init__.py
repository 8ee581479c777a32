"""The jobs of a batch: read from the jobs file, expanded, and their state on disk."""
