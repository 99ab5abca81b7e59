"""Lipschitz claims: of the branch, of its layers, after updates."""
