"""What an inversion returns."""

from __future__ import annotations

from dataclasses import dataclass

from iresnet_ref.arrays import Array


@dataclass(frozen=True)
class Inverse:
    """The computed preimage and its guarantees, one entry per row.

    `x` (batch, *event); `residual_norm` = ‖y − x − g(x)‖₂ as computed, or a proved bound on it where x is a last Banach step that was
    not evaluated again: L times that of the point before, and the most that rounding adds (`inversion.last_step`); `error_bound` ≥ the
    distance from x to the exact preimage of y and, where `covers_computed`, to every x′ whose computed F(x′) equals y; `evaluations` of
    g plus products with J_g, all of them; `converged`: residual_norm ≤ rtol·max(‖x‖, ‖y‖, ‖g(x)‖).

    Where rounding takes too much of 1 − L for one digit of x to be proved of both, as float32 does near L = 1, the bound is that of
    `ir.bounds.inverse_ball` and `covers_computed` is false. It is useful where the device has float64; where it has none (MPS, TPU, JAX
    without x64), move the block and y to the CPU. inf where nothing is proved.

    `residual_norm`, `error_bound` and `converged` have shape (batch,). Reference: [B19] Thm 1.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.5))
    >>> inverse = ir.invert(F, np.ones((3, 2)), rtol=1e-10)
    >>> tuple(inverse.x.shape), bool(np.all(inverse.converged)), bool(np.max(inverse.error_bound) < 1e-8)
    ((3, 2), True, True)
    """

    x: Array
    residual_norm: Array
    error_bound: Array
    evaluations: Array
    converged: Array
    method: str = "banach"
    covers_computed: Array | bool = True
