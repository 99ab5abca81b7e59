"""Whether a branch computes what a module computes, on probes of several sizes and within the rounding of both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import iresnet_ref as ir
from iresnet_backends.errors import ModuleError
from iresnet_ref.arrays import from_host, to_host

SIZES = (0.0, 2.0**-10, 0.25, 1.0, 4.0, 32.0)
"""Standard deviations of the probes."""
ROWS = 7


def require_agreement(branch: ir.Branch, compute: Callable[[Any], Any], who: str, rows: int = ROWS) -> None:
    """Refuse a branch that is off by more than the rounding of both sides, 2s with s its own running error per row.

    Both are computed in the dtype of the branch, and s bounds the rounding of any order of the same sums. Raises: ModuleError with
    both numbers, and where nothing would be compared: where s is infinite (too few bits for these widths), or above all that the branch can
    make of the largest probes (x + 1e12 − 1e12 in float32).
    """
    rng = np.random.default_rng(0)
    probes = [(size, from_host(size * rng.standard_normal((rows, *branch.event_shape)), branch.like)) for size in SIZES]
    alone = SIZES.index(1.0)
    for size, x in (*probes, (1.0, probes[alone][1][:1])):  # one event alone too: code may branch on the number of rows
        rows = x.shape[0]
        ours, rounding, *_ = branch.running_error(x)
        ours, theirs = (np.asarray(to_host(a), dtype=np.float64) for a in (ours, compute(x)))
        allowed = 2.0 * np.asarray(to_host(rounding), dtype=np.float64)
        if theirs.shape != ours.shape:
            raise ModuleError(
                f"{who}: expected values of shape {ours.shape} from the module, got {theirs.shape}: its rows are not independent"
            )
        if not np.isfinite(allowed).all():
            raise ModuleError(
                f"{who}: expected weights whose rounding can be bounded, got {branch.like.dtype} in which it cannot, so that nothing "
                "could be compared; try the module in float32 or float64"
            )
        if size == SIZES[-1]:
            blind = float((allowed / np.linalg.norm(np.asarray(to_host(x), dtype=np.float64).reshape(rows, -1), axis=1)).max())
            if blind >= 1.0 and not blind < branch.product.bound:  # the norms only where they are needed
                raise ModuleError(
                    f"{who}: expected a comparison that sees the input, got constants so large that its rounding is {blind:.1e} times as "
                    f"large as the input, and Lip(g) is at most {branch.product.bound:.3g}; try float64"
                )
        off = np.linalg.norm((ours - theirs).reshape(rows, -1), axis=1)
        if not (off <= allowed).all():
            row = int(np.argmax(np.where(np.isnan(off), np.inf, off - allowed)))
            place = int(np.nanargmax(np.abs(ours - theirs)[row])) if not np.isnan(off[row]) else 0
            raise ModuleError(
                f"{who}: expected the branch to compute what the module computes to {allowed[row]:.2g}, got "
                f"{theirs[row].flat[place]:.17g} from the module and {ours[row].flat[place]:.17g} from the branch at a probe of size "
                f"{size}; something in its forward was not read: split it, and take the parts apart"
            )
