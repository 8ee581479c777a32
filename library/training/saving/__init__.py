"""States and file names: what a run is resumed from and what its files are called."""
