"""The commands of `python -m embeddings`, which may use the engine; the plugins beside them may not."""
