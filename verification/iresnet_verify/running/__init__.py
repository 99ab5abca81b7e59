"""The engine: which checks run, in which modes, and one check from start to end in this process.

Of the catalogue it imports the face alone (`catalogue.load()` in `plan`), never the module of a check: all it knows of a check is
the record `check.registry.Check`. So a check can be added, split or removed without a change here; the test of the rooms checks it.
"""
