"""Solve x + g(x) = y: the fixed-point iteration of [B19] Algorithm 1, its accelerations, and what the answer's error is at most."""
