"""Each option changed alone: a small world to run in, what a run shows, and how each option is changed."""
