"""The truncated power series log det(I + J) ≈ Σ_{k≤n} (−1)^{k+1} tr(Jᵏ)/k, traces by Hutchinson probes ([B19] eq. 4)."""

from __future__ import annotations

from typing import Any

from iresnet_ref.arrays import namespace
from iresnet_ref.chain import Chain


def event_dot(a: Any, b: Any, event_ndim: int) -> Any:
    """Return aᵀb over the event axes."""
    return namespace(a).sum(a * b, axis=tuple(range(-event_ndim, 0)))


def series_logdet(chain: Chain, v: Any, terms: int) -> Any:
    """Return Σ_{k≤terms} (−1)^{k+1} vᵀJᵏv/k for each probe and row."""
    event_ndim = len(chain.in_shape)
    w = chain.rmatvec(v)
    total = event_dot(w, v, event_ndim)
    for k in range(2, terms + 1):
        w = chain.rmatvec(w)
        total = total + ((-1) ** (k + 1) / k) * event_dot(w, v, event_ndim)
    return total
