"""Branches of which a careless reader would prove too much."""
