"""The random draws of a subject: recorded, replaced, and enumerated."""
