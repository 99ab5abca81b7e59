"""Print the names and signatures of the CuPy that is installed, the contract of the stand-in in cupy_contract/.

Needs no GPU. Refresh with  python verification/tests/support/cupy_manifest.py > verification/tests/support/cupy_contract/cupy/manifest.json
"""

from __future__ import annotations

import inspect
import json
from typing import Any

import cupy


def signature(function: Any) -> list[list[Any]] | None:
    """[name, kind, has a default] of each parameter; None where the signature cannot be read (ufuncs, built-ins)."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    return [[p.name, int(p.kind), p.default is not p.empty] for p in parameters]


def kind(thing: Any) -> str:
    if type(thing).__name__ == "ufunc":
        return "ufunc"
    if inspect.ismodule(thing):
        return "module"
    if inspect.isclass(thing):
        return "class"
    return "function" if callable(thing) else "value"


def section(module: Any) -> dict[str, Any]:
    names = getattr(module, "__all__", None) or [n for n in dir(module) if not n.startswith("_")]
    found = {n: getattr(module, n) for n in sorted(names) if hasattr(module, n)}
    return {n: [kind(thing), signature(thing)] for n, thing in found.items() if kind(thing) != "module"}


def manifest() -> dict[str, Any]:
    sections = {"cupy": cupy, "linalg": cupy.linalg, "fft": cupy.fft}
    return {
        "version": cupy.__version__,
        "ndarray": sorted(dir(cupy.ndarray)),
        **{name: section(module) for name, module in sections.items()},
    }


if __name__ == "__main__":
    print(json.dumps(manifest(), sort_keys=True, separators=(",", ":")).replace("],", "],\n"))
