"""Confidence sequences and quadrature; NumPy only."""
