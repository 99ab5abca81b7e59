"""Behaviour: batches, determinism, side effects, memory."""
