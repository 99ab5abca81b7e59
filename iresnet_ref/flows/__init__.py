"""Normalising flows: bijections in sequence, and the densities at their end."""
