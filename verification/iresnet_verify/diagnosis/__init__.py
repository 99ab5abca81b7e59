"""From failed checks to causes: hypotheses that predict the subject's wrong numbers, and what follows from what."""
