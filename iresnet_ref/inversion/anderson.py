"""Anderson acceleration from orthonormal secant pairs.

Between two evaluations the residual r = y − x − g(x) changes by −w, w ≈ (I + J)p for the step p. Pairs (p_j, w_j) are kept
with orthonormal w_j: a new pair is orthogonalised against the stored ones, the same combination being taken of the
steps. The trial is then read off without solving a system,

    z = x + Σ γ_j p_j + (r − Σ γ_j w_j),    γ_j = w_jᵀ r :

the part of r that the pairs explain is removed by their steps, the rest by a Banach step. On an affine g this is GCR
(Eisenstat, Elman, Schultz, SINUM 1983), which cannot break down as I + J has a positive definite symmetric part, and
whose truncation to a window costs nothing if J is symmetric; ‖r(z)‖ ≤ L‖r − Σγ_j w_j‖ ≤ L‖r‖. On a curved g it is a truncated
nonlinear GCR (He, Tang, Saad et al., arXiv 2306.00325), a form of Anderson's method (Walker, Ni, SINUM 2011) whose
window of pairs is orthogonal instead of raw: no normal equations, so that it works in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from iresnet_ref.arrays import Array, namespace, row_dot
from iresnet_ref.rounding import smallest_normal

WINDOW = 10
FULL = 16
"""Up to this many dimensions the window holds a pair for each."""
DEPENDENT = 0.1
"""A pair whose orthogonal part is below this share restarts its row: the old pairs were taken where J was another."""


@dataclass(frozen=True)
class Secants:
    """At most `window` pairs, each (p | w) side by side as (batch, 2n), the oldest first. Memory: 2·window batches.

    `weights`, (batch, 1) for each pair, are 1 for a pair in use and 0 for one that a restart of the row has discarded.
    """

    window: int
    pairs: tuple[Array, ...] = ()
    weights: tuple[Array, ...] = ()

    @staticmethod
    def of(n: int, memory: int | None = None) -> Secants:
        """Return the empty memory for events of n entries, of `memory` pairs at most n."""
        return Secants(min(n, memory) if memory is not None else n if n <= FULL else WINDOW)

    def project(self, r: Array) -> tuple[Array, Array]:
        """Return (Σ γ_j p_j, r − Σ γ_j w_j), γ_j = w_jᵀ r, for r of shape (batch, n)."""
        n = r.shape[1]
        if not self.pairs:
            return namespace(r).zeros_like(r), r
        parts = [row_dot(pair[:, n:], r)[:, None] * weight * pair for pair, weight in zip(self.pairs, self.weights, strict=True)]
        both = sum(parts[1:], parts[0])
        return both[:, :n], r - both[:, n:]

    def add(self, p: Array, w: Array, *, restart: Array | None = None, dependent: float = DEPENDENT) -> Secants:
        """Return the pairs with (p, w), of shape (batch, n), orthonormalised and added.

        A row where `restart` is true, or whose new image depends on the old ones, keeps only the new pair. A pair whose squares leave
        the range of the dtype is not remembered.
        """
        xp, n = namespace(w), w.shape[1]
        square, least = row_dot(w, w), 1024.0 * n * smallest_normal(w)  # what underflows of it is below its thousandth
        usable = (square >= least) & (square < math.inf)
        pair = xp.concat([p, w], axis=1)
        pair = xp.where(usable[:, None], pair, xp.zeros_like(pair))
        old = self if len(self.pairs) < self.window else Secants(self.window, self.pairs[1:], self.weights[1:])
        kept = old.weights
        if old.pairs:
            explained, rest = old.project(pair[:, n:])
            left = row_dot(rest, rest)
            independent = (left > dependent * dependent * square) & (left >= least)
            independent = independent if restart is None else independent & xp.logical_not(restart)
            pair = xp.where(independent[:, None], xp.concat([pair[:, :n] - explained, rest], axis=1), pair)
            square = xp.where(independent, left, square)
            stay = xp.astype(independent | ~usable, w.dtype)[:, None]
            kept = tuple(weight * stay for weight in kept)
        size = xp.sqrt(xp.where(usable, square, xp.ones_like(square)))
        return Secants(self.window, (*old.pairs, pair / size[:, None]), (*kept, xp.astype(usable, w.dtype)[:, None]))

    def map(self, function: Callable[[Array], Array]) -> Secants:
        """Return the pairs with each array replaced by function(array), for dropping rows."""
        return Secants(self.window, tuple(map(function, self.pairs)), tuple(map(function, self.weights)))
