"""What a run writes down: progress, JSON lines, trackers, timing, plots."""
