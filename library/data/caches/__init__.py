"""Caches of latents and text encoder outputs."""
