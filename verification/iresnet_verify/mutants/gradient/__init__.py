"""Mistakes of derivatives."""
