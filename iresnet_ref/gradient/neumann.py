"""The Neumann series of the log-determinant's gradient, truncated or with Russian roulette ([C19] eq. 8).

∇ log det(I + J) = E[Σ_{k≤N} (−1)ᵏ/P(N ≥ k) vᵀJᵏ(∇J)v], k = 0, 1, …, with N drawn for each sample. The row vector is the
cotangent t̄ of the tangent t = Jv, so one reverse pass gives the gradient. Its *value* tr(J(I + J)⁻¹) is not the log-det.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from iresnet_ref.arrays import HostArray, expand_rows, indices, namespace
from iresnet_ref.jacobian.chain import Chain


def neumann_cotangent(chain: Chain, v: Any, lengths: HostArray, survival: Callable[[int], float]) -> Any:
    """Return t̄ = Σ_{k≤N} (−1)ᵏ/P(N ≥ k) (Jᵀ)ᵏv for v (count, batch, *event) and `lengths` N of shape (count, batch).

    Samples are sorted by N on the host, so that finished ones drop out without a synchronisation.
    """
    xp = namespace(v)
    count, batch = lengths.shape
    event_ndim = v.ndim - 2
    order = np.argsort(-lengths.reshape(-1), kind="stable")
    sorted_n = lengths.reshape(-1)[order]
    w = total = xp.take(xp.reshape(v, (count * batch, *v.shape[2:])), indices(order, v), axis=0)
    chain = chain.take(indices(order % batch, v))
    n = expand_rows(indices(sorted_n, v), event_ndim)
    active, finished = sorted_n.size, []
    for k in range(1, int(sorted_n.max(initial=0)) + 1):
        alive = int(np.searchsorted(-sorted_n, -k, side="right"))
        if alive <= 0.8 * active:
            finished.append(total[alive:, ...])
            active, keep = alive, slice(0, alive)
            chain, w, n, total = chain.take(keep), w[keep, ...], n[keep, ...], total[keep, ...]
        w = chain.rmatvec(w)
        total = total + xp.astype(n >= k, w.dtype) / ((-1.0) ** k * survival(k)) * w
    total = xp.concat([total, *reversed(finished)], axis=0)
    back = indices(np.argsort(order, kind="stable"), total)
    return xp.reshape(xp.take(total, back, axis=0), v.shape)


def truncation_factor(lipschitz: float, terms: int) -> float:
    """Return L^{n+1}/(1 − L) ≥ ‖Σ_{k>n} (−1)ᵏJᵏ‖₂ for ‖J‖₂ ≤ L."""
    return lipschitz ** (terms + 1) / (1.0 - lipschitz)
