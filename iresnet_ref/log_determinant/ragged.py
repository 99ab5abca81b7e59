"""Power series with a length of its own for every sample: what the roulette estimate and the Neumann gradient have in common."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from iresnet_ref.arrays import Array, HostArray, expand_rows, indices, namespace
from iresnet_ref.jacobian.chain import Chain


def ragged_series(
    chain: Chain, v: Array, lengths: HostArray, term: Callable[[Array, Array], Array], divisor: Callable[[int], float]
) -> Array:
    """Return Σ_{1≤k≤N} term((Jᵀ)ᵏv, v)/divisor(k) for v (count, batch, *event) and `lengths` N (count, batch).

    Samples are sorted by N on the host, so that finished ones drop out without a synchronisation. Terms of divisor ∞ are left out.
    """
    xp, (count, batch) = namespace(v), lengths.shape
    order = np.argsort(-lengths.reshape(-1), kind="stable")
    sorted_n = lengths.reshape(-1)[order]
    v = xp.take(xp.reshape(v, (count * batch, *v.shape[2:])), indices(order, v), axis=0)
    chain, n, w, active = chain.take(indices(order % batch, v)), indices(sorted_n, v), v, sorted_n.size
    total = xp.zeros_like(term(v, v))
    finished: list[Array] = []
    for k in range(1, int(sorted_n.max(initial=0)) + 1):
        alive = int(np.searchsorted(-sorted_n, -k, side="right"))
        if alive <= 0.8 * active:
            finished.append(total[alive:, ...])
            active, keep = alive, slice(0, alive)
            chain, v, w, n, total = chain.take(keep), v[keep, ...], w[keep, ...], n[keep], total[keep, ...]
        w = chain.rmatvec(w)
        if divisor(k) < math.inf:
            has = expand_rows(xp.astype(n >= k, total.dtype), total.ndim - 1)
            total = total + has * term(w, v) / divisor(k)
    total = xp.concat([total, *reversed(finished)], axis=0)
    back = indices(np.argsort(order, kind="stable"), total)
    return xp.reshape(xp.take(total, back, axis=0), (count, batch, *total.shape[1:]))
