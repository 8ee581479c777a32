"""Loading Stable Diffusion 1, 2 and XL, and turning captions into what their U-Nets are conditioned on."""
