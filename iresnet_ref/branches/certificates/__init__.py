"""Proved Lipschitz constants of branches that are tighter than the product of norms."""
