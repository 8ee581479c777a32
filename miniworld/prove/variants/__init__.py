"""Proofs of ways of training: averaged weights, rank by timestep, rectified flow."""
