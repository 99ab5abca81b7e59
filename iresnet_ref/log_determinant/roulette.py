"""The unbiased Russian-roulette estimate of log det(I + J), with a series length of its own for every sample.

Σ_{k≤N} (−1)^{k+1} vᵀJᵏv/(k·P(N ≥ k)), E over N and v = Σ_k (−1)^{k+1} tr(Jᵏ)/k ([C19] eq. 6 with N per sample). Exact
traces replace the first q terms, with weight 1 and whatever N is; a sample with N ≤ q needs no product at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from iresnet_ref.arrays import HostArray, indices, namespace
from iresnet_ref.jacobian.chain import Chain
from iresnet_ref.log_determinant.length_distributions import Table
from iresnet_ref.log_determinant.series import divisor, event_dot, replaced_terms


def products(lengths: HostArray, exact: int) -> HostArray:
    """Return how many products with J a sample of this length takes after `exact` exact traces."""
    return np.where(lengths > exact, lengths, 0)


def roulette_logdet(chain: Chain, v: Any, lengths: HostArray, drawn: Table, traces: Sequence[Any] = ()) -> Any:
    """Return one estimate per (probe, row) for v of shape (count, batch, *event) and `lengths` N of shape (count, batch).

    Samples are sorted by N on the host, so that finished ones drop out without a synchronisation.
    """
    xp = namespace(v)
    count, batch = lengths.shape
    event_ndim = len(chain.in_shape)
    lengths = products(lengths, len(traces)).reshape(-1)
    order = np.argsort(-lengths, kind="stable")
    sorted_n = lengths[order]
    exact = replaced_terms(traces, event_dot(v, v, event_ndim))
    v = xp.take(xp.reshape(v, (count * batch, *v.shape[2:])), indices(order, v), axis=0)
    chain = chain.take(indices(order % batch, v))
    n = indices(sorted_n, v)
    w, active = v, sorted_n.size
    total = xp.zeros_like(event_dot(v, v, event_ndim))
    finished: list[Any] = []
    for k in range(1, int(sorted_n.max(initial=0)) + 1):
        alive = int(np.searchsorted(-sorted_n, -k, side="right"))
        if alive <= 0.8 * active:
            finished.append(total[alive:])
            active, keep = alive, slice(0, alive)
            chain, v, w, n, total = chain.take(keep), v[keep, ...], w[keep, ...], n[keep], total[keep]
        w = chain.rmatvec(w)
        if k > len(traces):
            has = xp.astype(n >= k, total.dtype)
            total = total + has * event_dot(w, v, event_ndim) / (divisor(k) * drawn.survival(k))
    total = xp.concat([total, *reversed(finished)], axis=0)
    back = indices(np.argsort(order, kind="stable"), total)
    return exact + xp.reshape(xp.take(total, back, axis=0), (count, batch))
