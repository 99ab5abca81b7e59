"""The catalogue of checks: one folder a family, registered on import."""

from __future__ import annotations

import importlib
import pkgutil

from iresnet_verify.check.registry import CATALOGUE, FAMILIES, Check


def load() -> dict[str, Check]:
    """Import every module of the catalogue and return it, in the order of the families, then of the ids."""
    for module in sorted(m.name for m in pkgutil.walk_packages(__path__, f"{__name__}.")):
        importlib.import_module(module)
    return {c.id: c for c in sorted(CATALOGUE.values(), key=lambda c: (FAMILIES.index(c.family), c.id))}
