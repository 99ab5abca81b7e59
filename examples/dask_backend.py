"""A backend in one file: dask arrays, which are computed when somebody looks at them.

A backend makes arrays, brings them back and names a device; it holds no mathematics. What the reference then needs is in the
standard: dask runs the forward pass, the certificate, the series, the roulette and the inverse; the determinant ends in
"array_api_compat.dask.array.linalg has no attribute 'slogdet'".

    python examples/dask_backend.py
"""

from __future__ import annotations

from typing import Any

import array_api_compat
import array_api_compat.dask.array as xp
import numpy as np

import iresnet_ref as ir
from iresnet_backends.backend import Backend, allocate


def make(name: str, device: str, dtype: str) -> Backend:
    """Return the dask backend; its one device is the host."""
    wanted = np.dtype(dtype)

    def asarray(a: Any) -> Any:
        return xp.asarray(np.array(a, dtype=wanted))

    place = array_api_compat.device(asarray([0.0]))
    return Backend(name, xp, wanted, place, asarray, lambda a: np.array(a.compute()))


def missing(backend: Backend) -> list[str]:
    """Return the functions of the standard that the reference calls and this namespace lacks."""
    needed = ("linalg.slogdet", "linalg.solve", "linalg.svdvals", "linalg.vector_norm", "matmul", "expm1", "take", "concat")

    def has(dotted: str) -> bool:
        thing = backend.xp
        for part in dotted.split("."):
            thing = getattr(thing, part, None)
        return thing is not None

    return [name for name in needed if not has(name)]


def main() -> None:
    b, x = allocate(make("dask", "cpu", "float64")), np.random.default_rng(0).standard_normal((5, 3))
    here, there = (ir.ResidualBlock(ir.mlp((3, 8, 8, 3), like=like)) for like in (b.asarray(x), x))
    gap = np.abs(b.to_numpy(here(b.asarray(x))) - there(x)).max()
    print(f"forward pass on dask: {gap:.1e} from NumPy's")
    print(f"missing from {b.xp.__name__}: {', '.join(missing(b)) or 'nothing'}")


if __name__ == "__main__":
    main()
