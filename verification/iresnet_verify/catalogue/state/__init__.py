"""Checkpoints, copies and devices."""
