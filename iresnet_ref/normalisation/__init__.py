"""Spectral normalisation: weights divided by a proved bound, and the gradient of that division."""
