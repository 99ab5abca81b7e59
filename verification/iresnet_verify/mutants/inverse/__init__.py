"""Mistakes of the map and of its inverse."""
