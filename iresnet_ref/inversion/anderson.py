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

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from iresnet_ref.arrays import Array, namespace, stack_norm
from iresnet_ref.rounding import smallest_normal

WINDOW = 10
FULL = 16
"""Up to this many dimensions the window holds a pair for each."""
DEPENDENT = 0.1
"""A pair whose orthogonal part is below this share restarts its row: the old pairs were taken where J was another."""


@dataclass(frozen=True)
class Secants:
    """At most `window` pairs per row, (p | w) side by side as (batch, k, 2n), the oldest first.

    `weight` (batch, k) is 1 for a pair in use and 0 for one that a restart of the row has discarded; both are None at
    first. Memory: 2·window batches.
    """

    window: int
    pairs: Any = None
    weight: Any = None

    @staticmethod
    def of(n: int, memory: int | None = None) -> Secants:
        """Return the empty memory for events of n entries, of `memory` pairs at most n."""
        return Secants(min(n, memory) if memory is not None else n if n <= FULL else WINDOW)

    @property
    def empty(self) -> bool:
        """Whether there is no pair yet."""
        return self.pairs is None

    @property
    def images(self) -> Array:
        """The w, (batch, k, n)."""
        return self.pairs[:, :, self.pairs.shape[2] // 2 :]

    @property
    def steps(self) -> Array:
        """The p, (batch, k, n)."""
        return self.pairs[:, :, : self.pairs.shape[2] // 2]

    def project(self, r: Array) -> tuple[Array, Array]:
        """Return (Σ γ_j p_j, r − Σ γ_j w_j), γ_j = w_jᵀ r, for r of shape (batch, n)."""
        xp, n = namespace(r), r.shape[1]
        if self.empty:
            return xp.zeros_like(r), r
        gamma = xp.matmul(self.images, r[:, :, None])[:, :, 0] * self.weight
        both = xp.matmul(gamma[:, None, :], self.pairs)[:, 0, :]
        return both[:, :n], r - both[:, n:]

    def add(self, p: Array, w: Array, *, restart: Array | None = None, dependent: float = DEPENDENT) -> Secants:
        """Return the pairs with (p, w), of shape (batch, n), orthonormalised and added.

        A row where `restart` is true, or whose new image depends on the old ones, keeps only the new pair.
        """
        xp = namespace(w)
        before, smallest = stack_norm(w), smallest_normal(w)  # below it nothing is left to divide by
        usable = xp.isfinite(before) & (before >= smallest)
        pair = xp.concat([p, w], axis=1)
        pair = xp.where(usable[:, None], pair, xp.zeros_like(pair))
        if self.empty:
            scaled = pair * _inverse(before, usable)[:, None]
            return Secants(self.window, scaled[:, None, :], xp.astype(usable[:, None], w.dtype))
        old = self if self.pairs.shape[1] < self.window else self._without_oldest()
        explained, rest = old.project(pair[:, w.shape[1] :])
        after = stack_norm(rest)
        independent = (after > dependent * before) & (after >= smallest) & xp.isfinite(after)
        independent = independent if restart is None else independent & xp.logical_not(restart)
        pair = xp.where(independent[:, None], xp.concat([pair[:, : w.shape[1]] - explained, rest], axis=1), pair)
        scaled = pair * _inverse(xp.where(independent, after, before), usable)[:, None]
        kept = old.weight * xp.astype(independent | ~usable, w.dtype)[:, None]
        return Secants(
            self.window, xp.concat([old.pairs, scaled[:, None, :]], axis=1), xp.concat([kept, xp.astype(usable, w.dtype)[:, None]], axis=1)
        )

    def _without_oldest(self) -> Secants:
        return Secants(self.window, self.pairs[:, 1:, :], self.weight[:, 1:])

    def map(self, function: Callable[[Array], Array]) -> Secants:
        """Return the pairs with each array replaced by function(array), for dropping rows."""
        return self if self.empty else Secants(self.window, function(self.pairs), function(self.weight))


def _inverse(size: Array, usable: Array) -> Array:
    """Return 1/size where usable, else 0."""
    xp = namespace(size)
    return xp.astype(usable, size.dtype) / xp.where(usable, size, xp.ones_like(size))
