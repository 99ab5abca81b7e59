"""log det(I + J) exactly, multiplied out at the narrowest dimension of the chain: det(I + AB) = det(I + BA)."""

from __future__ import annotations

from typing import Any

from iresnet_ref import rounding
from iresnet_ref.arrays import device, namespace, size
from iresnet_ref.chain import Chain

CHUNK = 2**16
"""Entries of the matrices that are formed at a time: they stay in the cache, and memory stays bounded."""


def exact_logdet(chain: Chain) -> Any:
    """Return log det(I + J) per row; needs ‖J‖₂ < 1, so that the determinant is positive.

    The error is absolute, about 8·d·u/(1 − L) plus a few d‖δJ‖/(1 − L): `logdet_error_bound`. Where ‖J‖_F < u^(1/3) the series
    tr J − tr J²/2 replaces the factorisation: its remainder is below d·u/3, and it keeps the relative accuracy of tiny J.
    """
    chain = chain.narrowest().merged()
    rows = max(1, CHUNK // size(chain.in_shape) ** 2)
    if rows >= chain.batch:
        return _logdet_of(chain.dense())
    cuts = [slice(i, min(i + rows, chain.batch)) for i in range(0, chain.batch, rows)]
    parts = [_logdet_of(chain.take(cut).dense()) for cut in cuts]
    return namespace(chain.like).concat(parts, axis=0)


def _logdet_of(matrix: Any) -> Any:
    xp = namespace(matrix)
    small = rounding.unit_roundoff(matrix) ** (1.0 / 3.0)
    square = xp.sum(matrix * matrix, axis=(-2, -1))
    series = _trace(matrix) - 0.5 * xp.sum(matrix * xp.matrix_transpose(matrix), axis=(-2, -1))
    return xp.where(square < small * small, series, log_determinant(matrix))


def log_determinant(matrix: Any) -> Any:
    """Return log|det(I + M)| of (batch, n, n), by LU, or by elimination where the namespace has no linalg."""
    xp = namespace(matrix)
    if not hasattr(xp, "linalg"):
        return _by_elimination(matrix)
    identity = xp.eye(matrix.shape[-1], dtype=matrix.dtype, device=device(matrix))
    return xp.linalg.slogdet(identity + matrix)[1]


def _by_elimination(matrix: Any) -> Any:
    """Eliminate I + M without pivoting: for ‖M‖₂ < 1 its symmetric part is positive definite, so every pivot 1 + p > 0."""
    xp = namespace(matrix)
    total = xp.zeros(matrix.shape[:1], dtype=matrix.dtype, device=device(matrix))
    while matrix.shape[-1]:
        pivot = matrix[:, 0, 0]
        total = total + xp.log1p(pivot)
        column, row = matrix[:, 1:, :1], matrix[:, :1, 1:]
        matrix = matrix[:, 1:, 1:] - column * row / (1.0 + xp.reshape(pivot, (-1, 1, 1)))
    return total


def _trace(matrix: Any) -> Any:
    """The diagonal is every (n + 1)-th entry."""
    xp = namespace(matrix)
    batch, n = matrix.shape[0], matrix.shape[-1]
    return xp.sum(xp.reshape(matrix, (batch, n * n))[:, :: n + 1], axis=-1)
