"""Derivatives of a JAX subject's callables by JAX itself: rows of the Jacobian by `vjp`, columns by `jvp`, one pullback.

A subject is traced only here, and the caller compares the result with differences of the untraced map: a
function that leaves JAX (NumPy inside), draws keys by a counter or caches raises or disagrees, and is rejected.
`vjp` is refused by loops of unknown length, `jvp` by functions with a `custom_vjp`: so both exist.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from iresnet_verify.subject.calls import Caller
    from iresnet_verify.subject.subject import HostArray, Native

Array = np.ndarray[Any, np.dtype[np.float64]]


def rows(caller: Caller, name: str, x: HostArray, seed: int) -> Array:
    """(batch, d, d): row i of every Jacobian of `name` from the cotangent eᵢ, all in one vectorised pullback."""
    import jax

    function, at, basis = _flat(caller, name, x, seed)
    _, pull = jax.vjp(function, at)
    stacked = jax.vmap(lambda e: pull(e)[0])(basis)  # (d, batch, d): [i, n, j] = ∂y_ni/∂x_nj
    return np.moveaxis(np.asarray(caller.framework.host(stacked), dtype=np.float64), 0, 1)


def columns(caller: Caller, name: str, x: HostArray, seed: int) -> Array:
    """The same matrix from the tangents e_j."""
    import jax

    function, at, basis = _flat(caller, name, x, seed)
    stacked = jax.vmap(lambda e: jax.jvp(function, (at,), (e,))[1])(basis)  # [j, n, i]
    return np.moveaxis(np.asarray(caller.framework.host(stacked), dtype=np.float64), 0, 2)


def pullback(caller: Caller, name: str, x: HostArray, cotangent: HostArray) -> tuple[HostArray, HostArray]:
    """(value, Jᵀ cotangent) of `name` at x; raises what JAX raises where it cannot be differentiated."""
    import jax

    seed = caller.next_seed()
    value, pull = jax.vjp(lambda a: caller.event(name, a, seed=seed)[0], caller.framework.native(x))
    (gradient,) = pull(caller.framework.native(cotangent).astype(value.dtype))
    return caller.framework.host(value), np.asarray(caller.framework.host(gradient), dtype=np.float64)


def _flat(caller: Caller, name: str, x: HostArray, seed: int) -> tuple[Callable[[Native], Native], Native, Native]:
    """`name` between (batch, d) arrays, the point, and the basis (d, batch, d): eᵢ in every row."""
    n, d = x.shape[0], int(np.prod(x.shape[1:], dtype=int))

    def function(flat: Native) -> Native:
        return caller.event(name, flat.reshape(x.shape), seed=seed)[0].reshape(n, d)

    basis = np.broadcast_to(np.eye(d)[:, None, :], (d, n, d))
    return function, caller.framework.native(x.reshape(n, d)), caller.framework.native(basis)
