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

from dataclasses import dataclass
from typing import Any

from iresnet_ref.arrays import namespace, stack_norm

WINDOW = 10
FULL = 16
"""Up to this many dimensions the window holds a pair for each."""
DEPENDENT = 0.1
"""A pair whose orthogonal part is below this share restarts its row: the old pairs describe another place of g."""


@dataclass(frozen=True)
class Secants:
    """At most `window` pairs per row: `steps` p and `images` w, both (batch, k, n), the oldest first.

    `weight` (batch, k) is 1 for a pair in use and 0 for one that a restart of the row has discarded. Memory: 2·window
    batches.
    """

    window: int
    steps: Any = None
    images: Any = None
    weight: Any = None

    @staticmethod
    def of(n: int) -> Secants:
        """Return the empty memory for events of n entries."""
        return Secants(n if n <= FULL else WINDOW)

    def project(self, r: Any) -> tuple[Any, Any]:
        """Return (Σ γ_j p_j, r − Σ γ_j w_j) for r of shape (batch, n)."""
        xp = namespace(r)
        if self.images is None:
            return xp.zeros_like(r), r
        return self._combine(r)

    def add(self, p: Any, w: Any, *, restart: Any = None, dependent: float = DEPENDENT) -> Secants:
        """Return the pairs with (p, w), of shape (batch, n), orthonormalised and added.

        A row where `restart` is true, or whose new image depends on the old ones, keeps only the new pair.
        """
        xp = namespace(w)
        before = stack_norm(w)
        usable = xp.isfinite(before) & (before > 0.0)
        p, w = (xp.where(usable[:, None], v, xp.zeros_like(v)) for v in (p, w))
        if self.images is None:
            scale = _inverse(before, usable)[:, None]
            ones = xp.astype(usable[:, None], w.dtype)
            return Secants(self.window, (p * scale)[:, None, :], (w * scale)[:, None, :], ones)
        old = self if self.images.shape[1] < self.window else self._without_oldest()
        explained, rest = old._combine(w)
        after = stack_norm(rest)
        fresh = (after > dependent * before) & xp.isfinite(after)
        fresh = fresh if restart is None else fresh & ~restart
        rest = xp.where(fresh[:, None], rest, w)
        step = xp.where(fresh[:, None], p - explained, p)
        scale = _inverse(xp.where(fresh, after, before), usable)[:, None]
        kept = old.weight * xp.astype(fresh | ~usable, w.dtype)[:, None]
        return Secants(
            self.window,
            xp.concat([old.steps, (step * scale)[:, None, :]], axis=1),
            xp.concat([old.images, (rest * scale)[:, None, :]], axis=1),
            xp.concat([kept, xp.astype(usable, w.dtype)[:, None]], axis=1),
        )

    def _without_oldest(self) -> Secants:
        return Secants(self.window, self.steps[:, 1:, :], self.images[:, 1:, :], self.weight[:, 1:])

    def map(self, function: Any) -> Secants:
        """Return the pairs with each array replaced by function(array), for dropping rows."""
        if self.images is None:
            return self
        return Secants(self.window, function(self.steps), function(self.images), function(self.weight))

    def _combine(self, v: Any) -> tuple[Any, Any]:
        """Return (Σ γ_j p_j, v − Σ γ_j w_j), γ_j = w_jᵀ v."""
        xp = namespace(v)
        gamma = xp.matmul(self.images, v[:, :, None])[:, :, 0] * self.weight
        row = gamma[:, None, :]
        return xp.matmul(row, self.steps)[:, 0, :], v - xp.matmul(row, self.images)[:, 0, :]


def _inverse(size: Any, usable: Any) -> Any:
    """Return 1/size where usable, else 0."""
    xp = namespace(size)
    return xp.astype(usable, size.dtype) / xp.where(usable, size, xp.ones_like(size))
