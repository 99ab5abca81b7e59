"""Reliable use: batches, determinism, side effects, memory."""
