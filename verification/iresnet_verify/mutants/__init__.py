"""Mutants: networks with one deliberate mistake each, which the audit must find. The examination of the suite itself."""

from __future__ import annotations

import importlib

from iresnet_verify.mutants.mutant import Mutant

GROUPS = (
    "inverses", "bounds", "convolutions", "log_dets", "estimates", "derivatives", "densities", "hygiene", "state", "reference", "layers",
    "extremes", "lifetime",
)


def load() -> dict[str, Mutant]:
    """Return {id: mutant} of all groups. Needs torch."""
    found: dict[str, Mutant] = {}
    for group in GROUPS:
        mine: dict[str, Mutant] = importlib.import_module(f"{__name__}.{group}").MUTANTS
        assert not found.keys() & mine.keys(), f"mutants named twice: {found.keys() & mine.keys()}"
        found |= mine
    return found
