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
        if twice := sorted(found.keys() & mine.keys()):
            raise ValueError(f"mutants: expected each id once, got {twice} twice; try another id in {group}")
        found |= mine
    return found
