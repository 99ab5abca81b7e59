"""Mutants of 30 November 2026, written after the hypotheses were frozen: from issue trackers, and slips drawn at random."""
