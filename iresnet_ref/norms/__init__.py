"""Proved bounds on operator norms, in float64 on the host."""
