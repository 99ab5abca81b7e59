"""The gradient of the log-determinant with respect to the parameters and x: exact, or by the Neumann series."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from iresnet_ref.arrays import Array, every_row, public
from iresnet_ref.arrays.validation import require_alike, require_batch, require_finite, require_rows
from iresnet_ref.block import ResidualBlock
from iresnet_ref.gradient.record import record
from iresnet_ref.gradient.result import LogDetGradient
from iresnet_ref.log_determinant.methods import LogDetMethod, Name, named


@public
def logdet_gradient(
    block: ResidualBlock,
    x: Array,
    method: LogDetMethod | Name = "auto",
    *,
    weights: Array | None = None,
    y_bar: Array | None = None,
    parameters: Collection[str] | None = None,
    check: bool = True,
) -> LogDetGradient:
    """Return the gradient of Σ_b w_b log det(I + J_g(x_b)) with respect to the parameters and to x, without autodiff.

    `weights` w (batch,) are the upstream gradients, one for each row (default: ones). `y_bar` (batch, *event) adds the
    gradient of Σ ȳᵀF(x) in the same reverse pass: what a training step needs of a block. `parameters` names those that
    are wanted (default: all).

    Exact()           tr((I + J)⁻¹∇J) at the narrowest dimension of the layers.
    Roulette()        the Neumann series Σ_{k≤N} (−1)ᵏ/P(N ≥ k) vᵀJᵏ(∇J)v ([C19] eq. 8), unbiased: N is drawn for each row and
                      probe from `lengths`, which is accepted if L < 1 proves the variance of the *gradient* finite.
    Series(terms)     that series truncated, biased by at most L^{terms+1}/(1 − L) ‖∂J‖_*, the result's `truncation`.
    Auto(estimate)    exact while the narrowest dimension is at most 256, else the estimate, Roulette() by default.

    The methods are those of `ir.logdet`; estimates are averaged over `probes.count`, and planned for no standard error here.

    No log-determinant is returned: the Neumann series' own value is tr(J(I + J)⁻¹), another number. At a kink of φ (ReLU
    at 0) the derivative is that of the left. Memory: tangents are held for about 2²⁰ numbers a layer at a time (exact),
    or for `probes.count` batches (series).

    Raises: NotContractiveError, InfiniteVarianceError (unless the method allows it), ShapeError, DTypeError,
    NonFiniteError, ValueError. Reference: [C19] §3.2 and App. C.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.5))
    >>> gradient = ir.logdet_gradient(F, np.ones((3, 2)), weights=np.asarray([1.0, 0.0, -2.0]))
    >>> gradient.x_bar.shape, sorted(gradient.parameters)
    ((3, 2), ['0.bias', '0.weight', '2.bias', '2.weight'])
    """
    method = named(method)
    require(block, x, weights, y_bar, check=check)
    wanted = require_names(block, parameters)
    block.contraction()  # raises where Lip(g) < 1 is not known
    found = record(block, x).gradient(method, every_row(x, 1.0) if weights is None else weights, y_bar)
    return replace(found, parameters={k: found.parameters[k] for k in wanted})


def require(
    block: ResidualBlock,
    x: Array,
    weights: Array | None,
    y_bar: Array | None,
    *,
    check: bool,
    cotangent: str = "y_bar",
    weighted: str = "weights",
    products: bool = False,
) -> None:
    """Refuse a batch, row weights or cotangents that do not fit the block and each other."""
    block.require(x, "x", check=False)
    if weights is not None:
        require_batch(weights, (), weighted, check=False)
        require_alike(weights, x, weighted)
        require_rows(weights, x, weighted)
    if y_bar is not None:
        block.require(y_bar, cotangent, check=False)
        require_rows(y_bar, x, cotangent)
    if check:
        require_finite(x if products else None, **{"x": x, weighted: weights, cotangent: y_bar})


def require_names(block: ResidualBlock, names: Collection[str] | None) -> list[str]:
    """Return the parameters that are wanted, in the order of the layers; an unknown name is refused."""
    known = list(block.branch.parameters())
    for name in sorted(set(names or ()) - set(known)):
        raise ValueError(f"parameters: expected names among {known}, got {name!r}; leave it out for all")
    return known if names is None else [name for name in known if name in names]
