"""Iteration in the hidden space of a branch that begins and ends with an affine layer.

With g(x) = W_L ψ(W₁x + b₁) + b_L and u = W₁x + b₁, the equation x + g(x) = y becomes

    u + M ψ(u) = W₁(y − b_L) + b₁,    M = W₁W_L computed once:

again a residual block, of the hidden width, whose branch has Lipschitz constant at most ‖W₁‖‖W_L‖Lip(ψ). An evaluation costs
h² instead of 2dh (two layers of width h), the iterates are those of the full space, and x = y − W_L ψ(u) − b_L has

    ‖y − x − g(x)‖ = ‖W_L(ψ(u) − ψ(u + s))‖ ≤ ‖W_L‖Lip(ψ)‖s‖,    s the hidden residual.

The caller continues from this x in the full space, where the true residual decides: rounding in the hidden space
costs at most a few more steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, namespace, row_norm, to_host
from iresnet_ref.block import ResidualBlock
from iresnet_ref.branches.branch import Branch
from iresnet_ref.inversion.fixed_point import FixedPoint
from iresnet_ref.inversion.iteration import iterate
from iresnet_ref.inversion.rows import Rows
from iresnet_ref.inversion.safeguard import Goal, Point
from iresnet_ref.layers.linear import Affine

EXPECTED_STEPS = 8
"""Evaluations for which forming M must pay."""
OVERHEAD = 2e6
"""What setting the hidden space up costs in addition to M, in multiply-adds: two more evaluations and a certificate (measured)."""


@dataclass(frozen=True)
class Hidden:
    """The block in the hidden space: `block`, the first and the last layer, and `gain` ≥ ‖W_L‖Lip(ψ)."""

    block: ResidualBlock
    first: Affine
    last: Affine
    gain: float

    def lift(self, x: Array) -> Array:
        """Return u = W₁x + b₁."""
        return self.first(x)

    def value(self, u: Array) -> Array:
        """Return g(x) = W_L ψ(u) + b_L at the x with W₁x + b₁ = u."""
        for layer in self.block.branch.layers[:-1]:
            u = layer(u)
        return self.last(u)


def hidden_space(block: ResidualBlock) -> Hidden | None:
    """Return the block in the hidden space; None if the branch does not begin and end with affine layers, something between.

    Its Lipschitz constant is the proved product of norms of the branch: the hidden iteration keeps it also where a
    smaller constant is stated for g.
    """
    branch = block.branch
    first, last = branch.layers[0], branch.layers[-1]
    if len(branch.layers) < 3 or not (isinstance(first, Affine) and isinstance(last, Affine)):
        return None
    xp = namespace(branch.like)
    middle = branch.layers[1:-1]
    bias = xp.matmul(first.weight, last.bias[:, None])[:, 0]
    reduced = Branch((*middle, Affine(xp.matmul(first.weight, last.weight), bias)), (first.weight.shape[0],), branch.norm)
    bounds = [layer.norm_bound(branch.norm) for layer in (*middle, last)]
    gain = max(math.prod(bounds), rounding.smallest_normal(branch.like))
    return Hidden(ResidualBlock(reduced, block.branch.product.bound), first, last, gain)


def is_cheaper(branch: Branch, batch: int) -> bool:
    """Return whether the hidden space is at least a quarter cheaper for this batch, forming M included."""
    first, last = branch.layers[0], branch.layers[-1]
    if len(branch.layers) < 3 or not (isinstance(first, Affine) and isinstance(last, Affine)):
        return False
    (h, d), k = first.weight.shape, last.weight.shape[1]
    inner = sum(layer.weight.shape[0] * layer.weight.shape[1] for layer in branch.layers[1:-1] if isinstance(layer, Affine))
    full, narrow = d * (h + k) + inner, h * k + inner
    return EXPECTED_STEPS * batch * (0.75 * full - narrow) > h * k * d + OVERHEAD


def iterate_hidden(block: ResidualBlock, y: Array, goal: Goal, space: Hidden) -> tuple[Point, Rows, str]:
    """Return (x, rows, what was used): hidden iteration to the tolerance or its rounding floor, then the full space.

    `goal.limit` must leave three evaluations.
    """
    v = space.lift(y)
    noise = space.block.branch.rounding_noise(v) + 3.0 * rounding.unit_roundoff(v) * row_norm(v, 1, block.norm)
    size_y, floor = to_host(namespace(y).stack([row_norm(y, 1, block.norm), noise], axis=0)).astype(np.float64)
    tolerance = np.maximum(goal.rtol * size_y / space.gain, 2.0 * floor)
    inner = Goal(space.block.contraction(), goal.rtol, goal.check_every, goal.limit - 2)
    steps = FixedPoint(space.block, v, inner, "observed")
    u, narrow = iterate(space.block, steps, inner, tolerance)
    narrow.evaluations += 1  # x = y − g, below
    outer = replace(goal, limit=goal.limit - int(narrow.evaluations.max()))
    again = FixedPoint(block, y, outer, "observed", start=y - space.value(u.x))
    point, rows = iterate(block, again, outer)
    rows.evaluations += narrow.evaluations
    return point, rows, "hidden banach" if steps.method == again.method == "banach" else "hidden anderson"
