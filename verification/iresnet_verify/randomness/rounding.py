"""The rounding of a mean over columns."""

from __future__ import annotations


def rounding_of(d: int, u: float, terms: int = 1) -> float:
    """Return 4(d + 64)·u·terms: the relative rounding of a sum of `terms` chained products through layers ≈ max(d, 64) wide.

    An inner product of n terms is accurate to γ_n ≈ nu in the worst case and to about √n·u in practice; the bound for
    64 stands for widths up to some thousands.
    """
    return 4.0 * (d + 64) * u * terms
