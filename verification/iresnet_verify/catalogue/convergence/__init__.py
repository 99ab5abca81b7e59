"""Convergence of the inverse, and what it reports of it."""
