"""The examination of the diagnosis: what each mutant's mistake is called, two mistakes together, and what was shown for them."""
