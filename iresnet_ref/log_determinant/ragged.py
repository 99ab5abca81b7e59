"""Sums over the powers (Jᵀ)ᵏv with a length of its own for every sample: what series, roulette and the Neumann gradient have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from iresnet_ref.arrays import Array, HostArray, expand_rows, indices, namespace
from iresnet_ref.jacobian.chain import Chain
from iresnet_ref.layers.tape import added


class Sum(NamedTuple):
    """Σ_{1≤k≤N} term((Jᵀ)ᵏv, v)/divisor(k); terms of divisor ∞ are left out."""

    term: Callable[[Array, Array], Array]
    divisor: Callable[[int], float]

    def zero(self, v: Array) -> Array:
        """Return the sum of no terms."""
        return namespace(v).zeros_like(self.term(v, v))

    def at(self, k: int, w: Array, v: Array, has: Array | None = None) -> Array | None:
        """Return term k, w = (Jᵀ)ᵏv, of the samples that have one (None: all); None where it is left out."""
        divisor = self.divisor(k)
        if divisor == math.inf:
            return None
        term = self.term(w, v) / divisor
        return term if has is None else expand_rows(namespace(term).astype(has, term.dtype), term.ndim - 1) * term


def ragged_series(chain: Chain, v: Array, lengths: HostArray, *sums: Sum) -> list[Array]:
    """Return each sum, (count, batch, …), for v (count, batch, *event) and `lengths` N (count, batch): one sweep of products serves all.

    Samples are sorted by N on the host, so that finished ones drop out without a synchronisation; where all are equal none is moved.
    """
    if lengths.size and (lengths == lengths.flat[0]).all():
        return even_series(chain, v, int(lengths.flat[0]), sums)
    xp, (count, batch) = namespace(v), lengths.shape
    order = np.argsort(-lengths.reshape(-1), kind="stable")
    sorted_n = lengths.reshape(-1)[order]
    v = xp.take(xp.reshape(v, (count * batch, *v.shape[2:])), indices(order, v), axis=0)
    chain, n, w, active = chain.take(indices(order % batch, v)), indices(sorted_n, v), v, sorted_n.size
    totals: list[Array] = [each.zero(v) for each in sums]
    finished: list[list[Array]] = []
    for k in range(1, int(sorted_n.max(initial=0)) + 1):
        alive = int(np.searchsorted(-sorted_n, -k, side="right"))
        if alive <= 0.8 * active:
            finished.append([total[alive:, ...] for total in totals])
            active, keep = alive, slice(0, alive)
            chain, v, w, n = chain.take(keep), v[keep, ...], w[keep, ...], n[keep]
            totals = [total[keep, ...] for total in totals]
        w = chain.rmatvec(w)
        terms = [each.at(k, w, v, n >= k) for each in sums]
        totals = [total if term is None else total + term for total, term in zip(totals, terms, strict=True)]
    back = indices(np.argsort(order, kind="stable"), v)
    whole = [xp.concat(parts, axis=0) for parts in zip(totals, *reversed(finished), strict=True)]
    return [xp.reshape(xp.take(total, back, axis=0), (count, batch, *total.shape[1:])) for total in whole]


def even_series(chain: Chain, v: Array, length: int, sums: Sequence[Sum]) -> list[Array]:
    """Return each sum for one length of all samples; nothing is asked of the host."""
    if v.shape[0] == 1 and v.ndim == len(chain.in_shape) + 2:  # products of one probe need no axis for it
        return [total[None, ...] for total in even_series(chain, v[0, ...], length, sums)]
    totals: list[Array | None] = [None] * len(sums)
    w = v
    for k in range(1, length + 1):
        w = chain.rmatvec(w)
        totals = [added(total, each.at(k, w, v)) for each, total in zip(sums, totals, strict=True)]
    return [each.zero(v) if total is None else total for each, total in zip(sums, totals, strict=True)]
