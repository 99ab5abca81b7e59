"""Norms decided exactly, in integer arithmetic, and weights on which a proof is tempted to lie."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import flint
import numpy as np

from iresnet_ref.arrays import HostArray


def exceeds_norm(c: float, w: HostArray) -> bool:
    """Return whether c > ‖W‖₂: all roots of det(xI − (c²I − WᵀW)), which are real, are positive iff its signs alternate."""
    w = np.asarray(w, dtype=np.float64)
    if w.shape[0] < w.shape[1]:
        w = w.T
    fractions = [[Fraction(float(v)) for v in row] for row in w]
    bits = max(f.denominator.bit_length() for row in [*fractions, [Fraction(c)]] for f in row)
    whole = flint.fmpz_mat([[int(f * 2**bits) for f in row] for row in fractions])
    square = flint.fmpz(int(Fraction(c) * 2**bits) ** 2)
    n = w.shape[1]
    shifted = flint.fmpz_mat(n, n, [square * (i == j) for i in range(n) for j in range(n)]) - whole.transpose() * whole
    coefficients = [int(k) for k in shifted.charpoly().coeffs()]
    return c > 0 and len(coefficients) == n + 1 and all(a * b < 0 for a, b in pairwise(coefficients))


def hadamard(n: int) -> HostArray:
    h = np.ones((1, 1))
    while h.shape[0] < n:
        h = np.block([[h, h], [h, -h]])
    return h


def lost_sum(m: int) -> HostArray:
    """Return a column of 1 and m − 1 numbers whose squares vanish one by one, and in blocks, beside 1: the sum is wrong by 1e2 u."""
    block = max(64, math.isqrt(m))
    column = np.full((m, 1), math.sqrt(0.9 * 2.0**-53 / block))
    column[0] = 1.0
    return column


KNOWN = {  # weight and exact norm
    "hadamard 4": (hadamard(4) / 8, 0.25),
    "hadamard 64": (hadamard(64) / 16, 0.5),
    "half a hadamard": (hadamard(64)[:, :16] / 8, 1.0),
    "wide hadamard": (hadamard(256)[:16] / 32, 0.5),
    "rank one, 3-4-5": (np.outer([3.0, 4.0], [5.0, 12.0]), 65.0),
    "rank one, wide": (np.outer([1.0, 2.0, 2.0], np.ones(16)), 12.0),
    "permutation": (np.eye(7)[[3, 1, 4, 0, 6, 5, 2]] * 0.9, 0.9),
    "diagonal with ties": (np.diag([0.7, 0.7, -0.7, 0.1]), 0.7),
    "next to a tie": (np.diag([0.7, math.nextafter(0.7, 0.0), math.nextafter(0.7, 1.0)]), math.nextafter(0.7, 1.0)),
    "graded": (np.diag(10.0 ** -np.arange(0.0, 320.0, 40.0)), 1.0),
    "scalar": (np.asarray([[1.0 / 3.0]]), 1.0 / 3.0),
    "subnormal": (np.diag([5e-324, 0.0]), 5e-324),
    "smallest normal": (np.eye(3) * 2.0**-1022, 2.0**-1022),
    "tiny hadamard": (np.ldexp(hadamard(16), -1060), math.ldexp(4.0, -1060)),
    "huge": (np.diag([1.7e308, 1.0]), 1.7e308),
    "huge hadamard": (np.ldexp(hadamard(16), 1020), math.ldexp(4.0, 1020)),
}
