"""Mistakes of state: what is saved, copied, kept from one call to the next."""
