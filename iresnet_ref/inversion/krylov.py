"""GCR for (I + J)x = r or its adjoint, every pair kept (Eisenstat, Elman, Schultz, SINUM 1983).

It minimises ‖r − (I + J)x‖ over the Krylov space, which contains the Neumann sums, and cannot break down: the symmetric part of
I + J is at least 1 − L.
"""

from __future__ import annotations

from collections.abc import Callable

from iresnet_ref.arrays import Array, flatten_events, namespace, stack_norm
from iresnet_ref.inversion.anderson import Secants


def gcr(product: Callable[[Array], Array], r: Array, goal: Array, most: int, check_every: int) -> tuple[Array, Array, int]:
    """Return (x, r − x − Jx, products): within `goal` on every row, or `most` products used; `product` takes v to J v."""
    xp, rest = namespace(r), flatten_events(r, r.ndim - 1)
    pairs, x = Secants(most), xp.zeros_like(rest)
    for k in range(1, most + 1):
        image = rest + flatten_events(product(xp.reshape(rest, r.shape)), r.ndim - 1)
        pairs = pairs.add(rest, image, dependent=0.0)
        explained, rest = pairs.project(rest)
        x = x + explained
        if k == most or (k % check_every == 0 and not bool(xp.any(stack_norm(rest) > goal))):
            break
    return xp.reshape(x, r.shape), xp.reshape(rest, r.shape), k
