"""The gradient of a sequence of blocks that stores its last output only (Gomez et al. 2017, arXiv 1707.04585).

Every activation is rebuilt from the one behind it by inversion, and the errors of the rebuilding are reported: they are
rounding and rtol, amplified by at most 1/(1 − L) at every block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, every_row, namespace, public
from iresnet_ref.block import ResidualBlock
from iresnet_ref.gradient.log_determinant import logdet_gradient, require
from iresnet_ref.gradient.result import SequenceGradient
from iresnet_ref.inversion.result import Inverse
from iresnet_ref.inversion.solve import invert_block
from iresnet_ref.log_determinant.methods import LogDetMethod, Name, named


@public
def sequence_gradient(
    blocks: Sequence[ResidualBlock],
    y: Array,
    y_bar: Array,
    *,
    weights: Array | None = None,
    rtol: float | None = None,
    method: LogDetMethod | Name = "auto",
    check: bool = True,
) -> SequenceGradient:
    """Return the gradient of Σ ȳᵀF_n(⋯F₁(x)) + Σ_b w_b Σ_k log det(I + J_k) from y = F_n(⋯F₁(x)) alone.

    y and ȳ are (batch, *event), `weights` (batch,) the cotangents of the summed log-determinants (default: none of
    them). Each block's input is rebuilt by `ir.invert` to `rtol` (default u^(3/4)), then one reverse pass of the block is
    taken there; memory is that of one block, whatever their number, in addition to the gradients. `method` as in
    `logdet_gradient`; block k draws from the k-th stream after that of its probes.

    Limits: an error δ of a rebuilt input moves that block's gradient by O(δ). The result's `radius` bounds δ on each row; its
    factor 1/(1 − L) for each block makes it pessimistic for deep sequences, where `reconstructions` holds the residual of
    each block.

    Raises: ConvergenceError where a row stays above rtol, NotContractiveError, ShapeError, DTypeError, NonFiniteError,
    ValueError for no blocks, or blocks in different norms. Reference: Gomez et al. 2017 (arXiv 1707.04585); [B19] Algorithm 1.

    >>> import numpy as np, iresnet_ref as ir
    >>> blocks = [ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.5, seed=seed)) for seed in (0, 1)]
    >>> x = np.ones((3, 2))
    >>> y = blocks[1](blocks[0](x))
    >>> gradient = ir.sequence_gradient(blocks, y, y, weights=np.ones(3))
    >>> bool(np.linalg.norm(gradient.x - x) <= 3 * np.max(gradient.radius[0]))
    True
    """
    if not blocks:
        raise ValueError("sequence_gradient: expected at least one block, got none; try [block]")
    norms = sorted({block.norm for block in blocks})
    if len(norms) > 1:
        raise ValueError(
            f"sequence_gradient: expected blocks in one norm, whose radii can be chained, got norms {norms}; try the 2-norm for all"
        )
    require(blocks[-1], y, weights, y_bar, check=check, products=True)
    xp = namespace(y)
    rtol = float(rounding.unit_roundoff(y) ** 0.75) if rtol is None else rtol
    method = named(method)
    parameters: list[dict[str, Array]] = []
    reconstructions: list[Inverse] = []
    radii: list[Array] = []
    radius = every_row(y)
    for k in reversed(range(len(blocks))):
        block = blocks[k]
        inverse = invert_block(block, y, rtol=rtol, check=False)
        # y is itself rebuilt, with an error of at most `radius`: F⁻¹ carries it on
        contraction = rounding.down(1.0 - block.contraction() - block.branch.rounding[1], 2)
        on_top = 1.0 + 8.0 * rounding.unit_roundoff(y)
        # of what the forward pass computed, which a bound on the exact preimage alone is not about
        unknown = xp.full_like(inverse.error_bound, math.inf)
        own = xp.where(inverse.covers_computed, inverse.error_bound, unknown)
        radius = (own + radius * on_top / contraction) * on_top if contraction > 0.0 else unknown
        if weights is None:
            y_bar, _, gradients = block.pullback(inverse.x, y_bar=y_bar, check=False)
        else:
            found = logdet_gradient(block, inverse.x, method.after_streams(k), weights=weights, y_bar=y_bar, check=False)
            y_bar, gradients = found.x_bar, found.parameters
        y = inverse.x
        parameters.append(gradients)
        reconstructions.append(replace(inverse, x=cast("Any", None)))  # else every activation would be stored after all
        radii.append(radius)
    return SequenceGradient(tuple(reversed(parameters)), y_bar, y, tuple(reversed(reconstructions)), tuple(reversed(radii)))
