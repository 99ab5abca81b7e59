"""One proved bound on ‖A‖₂ of a convolution for every image size, with circular and with zero padding.

For unit vectors a, b the entry aᴴB(ω)b of the symbol is, up to a phase, a trigonometric polynomial of degree p = (k − 1)/2 on each axis. A
real one of degree p is at most its largest value on N > 2p equispaced points divided by cos(πp/N) (Ehlich & Zeller, *Schwankung von
Polynomen zwischen Gitterpunkten*, Math. Z. 86, 1964); a complex one likewise, by the real part of its rotation. Axis by axis,

    sup_ω ‖B(ω)‖₂ ≤ max_grid ‖B(ω)‖₂ / (cos(πp/N) cos(πq/N)).

Circular padding on any image takes the norms at some ω, and zero padding is a crop of the convolution on the whole lattice: both are at
most the supremum. What is proved on the grid is proved as in `norms.convolution`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from iresnet_ref.arrays import public, to_host
from iresnet_ref.arrays.validation import require_real
from iresnet_ref.errors import ShapeError
from iresnet_ref.norms.convolution import circle, proved_on, symbol, symbol_error
from iresnet_ref.norms.dense import largest, times_power_of_two
from iresnet_ref.norms.host_arithmetic import require_gradual_underflow
from iresnet_ref.rounding import FLOAT64_ROUNDOFF, down, unit_roundoff, up


@public
def norm_on_every_image(kernel: Any, *, points: int = 64) -> float:
    """Return a proved c with ‖A‖₂ ≤ c for the convolution with this kernel on images of every size, zero-padded or circular.

    max ‖B(ω)‖₂ over `points`² frequencies, divided by cos(πp/N)cos(πq/N), p and q the halves (k − 1)/2 of the sides.

    Shapes: `kernel` (out, in, kh, kw) with odd sides, of any namespace; weights finer than float64 are rounded first, and that is added.
    Guarantee: at most 1/(cos cos) − 1 above the supremum: .25 % for 3×3 kernels and 64 points, 1 % for 5×5, 2.3 % for 7×7; a
    certificate of one image size may be lower.
    Raises: ShapeError for even sides or fewer than 2p + 1 points; DTypeError for what is no array of reals;
    HostArithmeticError. inf where a weight is not finite.
    Reference: Ehlich & Zeller 1964; Sedghi, Gupta, Long 2019 (arXiv 1805.10408) for the symbol.

    >>> box = np.ones((1, 1, 3, 3))
    >>> 9.0 <= norm_on_every_image(box) <= 9.0 * 1.0025
    True
    """
    require_real(kernel, "kernel")
    require_gradual_underflow()
    host = np.asarray(to_host(kernel), dtype=np.float64)
    if host.ndim != 4 or host.shape[2] % 2 == 0 or host.shape[3] % 2 == 0:
        raise ShapeError(f"norm_on_every_image: expected a kernel (out, in, kh, kw) with odd sides, got {host.shape}; try 3×3")
    halves = [(k - 1) // 2 for k in host.shape[2:]]
    if points <= 2 * max(halves):
        raise ShapeError(f"norm_on_every_image: expected more than {2 * max(halves)} points for this kernel, got {points}; try 64")
    magnitude = largest(host)
    if magnitude == 0.0 or not math.isfinite(magnitude):
        return 0.0 if magnitude == 0.0 else math.inf
    exponent = math.frexp(magnitude)[1]
    scaled = np.ldexp(host, -exponent)
    on_grid = proved_on(symbol(scaled, ((points, 0), (points, 0))), symbol_error(scaled))
    cosines = [float(circle(2 * points)[0][p]) - 2.0 * FLOAT64_ROUNDOFF for p in halves]
    bound = up(on_grid / down(cosines[0] * cosines[1], 2), 2)
    if unit_roundoff(kernel) < FLOAT64_ROUNDOFF:  # the host holds rounded weights
        bound = up(bound + 2.0 * FLOAT64_ROUNDOFF * float(np.abs(scaled).sum()), 4)
    return times_power_of_two(bound, exponent)
