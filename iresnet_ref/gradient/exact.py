"""The exact gradient ∇ log det(I + J) = tr((I + J)⁻¹∇J), at the narrowest dimension of the cyclic product of layers.

With M the cyclic product from its narrowest dimension, det(I + M) = det(I + J), and tr((I + M)⁻¹∇M) = Σ_k t̄_kᵀ(∇M)e_k with the columns
e_k of the identity as tangents and t̄_k the k-th row of (I + M)⁻¹: one reverse pass, no second derivative of anything.
"""

from __future__ import annotations

from typing import Any

from iresnet_ref.arrays import device, expand_rows, namespace, size
from iresnet_ref.jacobian.chain import Chain
from iresnet_ref.layers.tape import Tape

CHUNK = 2**18
"""About how many numbers the tangents behind one layer hold: rows are taken in pieces that stay in the cache."""


def exact_gradient(tape: Tape, weights: Any, y_bar: Any) -> tuple[Any, dict[str, Any], int]:
    """Return (x̄, gradients, size of the matrix) of Σ_b w_b log det(I + J_g(x_b)) + Σ ȳᵀg(x), `tape` the record of g at x."""
    xp, batch = namespace(tape.value), tape.value.shape[0]
    start, n, width = narrowest(tape.jacobian)
    rows = max(1, CHUNK // (n * width))
    if rows >= batch:
        return *_of_rows(tape, start, weights, y_bar), n
    pieces, total = [], dict[str, Any]()
    for first in range(0, batch, rows):
        cut = slice(first, min(first + rows, batch))
        piece, gradients = _of_rows(tape.take(cut), start, weights[cut], None if y_bar is None else y_bar[cut, ...])
        pieces.append(piece)
        total = {k: total[k] + gradient if k in total else gradient for k, gradient in gradients.items()}
    return xp.concat(pieces, axis=0), total, n


def narrowest(chain: Chain) -> tuple[int, int, int]:
    """Return the factor in front of which the loop is narrowest, that dimension, and the width of the tangents from there.

    The width is that of the widest tangents that differ between rows: those behind the first per-sample factor.
    """
    start = chain.narrowest_index()
    factors = chain.rotated(start).factors
    own = [i for i, f in enumerate(factors) if not f.shared]
    return start, size(factors[0].in_shape), max(size(f.out_shape) for f in factors[own[0] if own else -1 :])


def _of_rows(tape: Tape, start: int, weights: Any, y_bar: Any) -> tuple[Any, dict[str, Any]]:
    """Return (x̄, gradients) of these rows."""
    xp = namespace(tape.value)
    event, batch = tape.jacobian.factors[start].in_shape, tape.value.shape[0]
    n = size(event)
    identity = xp.eye(n, dtype=tape.value.dtype, device=device(tape.value))
    tangents = tape.push(xp.reshape(identity, (n, 1, *event)), start)
    columns = xp.broadcast_to(xp.reshape(tangents[-1], (n, tangents[-1].shape[1], n)), (n, batch, n))
    inverse = inverse_of_identity_plus(xp.permute_dims(columns, (1, 2, 0)))  # row k of each sample is t̄_k
    t_bar = xp.reshape(xp.permute_dims(inverse * expand_rows(weights, 2), (1, 0, 2)), (n, batch, *event))
    x_bar, _, gradients = tape.pullback(y_bar, tangents, t_bar, start)
    return x_bar, gradients


def inverse_of_identity_plus(matrix: Any) -> Any:
    """Return (I + M)⁻¹ of (batch, n, n), by LU, or by elimination where the namespace has no linalg."""
    xp = namespace(matrix)
    identity = xp.eye(matrix.shape[-1], dtype=matrix.dtype, device=device(matrix))
    return xp.linalg.inv(identity + matrix) if hasattr(xp, "linalg") else solve_by_elimination(matrix, identity)


def solve_by_elimination(matrix: Any, right: Any) -> Any:
    """Return (I + M)⁻¹R by Gauss–Jordan without pivoting: for ‖M‖₂ < 1 every pivot has a positive real part."""
    xp = namespace(matrix)
    n = matrix.shape[-1]
    identity = xp.eye(n, dtype=matrix.dtype, device=device(matrix))
    a = xp.concat([identity + matrix, xp.broadcast_to(right, (*matrix.shape[:-1], right.shape[-1]))], axis=-1)
    for i in range(n):
        row = a[..., i : i + 1, :] / a[..., i : i + 1, i : i + 1]
        a = a - (a[..., :, i : i + 1] - identity[:, i : i + 1]) * row
    return a[..., :, n:]
