"""What this machine can do at best: products of square matrices and copies, beside which the other groups are read."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from timing import Group, Times, in_turn

SIDE, MIB = 1024, 64


def groups() -> Iterator[Group]:
    """Yield the groups of this file."""
    flop, moved = (2.0 * SIDE**3, "flop"), (2.0 * MIB * 2**20, "B")
    for dtype in ("float32", "float64"):
        yield Group(f"limit: product {SIDE}×{SIDE}, {dtype}", "NumPy", partial(product, dtype), {"NumPy": flop, "torch": flop})
    yield Group(f"limit: copy of {MIB} MiB", "NumPy", copy, {"NumPy": moved, "torch": moved})


def product(dtype: str) -> Times:
    """Time A·B."""
    a, b = np.random.default_rng(0).standard_normal((2, SIDE, SIDE)).astype(dtype)
    ta, tb = torch.from_numpy(a), torch.from_numpy(b)
    return in_turn({"NumPy": lambda: a @ b, "torch": lambda: ta @ tb}, rounds=11)


def copy() -> Times:
    """Time a copy that no cache holds."""
    source = np.ones(MIB * 2**17)
    target, ts = np.empty_like(source), torch.from_numpy(source)
    tt = torch.empty_like(ts)
    return in_turn({"NumPy": lambda: np.copyto(target, source), "torch": lambda: tt.copy_(ts)}, rounds=11)
