"""Mutants written from scratch while the hypotheses were being improved: from issue trackers, and slips drawn at random."""
