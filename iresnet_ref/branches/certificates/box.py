"""Lip(g) on a box by branch and bound: boxes are halved until the largest bound is close to a ‖J‖ that was met.

[lower, upper] is a union of closed boxes, each with a proved constant (`enclosure`). A segment from x to x′ passes through finitely many of
them, so ‖Δg‖ ≤ Σ c_k‖Δx_k‖ ≤ max c_k ‖Δx‖. The boxes of the largest bounds are halved first, along the side that weighs most; a budget of
boxes always ends the search, and what is proved then holds. Activations whose slopes have both signs, such as sine, leave quadratic
constraints nothing to gain on all of ℝᵈ: here they do not matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from iresnet_ref.arrays import Array, HostArray, to_host
from iresnet_ref.arrays.validation import require_alike, require_real
from iresnet_ref.branches.certificate import Certificate
from iresnet_ref.branches.certificates.enclosure import Enclosure
from iresnet_ref.branches.certificates.network import UnreadableError
from iresnet_ref.errors import NonFiniteError, ShapeError
from iresnet_ref.layers.layer import Layer
from iresnet_ref.norms.host_arithmetic import require_gradual_underflow
from iresnet_ref.rounding import FLOAT64_ROUNDOFF

CELLS, NARROW = 2**17, 3
"""Boxes that are looked at in up to so many dimensions; in more of them halving gains little, and it is one."""
_TOGETHER, _MET = 1024, 32
_FINEST = 2.0**-30
"""Sides of this part of the whole box are halved no further: where many kinks meet in a point, as those of ReLU do at 0, none helps."""


@dataclass(frozen=True, eq=False)
class BoxCertificate(Certificate):
    """‖g(x) − g(x′)‖ ≤ `bound`·‖x − x′‖ for all x, x′ in [`lower`, `upper`]: outside of the box nothing is said.

    `met` is the largest ‖J‖ that was computed at a point of the box off the kinks, so that the least constant of a box with an interior
    lies between the two, up to the rounding of `met`; `cells` boxes were looked at. It belongs to the layers of one branch, by identity.
    Shapes: `lower`, `upper` (*event), float64.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((2, 16, 2), activation="sine", lipschitz=0.9))
    >>> found = ir.certify(F, within=(-np.ones(2), np.ones(2)))
    >>> found.proved, found.met <= found.bound <= 1.05 * found.met
    (True, True)
    """

    lower: HostArray
    upper: HostArray
    met: float
    cells: int
    layers: tuple[Layer, ...] = field(repr=False)
    norm: float = 2.0

    def contains(self, x: HostArray, radius: HostArray) -> HostArray:
        """Return, per row, whether the ball of this radius around x (rows, *event) lies in the box (‖·‖_∞ ≤ ‖·‖_p)."""
        rows = np.asarray(x, dtype=np.float64).reshape(len(x), -1)
        r = np.asarray(radius, dtype=np.float64).reshape(-1, 1)
        r = r * (1.0 + 4.0 * FLOAT64_ROUNDOFF) + 4.0 * FLOAT64_ROUNDOFF * np.abs(rows)  # if the host has rounded them
        above, below = np.nextafter(rows + r, math.inf), np.nextafter(rows - r, -math.inf)
        return np.asarray(((below >= self.lower.reshape(-1)) & (above <= self.upper.reshape(-1))).all(axis=1))


def box_certificate(
    layers: Sequence[Layer], event: tuple[int, ...], norm: float, known: Certificate, box: tuple[HostArray, HostArray],
    slack: float, cells: int,
) -> BoxCertificate:  # fmt: skip
    """Return the certificate on a box (lower, upper) of shape (*event), no worse than the one that is `known` to hold everywhere."""
    require_gradual_underflow()
    lower, upper = (np.array(side, dtype=np.float64) for side in box)

    def result(bound: float, reason: str, met: float = 0.0, used: int = 0) -> BoxCertificate:
        return BoxCertificate(bound, bound < math.inf, reason, lower, upper, met, used, tuple(layers), norm)

    try:
        enclosure = Enclosure(layers, event, norm)
    except UnreadableError as obstacle:
        return result(known.bound, f"{known.reason}; nothing more on a box: {obstacle}")
    bound, met, used = _halved(enclosure, lower.reshape(-1), upper.reshape(-1), known.bound, slack, cells)
    if not bound < known.bound:
        return result(known.bound, f"{known.reason}; {used} boxes prove no less", met, used)
    gap = f"{100.0 * (bound / met - 1.0):.2g} % above the largest ‖J‖ met, {met:.6g}" if met > 0.0 else "and no ‖J‖ above 0 was met"
    why = "one evaluation" if cells == 1 else "the budget is spent" if used + 2 > cells else "no halving helps where kinks meet"
    ended = "" if bound <= (1.0 + slack) * met else f": {why}"
    return result(bound, f"slopes on {used} boxes, {gap}{ended}; everywhere {known.bound:.6g}", met, used)


def _halved(enclosure: Enclosure, lower: HostArray, upper: HostArray, known: float, slack: float, cells: int) -> tuple[float, float, int]:
    """Return (bound, ‖J‖ met, boxes looked at)."""
    low, high, weight = lower[None], upper[None], enclosure.weights()
    bounds = np.minimum(enclosure.over(low, high), known)
    met = _met(enclosure, low, high)
    settled, used = 0.0, 1
    while True:
        coarse = (high - low > _FINEST * (upper - lower)).any(axis=1)
        settled = max(settled, float(bounds[~coarse].max(initial=0.0)))
        open_ = coarse & (bounds > max((1.0 + slack) * met, settled))
        settled = max(settled, float(bounds[~open_].max(initial=0.0)))
        low, high, bounds = low[open_], high[open_], bounds[open_]
        count = min(_TOGETHER, max(1, enclosure.together // 2), (cells - used) // 2, len(bounds))
        if count < 1:
            return max(settled, float(bounds.max(initial=0.0))), met, used
        worst = np.argpartition(-bounds, count - 1)[:count]
        left, right, above = low[worst], high[worst], np.tile(bounds[worst], 2)
        rows, side = np.arange(count), np.argmax((right - left) * weight, axis=1)
        middle = 0.5 * left[rows, side] + 0.5 * right[rows, side]
        first, second = right.copy(), left.copy()
        first[rows, side] = second[rows, side] = np.clip(middle, left[rows, side], right[rows, side])
        left, right = np.concatenate([left, second]), np.concatenate([first, right])
        found, used = np.minimum(enclosure.over(left, right), above), used + 2 * count
        best = np.argpartition(-found, min(_MET, len(found)) - 1)[:_MET]
        met = max(met, _met(enclosure, left[best], right[best]))
        rest = np.ones(len(bounds), dtype=bool)
        rest[worst] = False
        low, high = np.concatenate([low[rest], left]), np.concatenate([high[rest], right])
        bounds = np.concatenate([bounds[rest], found])


def _met(enclosure: Enclosure, low: HostArray, high: HostArray) -> float:
    """Return the largest ‖J‖ in the middles of boxes."""
    found = enclosure.at(np.clip(0.5 * low + 0.5 * high, low, high))
    return float(np.where(np.isfinite(found), found, 0.0).max())


def require_box(within: tuple[Array, Array], like: Array, event: tuple[int, ...]) -> tuple[HostArray, HostArray]:
    """Return (lower, upper) on the host. Raises ShapeError, DTypeError, NonFiniteError, ValueError for lower > upper."""
    for name, side in zip(("within[0]", "within[1]"), within, strict=True):
        require_real(side, name)
        require_alike(side, like, name)
        if tuple(side.shape) != event:
            raise ShapeError(f"{name}: expected the shape {event} of an event, got {tuple(side.shape)}; try a number for each entry")
    lower, upper = (np.asarray(to_host(side), dtype=np.float64) for side in within)
    if not (np.isfinite(lower).all() and np.isfinite(upper).all()):
        raise NonFiniteError(
            "within: expected a bounded box, got NaN or infinity; try finite sides, or certify without within= for what holds everywhere"
        )
    if (lower > upper).any():
        place = tuple(int(i) for i in np.argwhere(lower > upper)[0])
        raise ValueError(f"within: expected lower ≤ upper, got {lower[place]:g} > {upper[place]:g} at {place}; try (lower, upper)")
    return lower, upper
