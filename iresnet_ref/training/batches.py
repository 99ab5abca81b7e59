"""Minibatches as a function of (seed, step): a run that was interrupted continues with the rows it would have seen."""

from __future__ import annotations

import numpy as np

from iresnet_ref.arrays import HostArray, public
from iresnet_ref.probes import philox


@public
def minibatch(rows: int, batch: int, step: int, *, seed: int = 0) -> HostArray:
    """Return the indices (batch,) of one step's rows, drawn with replacement from 0, …, rows − 1, on the host.

    Philox words modulo `rows`: off uniform by less than rows/2³². Raises ValueError for an empty request.

    >>> minibatch(1000, 3, 7, seed=1).tolist() == minibatch(1000, 3, 7, seed=1).tolist()
    True
    """
    if rows < 1 or batch < 1 or not 0 <= step < 2**32 or not 0 <= seed < 2**64:
        raise ValueError(
            f"minibatch: expected rows, batch ≥ 1, 0 ≤ step < 2**32 and 0 ≤ seed < 2**64, got {rows}, {batch}, {step}, {seed}; "
            "try minibatch(len(data), 32, step)"
        )
    counter = (np.arange(batch, dtype=np.uint32), np.uint32(step), np.uint32(0), np.uint32(0))
    return philox(counter, seed)[0].astype(np.int64) % rows
