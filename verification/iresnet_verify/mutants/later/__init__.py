"""Mutants that were written after the diagnosis had learnt from those of `afterwards`, and before it was run on any of these."""
