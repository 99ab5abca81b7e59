"""Densities: log_prob, samples, and that they integrate to one."""
