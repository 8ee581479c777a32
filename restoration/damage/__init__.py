"""Degradations of eq. 9: kernels, noise, compression, and the ranges they are drawn from."""
