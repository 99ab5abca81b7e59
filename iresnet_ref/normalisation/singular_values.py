"""Spectral norms ‖A‖₂ of matrices and of convolutions on their image, and the normalisation that divides only when needed.

Power iteration under-estimates (measured −7.5 % after 5 steps on 256×64), so a layer normalised by it claims only what
`certify` proves; `normalise` divides by a *proved* bound. Reference: [B19] §2.1, Miyato et al. 2018 (arXiv 1802.05957).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, all_finite, device, from_host, namespace, public, stack_norm, whole_number
from iresnet_ref.arrays.validation import require_alike, require_finite, require_full_precision, require_real
from iresnet_ref.errors import ConvergenceError, NonFiniteError, ShapeError
from iresnet_ref.jacobian.convolution import Convolution, Operator
from iresnet_ref.jacobian.factors import Dense, Factor
from iresnet_ref.layers.linear import LinearLayer
from iresnet_ref.probes import Probes


class SingularTriple(NamedTuple):
    """σ = uᵀAv with unit vectors u, v: σ a 0-d array, u (1, *out_shape), v (1, *in_shape).

    At fixed u and v, σ is linear in the weight: its gradient is `operator.weight_gradient(u, v)`.
    Reference: Miyato and others 2018, arXiv 1802.05957.

    >>> import numpy as np, iresnet_ref as ir
    >>> triple = ir.spectral.singular_triple(np.asarray([[3.0, 0.0], [0.0, 1.0]]))
    >>> round(float(triple.sigma), 12), tuple(triple.u.shape)
    (3.0, (1, 2))
    """

    sigma: Array
    u: Array
    v: Array


@public
def spectral_norm(weight: Array | LinearLayer | Operator) -> Array:
    """Return ‖A‖₂ as a 0-d array, exactly to rounding, of a matrix, an operator or a linear layer.

    By the singular value decomposition: of the matrix; for circular padding of the blocks B(ω) that the Fourier transform
    leaves (Sedghi, Gupta, Long 2019, arXiv 1805.10408); for zero padding of the operator as a matrix.
    Limits: no bound, since rounding may leave it below. Where the namespace has no linalg it is that of `singular_triple`.
    Zero padding costs the cube of channels·height·width.

    >>> import numpy as np
    >>> float(spectral_norm(np.diag([3.0, 4.0])))
    4.0
    """
    operator = _operator(weight)
    xp = namespace(operator.weight)
    if not hasattr(xp, "linalg"):
        return singular_triple(operator).sigma
    if isinstance(operator, Convolution) and operator.padding == "circular" and hasattr(xp, "fft"):
        blocks = _blocks(operator.weight, operator.image)
        return xp.max(xp.linalg.svdvals(blocks))
    return xp.linalg.svdvals(operator.matrix())[0]


@public
def gram_bound(weight: Array | LinearLayer | Operator, *, squarings: int = 6) -> Array:
    """Return ‖G^(2^s)‖_F^(1/2^(s+1)) ≥ ‖A‖₂, G = AᵀA, as a 0-d array, for a matrix, an operator or a linear layer.

    It is within the factor n^(1/2^(s+2)) of the norm, n the smaller side, and converges quadratically away from ties. A
    convolution is bounded block by block, one with zero padding on a circular grid that contains its image.
    Limits: rounding can put it below the norm by a few u: no proof. Reference: Delattre et al. 2023, arXiv 2305.16173, Alg. 1.

    >>> import numpy as np
    >>> 4.0 <= float(gram_bound(np.diag([3.0, 4.0]), squarings=3)) < 4.0001
    True
    """
    whole_number("gram_bound: squarings", squarings, 0, 60)
    operator = _operator(weight)
    xp = namespace(operator.weight)
    magnitude = xp.max(xp.abs(operator.weight))
    unit = xp.where(magnitude > 0.0, magnitude, xp.ones_like(magnitude))  # squares stay in the range of the dtype
    operator = replace(operator, weight=operator.weight / unit)
    if isinstance(operator, Convolution) and hasattr(xp, "fft"):
        kernel = operator.weight.shape[2:]
        wider = tuple(n + k - 1 for n, k in zip(operator.image, kernel, strict=True))
        stack = _blocks(operator.weight, operator.image if operator.padding == "circular" else wider)
    else:
        stack = operator.matrix()[None, ...]
    adjoint = xp.matrix_transpose(xp.conj(stack) if xp.isdtype(stack.dtype, "complex floating") else stack)
    gram = xp.matmul(adjoint, stack) if stack.shape[1] >= stack.shape[2] else xp.matmul(stack, adjoint)
    logarithm = xp.zeros((1, 1, 1), dtype=magnitude.dtype, device=device(magnitude))
    for s in range(squarings + 1):
        magnitude = xp.abs(gram)
        largest = xp.max(magnitude, axis=(1, 2), keepdims=True)
        zero = largest <= 0.0
        largest = xp.where(zero, xp.ones_like(largest), largest)
        norm = largest * xp.sqrt(xp.sum((magnitude / largest) ** 2, axis=(1, 2), keepdims=True) + xp.astype(zero, largest.dtype))
        logarithm = logarithm + xp.log(norm) / 2.0 ** (s + 1)
        if s < squarings:
            gram = gram / norm
            gram = xp.matmul(gram, gram)
    return unit * xp.max(xp.exp(logarithm) * (1.0 - xp.astype(zero, logarithm.dtype)))


@public
def power_iteration(
    operator: Factor, like: Array, *, steps: int = 20, seed: int = 0, start: Array | None = None, rtol: float | None = None
) -> SingularTriple:
    """Return (σ, u, v) after `steps` rounds u ← Av/‖Av‖, v ← Aᵀu/‖Aᵀu‖ on the true operator; σ = uᵀAv ≤ ‖A‖₂ + rounding.

    `start` is v from an earlier call, for warm starts; persisted, one step per update follows slowly changing weights. The
    estimate approaches ‖A‖₂ from below at the rate (σ₂/σ₁)² per step: it is no bound.

    With `rtol` it stops once ‖AᵀAv − σ²v‖₂ ≤ rtol·σ², asked every 8 rounds, and `steps` is the most it takes. Then A has a
    singular value s with |s² − σ²| ≤ rtol·σ², whatever its size: the norm of the residual does not grow with the number
    of entries at equal quality, and a slow iteration cannot pass for a converged one as it can where steps are compared.
    That s is the *largest* singular value holds for almost every start, and is proved by `certify` only.

    Raises: ConvergenceError with the triple as its result where `steps` rounds do not reach rtol.
    Reference: [B19] §2.1; Gouk and others 2021, arXiv 1804.04368, for convolutions.

    >>> import numpy as np
    >>> sigma, _, _ = power_iteration(Dense(np.diag([3.0, 4.0])), np.zeros(1), steps=40)
    >>> round(float(sigma), 6)
    4.0
    """
    whole_number("power_iteration: steps", steps, 1)
    if rtol is not None and not rtol > 0.0:
        raise ValueError(f"power_iteration: expected rtol > 0, got {rtol}; leave it out for a fixed number of steps")
    xp = namespace(like)
    n = math.prod(operator.in_shape)
    if start is not None:
        require_real(start, "start")
        require_alike(start, like, "start")
        require_finite(start=start)
    if start is None:
        start = from_host(Probes(seed=seed, kind="gaussian").gaussians(1, n).reshape(1, *operator.in_shape), like)
    if tuple(start.shape) != (1, *operator.in_shape):
        raise ShapeError(
            f"power_iteration: expected start of shape {(1, *operator.in_shape)}, got {tuple(start.shape)}; try the v of an earlier call"
        )

    def length(a: Array) -> Array:
        return stack_norm(xp.reshape(a, (1, -1)))[0]

    def unit(a: Array, otherwise: Array) -> Array:
        """a/‖a‖, or the other vector where a = 0: an operator that was zero once must not end the iteration for ever."""
        norm = length(a)
        return xp.where(norm > 0.0, a / xp.where(norm > 0.0, norm, xp.ones_like(norm)), otherwise)

    somewhere = xp.sin(xp.reshape(xp.arange(1, n + 1, dtype=like.dtype, device=device(like)), start.shape))
    v = unit(start, unit(somewhere, somewhere))
    image = operator.apply(v)
    residual = math.inf
    for step in range(1, steps + 1):
        u = unit(image, xp.zeros_like(image))
        v = unit(operator.transpose(u), v)
        image = operator.apply(v)
        if rtol is not None and (step % 8 == 0 or step == steps):
            sigma = length(image)  # ‖AᵀAv − σ²v‖/σ² = ‖Aᵀu − σv‖/σ, whose numbers stay in the range of the dtype
            gap = length(operator.transpose(unit(image, image)) - sigma * v)
            residual = float(gap / xp.where(sigma > 0.0, sigma, xp.ones_like(sigma)))
            if residual <= rtol:
                break
    # σ = uᵀAv is largest for u along Av; so u is renewed once more
    u = unit(image, xp.zeros_like(image))
    triple = SingularTriple(xp.sum(u * image), u, v)
    if rtol is not None and not residual <= rtol:
        raise ConvergenceError(
            f"power_iteration: expected a relative residual of {rtol:.3g} within {steps} steps, got {residual:.3g}; try "
            "more steps, or start= from this result's v; where singular values are close a smaller rtol is out of reach",
            triple,
        )
    return triple


@public
def singular_triple(
    weight: Array | LinearLayer | Operator, *, start: Array | None = None, seed: int = 0, steps: int = 10_000
) -> SingularTriple:
    """Return the largest singular value of a matrix, an operator or a linear layer, with its singular vectors.

    By the singular value decomposition where the smaller side of the operator is at most 512, else (or with `start`) by
    power iteration to a residual of √u, where σ is accurate to about u/(1 − σ₂²/σ₁²) and the vectors to √u/(1 − σ₂²/σ₁²).
    What differentiates a normalisation: dσ = uᵀ(dA)v (Miyato and others 2018, arXiv 1802.05957). Raises: ConvergenceError.

    >>> import numpy as np
    >>> triple = singular_triple(np.diag([3.0, 4.0]))
    >>> float(triple.sigma), np.abs(triple.v).tolist()
    (4.0, [[0.0, 1.0]])
    """
    operator = _operator(weight)
    w = operator.weight
    xp = namespace(w)
    side = min(math.prod(operator.in_shape), math.prod(operator.out_shape))
    if start is None and side <= SVD_UP_TO and hasattr(xp, "linalg"):
        u, sigma, vt = xp.linalg.svd(operator.matrix(), full_matrices=False)
        return SingularTriple(sigma[0], xp.reshape(u[:, 0], (1, *operator.out_shape)), xp.reshape(vt[0, :], (1, *operator.in_shape)))
    return power_iteration(operator, w, steps=steps, seed=seed, start=start, rtol=rounding.unit_roundoff(w) ** 0.5)


def _operator(weight: Array | LinearLayer | Operator) -> Operator:
    """Return the operator of a layer, an operator as it is, a matrix as Dense. Raises ShapeError, DTypeError, NonFiniteError."""
    if isinstance(weight, LinearLayer | Dense | Convolution):
        operator = weight.operator if isinstance(weight, LinearLayer) else weight
        require_full_precision(operator.weight, "spectral norm", "weights cast to float32")
        if not all_finite(operator.weight):
            raise NonFiniteError("spectral norm: expected finite weights, got NaN or infinity; look for the step that produced them")
        return operator
    require_real(weight, "spectral norm")
    if weight.ndim != 2 or 0 in weight.shape:
        raise ShapeError(
            f"spectral norm: expected a matrix, an operator or a layer, got an array of shape {tuple(weight.shape)}; a "
            "kernel's norm depends on the image: try Conv(kernel, bias, image)"
        )
    return _operator(Dense(weight))


def _blocks(kernel: Array, grid: tuple[int, ...]) -> Array:
    """Return the symbol B(ω) of the circular convolution on a grid, (frequencies, out, in), by the Fourier transform."""
    xp = namespace(kernel)
    for axis in (2, 3):
        shape = (*kernel.shape[:axis], grid[axis - 2] - kernel.shape[axis], *kernel.shape[axis + 1 :])
        kernel = xp.concat([kernel, xp.zeros(shape, dtype=kernel.dtype, device=device(kernel))], axis=axis)
    wide = xp.astype(kernel, xp.complex64 if kernel.dtype == xp.float32 else xp.complex128)
    blocks = xp.permute_dims(xp.fft.fftn(wide, axes=(2, 3)), (2, 3, 0, 1))
    return xp.reshape(blocks, (math.prod(grid), *kernel.shape[:2]))


SVD_UP_TO = 512
"""`singular_triple` decomposes operators with a side up to this, and iterates on larger ones."""
