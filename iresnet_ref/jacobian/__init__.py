"""The Jacobian of a branch as a chain of factors, and its products."""
