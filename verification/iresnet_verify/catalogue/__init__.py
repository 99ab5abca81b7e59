"""The catalogue of checks: one module a family, registered on import."""

from __future__ import annotations

import importlib
import pkgutil

from iresnet_verify.check import CATALOGUE, FAMILIES, Check


def load() -> dict[str, Check]:
    """Import every module of the catalogue and return it, in the order of the families, then of the ids."""
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
        importlib.import_module(f"{__name__}.{module}")
    return {c.id: c for c in sorted(CATALOGUE.values(), key=lambda c: (FAMILIES.index(c.family), c.id))}
