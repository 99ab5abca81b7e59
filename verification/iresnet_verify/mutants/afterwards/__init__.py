"""Mutants that were written after the hypotheses of the diagnosis, to see what it says of mistakes it was not written for."""
