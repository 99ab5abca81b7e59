"""log det(I + J) exactly, multiplied out at the narrowest dimension of the chain: det(I + AB) = det(I + BA)."""

from __future__ import annotations

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, device, namespace, size
from iresnet_ref.arrays.namespaces import is_traced
from iresnet_ref.jacobian.chain import Chain
from iresnet_ref.jacobian.factors import Dense, Diagonal
from iresnet_ref.log_determinant import elimination

CHUNK = 2**16
"""Entries of the matrices that are formed at a time: they stay in the cache, and memory stays bounded."""


def pieces(batch: int, rows: int, like: Array) -> list[slice]:
    """Return the pieces of a batch, so many rows each, at least one; the whole batch where a compiler traces.

    A compiler plans memory itself, and XLA on a CPU of few cores waits for ever where factorisations that do not depend on each other
    run at once: each keeps a thread and waits for another one.
    """
    rows = max(batch, 1) if is_traced(like) else max(1, rows)
    return [slice(i, min(i + rows, batch)) for i in range(0, max(batch, 1), rows)]


def is_eliminated(order: int, like: Array, contracts: bool) -> bool:
    """Return whether I + M is eliminated without pivoting: where that is fast and M is known to contract, or nothing else is there."""
    return (contracts and order <= elimination.MOST) or not hasattr(namespace(like), "linalg")


def exact_logdet(chain: Chain, *, contracts: bool = False) -> Array:
    """Return log det(I + J) per row; needs ‖J‖₂ < 1, so that the determinant is positive.

    The error is absolute, about 8·d·u/(1 − L) plus a few d‖δJ‖/(1 − L): `logdet_error_bound`. Where every rotation of J `contracts`
    small matrices are eliminated without pivoting. In LAPACK's place, where ‖J‖_F < u^(1/3), stands the series tr J − tr J²/2: its
    remainder is below d·u/3, and it keeps the relative accuracy of tiny J.
    """
    chain = chain.narrowest().merged()
    n, cuts = size(chain.in_shape), cuts_of(chain)
    if is_eliminated(n, chain.like, contracts):
        return joined([elimination.logdet(chain.take(cut).dense()) for cut in cuts])
    match chain.factors:
        case Dense(k), Diagonal(d):
            return _of_one_diagonal(d, k, cuts)
        case _:
            return joined([logdet_of(chain.take(cut).dense()) for cut in cuts])


def signed_logdet(chain: Chain) -> tuple[Array, Array]:
    """Return (sign, log|det|) of I + J per row, for any J: what is left without ‖J‖₂ < 1. The namespace must have linalg."""
    chain = chain.narrowest().merged()
    xp = namespace(chain.like)
    identity = xp.eye(size(chain.in_shape), dtype=chain.like.dtype, device=device(chain.like))
    found: list[tuple[Array, Array]] = [xp.linalg.slogdet(identity + chain.take(cut).dense()) for cut in cuts_of(chain)]
    return joined([sign for sign, _ in found]), joined([value for _, value in found])


def _of_one_diagonal(d: Array, k: Array, cuts: list[slice]) -> Array:
    """Return log det(I + DK): two layers, with nothing but the factorisation done for each sample on its own.

    Row i of I + DK is [dᵢ 1][kᵢ; eᵢ]: of all samples one matrix product, written once. It is handed over transposed: LAPACK
    wants columns. ‖DK‖_F² = (d∘d)ᵀ(K∘K)1, tr DK = dᵀ diag K, tr (DK)² = dᵀ(K∘Kᵀ)d need no matrix.
    """
    xp, n = namespace(d), k.shape[0]
    left = xp.stack([xp.matrix_transpose(d), xp.ones_like(xp.matrix_transpose(d))], axis=-1)  # (n, batch, 2)
    right = xp.stack([k, xp.eye(n, dtype=k.dtype, device=device(k))], axis=1)  # (n, 2, n)
    value = joined([xp.linalg.slogdet(xp.permute_dims(xp.matmul(left[:, cut, :], right), (1, 2, 0)))[1] for cut in cuts])
    square = xp.matmul(d * d, xp.sum(k * k, axis=-1))
    first = xp.matmul(d, xp.reshape(k, (n * n,))[:: n + 1])
    second = xp.sum(d * xp.matmul(d, k * xp.matrix_transpose(k)), axis=-1)
    return _series_where_tiny(square, first, second, value)


def logdet_of(matrix: Array) -> Array:
    """Return log det(I + J) of matrices (batch, n, n), ‖J‖₂ < 1, by LU, or by the series where J is tiny."""
    xp = namespace(matrix)
    batch, n = matrix.shape[0], matrix.shape[-1]
    entries = xp.reshape(matrix, (batch, n * n))
    square = xp.vecdot(entries, entries)
    first = xp.sum(entries[:, :: n + 1], axis=-1)
    second = xp.sum(xp.vecdot(matrix, xp.matrix_transpose(matrix)), axis=-1)
    return _series_where_tiny(square, first, second, log_determinant(matrix))


def _series_where_tiny(square: Array, first: Array, second: Array, value: Array) -> Array:
    """Return tr J − tr J²/2 of `first` and `second` where ‖J‖_F² = `square` is below u^(2/3), elsewhere `value`."""
    return namespace(value).where(square < rounding.unit_roundoff(value) ** (2.0 / 3.0), first - 0.5 * second, value)


def cuts_of(chain: Chain) -> list[slice]:
    """Return the rows whose matrices are formed at a time."""
    return pieces(chain.batch, CHUNK // size(chain.in_shape) ** 2, chain.like)


def joined(parts: list[Array]) -> Array:
    """Return arrays of such rows behind each other."""
    return parts[0] if len(parts) == 1 else namespace(parts[0]).concat(parts, axis=0)


def log_determinant(matrix: Array) -> Array:
    """Return log|det(I + M)| of (batch, n, n), by LU, or by elimination where the namespace has no linalg."""
    xp = namespace(matrix)
    if not hasattr(xp, "linalg"):
        return elimination.logdet(matrix)
    return xp.linalg.slogdet(xp.eye(matrix.shape[-1], dtype=matrix.dtype, device=device(matrix)) + matrix)[1]


def inverse_of_identity_plus(matrix: Array) -> Array:
    """Return (I + M)⁻¹ of (batch, n, n), by LU, or by elimination where the namespace has no linalg."""
    xp = namespace(matrix)
    if not hasattr(xp, "linalg"):
        return elimination.logdet_and_inverse(matrix)[1]
    return xp.linalg.inv(xp.eye(matrix.shape[-1], dtype=matrix.dtype, device=device(matrix)) + matrix)
