"""Restoring pictures: faces aligned, sampled by eq. 8, colours brought back."""
