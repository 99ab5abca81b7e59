"""Numbers as Python source, bit for bit: the inputs of a reproduction.

Floats are written with the fewest digits that read back as the same number (of their own dtype). Arrays whose text
would be long are stored in an .npz file next to the script.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

MOST_CHARACTERS = 1500
"""Longest text of all inputs together; beyond it arrays are stored, the largest first."""


def inputs_source(inputs: Mapping[str, Any], path: Path) -> str | None:
    """`INPUTS = …`, exact; None if an input is neither an array nor plain data. Large arrays go to an .npz file next to `path`."""
    literals = {name: literal(value) for name, value in inputs.items()}
    if None in literals.values():
        return None
    stored: dict[str, Any] = {}
    for name in sorted(literals, key=lambda n: len(literals[n] or ""), reverse=True):
        if sum(len(t or "") for n, t in literals.items() if n not in stored) > MOST_CHARACTERS:
            value = inputs[name]
            if isinstance(value, np.ndarray):
                stored[name] = value
    lines = [f"    {name!r}: {text}," for name, text in literals.items() if name not in stored]
    if stored:
        np.savez(path.with_suffix(".npz"), **stored)
        lines.append(f"    **np.load(HERE / {path.with_suffix('.npz').name!r}),")
    return "\n".join(["nan, inf = np.nan, np.inf", "INPUTS = {", *lines, "}"])


def literal(value: Any) -> str | None:
    """Python source that evaluates to exactly this value, or None."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (bool, int, float, str):
        return repr(value)
    if isinstance(value, list | tuple):
        parts = [literal(v) for v in value]
        if None in parts:
            return None
        inner = ", ".join(str(p) for p in parts)
        return f"[{inner}]" if isinstance(value, list) else f"({inner},)" if parts else "()"
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub" or value.dtype.itemsize > 8:
        return None
    if value.size == 0:
        return f"np.zeros({value.shape!r}, np.{value.dtype.name})"
    listed = np.array2string(value, separator=", ", threshold=value.size + 1, floatmode="unique", max_line_width=110)
    text = listed.replace("\n", "\n        ")
    return f"np.array({text}, np.{value.dtype.name})"
