"""From settings to a run: the parts of a training built, checked and put together."""
