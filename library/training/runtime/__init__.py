"""What a run is computed with: precision, processes, memory saving, seeds."""
