"""Dual-Pivot Tuning: faces restored as one particular person.

A diffusion restorer is tuned to some ten pictures of that person. The method is Chari et al., "Personalized Restoration
via Dual-Pivot Tuning" (2023). Letters as in the paper: G is the U-Net, E the image restoration ControlNet, B = {G, E}
the system; gamma and w belong to its equation 8.
"""
