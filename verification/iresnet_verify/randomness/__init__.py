"""The random draws of a subject: watched, replaced, and enumerated."""
