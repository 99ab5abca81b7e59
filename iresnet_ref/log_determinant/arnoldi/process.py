"""The Arnoldi process of J from v: JQ = Q₊H₊ + E, Q₊ = (q₁, …, q_{k+1}), with what rounding left of it measured.

Gram–Schmidt twice. Where Jq lies in the space to rounding, the next vector is 0: the process has ended there.
"""

from __future__ import annotations

from dataclasses import dataclass

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, device, namespace, size
from iresnet_ref.jacobian.chain import Chain

LARGEST = 1.25
"""Bound on ‖q_j‖ where ‖Q₊ᵀQ₊ − I‖_F ≤ ½."""


@dataclass(frozen=True)
class Krylov:
    """H by its columns, column j with its entries 0 … j + 1 but the last without the entry h = h_{k+1,k} below, which is `beyond`.

    `after` is q_{k+1}, (probes, batch, d).

    Per probe and row: `length` β = fl‖v‖, `moments` ≥ ‖vᵀJQ − βe₁ᵀH‖, `residual` ≥ ‖E‖_F, `skew` ≥ ‖Q₊ᵀQ₊ − I‖_F on the vectors that are
    not 0 (the products with J are taken as exact).
    """

    columns: list[Array]
    beyond: Array
    after: Array
    length: Array
    moments: Array
    residual: Array
    skew: Array


def krylov(chain: Chain, v: Array, steps: int) -> Krylov:
    """Return the process of so many products for each probe and row of v (probes, batch, *event)."""
    xp = namespace(v)
    lead, d, u = tuple(v.shape[:2]), size(chain.in_shape), rounding.unit_roundoff(v)
    tiny, on_top = 8.0 * d * u, 1.0 + (2 * d + 32) * u
    start = xp.reshape(v, (*lead, 1, d))
    length = xp.sqrt(xp.sum(start * start, axis=-1, keepdims=True))
    basis = start / length
    columns: list[Array] = []
    moments: list[Array] = []
    residuals: list[Array] = []
    for j in range(steps):
        image = xp.reshape(chain.matvec(xp.reshape(basis[..., j, :], tuple(v.shape))), (*lead, 1, d))
        w, whole = image, xp.sqrt(xp.sum(image * image, axis=-1, keepdims=True))
        entries = xp.zeros((*lead, 1, j + 1), dtype=v.dtype, device=device(v))
        for _ in range(2):
            h = xp.matmul(w, xp.matrix_transpose(basis))
            w, entries = w - xp.matmul(h, basis), entries + h
        beta = xp.sqrt(xp.sum(w * w, axis=-1, keepdims=True))
        beta = xp.where(beta > tiny * whole, beta, xp.zeros_like(beta))
        unit = xp.where(beta > 0.0, w / xp.where(beta > 0.0, beta, xp.ones_like(beta)), xp.zeros_like(w))
        # vᵀJq − βh_1j and Jq − Q₊h as they are, and what computing them rounds
        moment = xp.abs(xp.sum(start * image, axis=-1, keepdims=True) - length * entries[..., :1])
        moments.append((moment + rounding.gamma(d + 2, u) * length * (whole + xp.abs(entries[..., :1]))) * on_top)
        basis, entries = xp.concat([basis, unit], axis=-2), xp.concat([entries, beta], axis=-1)
        left = image - xp.matmul(entries, basis)
        sizes = whole + LARGEST * xp.sum(xp.abs(entries), axis=-1, keepdims=True)
        residuals.append((xp.sqrt(xp.sum(left * left, axis=-1, keepdims=True)) + rounding.gamma(j + 4, u) * sizes) * on_top)
        columns.append(entries[..., 0, :])
    gram = xp.matmul(basis, xp.matrix_transpose(basis))
    eye = xp.eye(steps + 1, dtype=v.dtype, device=device(v))
    gram = gram - xp.where(gram > 0.5, eye, xp.zeros_like(eye))
    skew = xp.sqrt(xp.sum(xp.sum(gram * gram, axis=-1), axis=-1)) + 2.0 * (steps + 1) * rounding.gamma(d + 2, u)
    last = columns.pop()
    columns.append(last[..., :-1])
    return Krylov(columns, last[..., -1], basis[..., -1, :], length[..., 0, 0], _joined(moments), _joined(residuals), skew * on_top)


def _joined(sizes: list[Array]) -> Array:
    """Return √Σ of squares of (…, 1, 1) arrays."""
    xp = namespace(sizes[0])
    together = xp.concat(sizes, axis=-1)[..., 0, :]
    return xp.sqrt(xp.sum(together * together, axis=-1))
