"""Families of wrong log-dets with one unknown number c, found from one row and then tested on the others.

log|det(cI + J)|, log|det(I + cJ)|, the log-det at another point c·x, or of the network with a parameter multiplied by c: each is the
right one at c = 1. The row that is most wrong gives c by bisection with secants (Dowell and Jarratt 1971, the Illinois rule).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from iresnet_verify.diagnosis.hypothesis import Array, Cause

Rows = np.ndarray[Any, np.dtype[np.int_]]
GRID = tuple(c for c in np.linspace(-3.0, 3.0, 25).tolist() if c != 1.0)
"""Between neighbours of these c a change of sign is looked for; no family is asked at c = 1, where it is right."""
SAME = 1e-7
"""|c − 1| below which the number is no mistake: the slack of a fit, not of a formula."""
STEPS = 60

IDENTITY = Cause("identity-scaled", "{what} is log|det({detail}·I + J)|.", "Take the determinant of I + J.")
JACOBIAN = Cause("jacobian-scaled", "{what} is log|det(I + {detail}·J)|: it is that of a branch with another factor.",
                 "Use the branch as it is in F, each coefficient once.")


@dataclass(frozen=True)
class Family:
    """Log-dets that depend on one number."""

    cause: Cause
    at: Callable[[float, Rows], Array]
    """(c, indices of rows) -> the log-dets of those rows."""
    words: str = "{c}"
    """What is said of c."""

    def fitted(self, got: Array, right: Array) -> Iterator[tuple[str, Array]]:
        """(words, the log-dets of all rows) for every c found."""
        pivot = np.array([int(np.argmax(np.abs(got - right)))])

        def miss(c: float) -> float:
            return float(self.at(c, pivot)[0] - got[pivot[0]])

        values = [(c, miss(c)) for c in GRID]
        for (a, fa), (b, fb) in itertools.pairwise(values):
            if math.isfinite(fa) and math.isfinite(fb) and (fa <= 0.0) != (fb <= 0.0):
                c = _root(miss, a, fa, b, fb)
                if abs(c - 1.0) > SAME:
                    yield self.words.replace("{c}", f"{c:.6g}"), self.at(c, np.arange(len(got)))


def _root(f: Callable[[float], float], a: float, fa: float, b: float, fb: float) -> float:
    """A zero of f between a and b, where fa and fb differ in sign, by the Illinois rule."""
    for _ in range(STEPS):
        c = b - fb * (b - a) / (fb - fa) if fb != fa else (a + b) / 2.0
        fc = f(c)
        if fc == 0.0 or not math.isfinite(fc) or abs(b - a) <= 4e-16 * (1.0 + abs(c)):
            return c
        a, fa = (b, fb) if (fc <= 0.0) != (fb <= 0.0) else (a, fa / 2.0)
        b, fb = c, fc
    return b


def of_matrix(A: Array) -> tuple[Family, ...]:
    """Those that J alone gives, A (rows, d, d)."""
    eye = np.eye(A.shape[1])

    def log_det(M: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(np.linalg.slogdet(M)[1])

    return (Family(IDENTITY, lambda c, rows: log_det(c * eye + A[rows])),
            Family(JACOBIAN, lambda c, rows: log_det(eye + c * A[rows])))
