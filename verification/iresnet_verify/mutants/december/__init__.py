"""Mutants written on 1 December 2026 by somebody who had not read the diagnosis: from issue trackers, and slips drawn at random."""
