"""Pretraining of the mini model from nothing, on drawings: `python -m miniworld.pretrain`."""
