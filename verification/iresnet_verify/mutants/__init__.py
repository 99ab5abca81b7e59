"""Mutants: networks with one deliberate mistake each, on which a check meant for the mistake must fail: the test of the suite itself."""

from __future__ import annotations

import importlib
import pkgutil

from iresnet_verify.check.registry import FAMILIES
from iresnet_verify.mutants.mutant import Mutant


def load() -> dict[str, Mutant]:
    """Return {id: mutant} of every module here that has a table MUTANTS, in the order of the families. Needs torch."""
    found: dict[str, Mutant] = {}
    for module in pkgutil.walk_packages(__path__, f"{__name__}."):
        mine: dict[str, Mutant] = getattr(importlib.import_module(module.name), "MUTANTS", {})
        if twice := found.keys() & mine.keys():
            raise ValueError(f"expected each mutant once, got twice: {', '.join(sorted(twice))}; rename one")
        found |= mine
    rank = {family: i for i, family in enumerate(FAMILIES)}
    return dict(sorted(found.items(), key=lambda item: rank.get(item[0].split("/")[0], len(rank))))


def load_pairs() -> dict[str, Mutant]:
    """Return {id: mutant} of two mistakes together. They are no part of `load`: each mistake is there by itself."""
    return dict(importlib.import_module(f"{__name__}.causes.pairs").PAIRS)
