"""A tiny Stable Diffusion and the drawn, captioned world on which it is pretrained."""
