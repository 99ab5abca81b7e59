"""Inputs of every magnitude, from far below to far above those at which a network is usually evaluated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray

SCALES = (1e-6, 1e-3, 1e2, 1e4, 1e6)


def at_all_magnitudes(ctx: Context, directions: int) -> HostArray:
    """Return Gaussian directions times each of SCALES, (scales·directions, *event), in the subject's dtype."""
    x = ctx.rng.standard_normal((len(SCALES), directions, *ctx.subject.event_shape))
    x *= np.reshape(SCALES, (-1, 1, *[1] * len(ctx.subject.event_shape)))
    return np.asarray(x.reshape(-1, *ctx.subject.event_shape), dtype=ctx.inputs(1).dtype)
