"""What the checks of the map and of its inverse share: errors per row, their rounding floors, and the domain.

*Rounding floor of an inverse.* Write F̂ for the computed F, ‖F̂(x) − F(x)‖ ≤ η(x). The best answer to y = F̂(x) is
F⁻¹(y), at distance ‖J⁻¹‖η from x to first order, J = dF/dx; a solver that only sees F̂ adds as much again. A fixed point
iteration x ← y − ĝ(x) cannot get below η/(1 − ‖J − I‖), which is never less than ‖J⁻¹‖η (Neumann). So with

    κ(x) = max(‖J⁻¹‖₂, 1/(1 − ‖J − I‖₂) where ‖J − I‖₂ < 1),    floor(x) = 4·κ·η(x):

two evaluations, and a factor two for the change of J and η between x and the answer. κ is taken at both ends and costs
a Jacobian, so it is computed only for the rows that a verdict hangs on.

*Domain.* A Lipschitz claim without `inputs` is a promise on all of ℝᵈ. Else promises hold where the inputs lie (the
subject's own, or the default ones), and searches stay inside the box and the ball that a large sample of them spans.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.oracle import singular_values as singular

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.oracle.jacobian import Jacobian
    from iresnet_verify.subject.subject import HostArray

Rows = np.ndarray[Any, np.dtype[np.float64]]
"""One float64 per row."""

REPORT = re.compile(r"converg|iteration|tolerance|residual|accura|invert", re.IGNORECASE)
"""Words by which a warning admits that an inverse has not arrived; other warnings are not about that."""


def norms(a: HostArray) -> Rows:
    """Return ‖row‖₂ in float64, (batch,); NaN stays NaN."""
    flat = np.asarray(a, dtype=np.float64).reshape(len(a), int(np.prod(a.shape[1:], dtype=int)))
    size: Rows = np.sqrt(np.sum(flat * flat, axis=1))
    return size


def distance(a: HostArray, b: HostArray) -> Rows:
    """Return ‖a_i − b_i‖₂ in float64 (the subtraction too), infinite where it is not finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        gap = norms(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64))
    return np.where(np.isfinite(gap), gap, np.inf)


def size(x: HostArray) -> Rows:
    """Return max(1, ‖x_i‖₂), the unit in which an inverse tolerance is promised."""
    return np.maximum(1.0, norms(x))


def promised(ctx: Context) -> tuple[float, str]:
    """Return the promised inverse tolerance and where it comes from: the subject, else u^(1/3)."""
    if ctx.subject.inverse_tolerance is not None:
        return float(ctx.subject.inverse_tolerance), "inverse_tolerance as the subject states it"
    return float(ctx.u ** (1.0 / 3.0)), "u^(1/3), as the subject states no inverse_tolerance"


def refreshed(ctx: Context) -> None:
    """Call the subject's `refresh` where its claims hold only after it."""
    if ctx.subject.lipschitz_holds == "after-refresh" and ctx.subject.refresh is not None:
        ctx.subject.refresh()


def residual(ctx: Context, x: HostArray, seed: int | None = None) -> HostArray:
    """Return g(x) in float64: the subject's `residual`, else F(x) − x."""
    if ctx.f.residual is not None:
        return np.asarray(ctx.f.residual(x, seed=seed), dtype=np.float64)
    return np.asarray(ctx.f.forward(x, seed=seed), dtype=np.float64) - np.asarray(x, dtype=np.float64)


def sensitivity(ctx: Context, x: HostArray, jacobian: Jacobian | None = None) -> Rows:
    """Return κ(x) of the module docstring, infinite where the Jacobian oracle cannot tell J from a singular matrix."""
    oracle = ctx.jacobian(x) if jacobian is None else jacobian
    answer = np.full(len(x), np.inf)
    for i, (matrix, error) in enumerate(zip(oracle.matrix, oracle.error, strict=True)):
        if np.isfinite(matrix).all() and np.isfinite(error):
            smallest = float(singular.smallest(matrix[None])[1][0]) - error
            contraction = float(singular.norm_bound(matrix[None] - np.eye(len(matrix)))[0]) + error
            inverse = 1.0 / smallest if smallest > 0.0 else np.inf
            answer[i] = max(inverse, 1.0 / (1.0 - contraction) if contraction < 1.0 else 0.0)
    return answer


def gain(jacobian: Jacobian) -> Rows:
    """Return max(1, 2‖J‖₂): how far an error in x may move F(x), with a factor two for the change of J."""
    top = np.array([singular.norm_bound(m[None])[0] if np.isfinite(m).all() else np.inf for m in jacobian.matrix])
    answer: Rows = np.maximum(1.0, 2.0 * (top + jacobian.error))
    return answer


def floors(ctx: Context, x: HostArray, y: HostArray, back: HostArray) -> Rows:
    """Return floor(x) = 4·κ·η, κ the larger of its values at x and at the answer `back` (where that is finite)."""
    kappa = sensitivity(ctx, x)
    usable = np.isfinite(back.reshape(len(back), -1)).all(axis=1)
    if usable.any():
        kappa[usable] = np.maximum(kappa[usable], sensitivity(ctx, back[usable]))
    with np.errstate(invalid="ignore"):
        return np.asarray(4.0 * kappa * ctx.forward_tolerance(x, y))


GROSS = 1e3
"""An image that is off by so many times its bound, the Jacobian left out, is wrong whatever the Jacobian."""


def gross_errors(ctx: Context, off: Rows, bound: Rows, y: HostArray) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return where an image is so far off that no Jacobian needs to be asked: above d = LARGE, by GROSS bounds and √u·(1 + ‖y‖).

    An inverse that is as good as rounding lets it be answers with a point whose image is y to a few η, however ill-conditioned F is.
    """
    if ctx.d <= singular.LARGE:
        return np.zeros(len(off), dtype=bool)
    return np.asarray(np.isfinite(off) & (off > GROSS * bound) & (off > np.sqrt(ctx.u) * (1.0 + norms(y))))


def refuted(ctx: Context, x: HostArray, y: HostArray, back: HostArray, bound: Rows) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return where `back` is no preimage of y = F(x) whatever J: `gross_errors`, 100 bounds off, of at most 1,000 times its size."""
    none = np.zeros(len(x), dtype=bool)
    if ctx.d <= singular.LARGE or not len(x):
        return none
    usable = np.isfinite(back.reshape(len(back), -1)).all(axis=1) & (norms(back) <= 1e3 * size(x))
    usable &= distance(back, x) > 100.0 * bound
    if not usable.any():
        return none
    x, y, back = x[usable], y[usable], back[usable]
    again = ctx.f.forward(back)
    noise = ctx.forward_tolerance(x, y) + ctx.forward_tolerance(back, again)
    none[usable] = gross_errors(ctx, distance(again, y), noise, y)
    return none


def component_rounding(ctx: Context, x: HostArray, y: HostArray) -> HostArray:
    """Return, for each component of F(x), how far rounding may move it.

    8·max over 8 inputs x(1 + su), s = ±1 at random, of |F(x(1 + su)) − F(x)|, plus 4u|F(x)|: no evaluation of F tells images that
    are closer than those of inputs that differ by one rounding.
    """
    rng = np.random.default_rng(0)
    moved: HostArray = np.zeros(y.shape)
    for _ in range(8):
        signs = rng.choice([-1.0, 1.0], size=x.shape)
        near = (x.astype(np.float64) * (1.0 + 2.0 * ctx.u * signs)).astype(x.dtype)
        moved = np.maximum(moved, np.abs(ctx.f.forward(near).astype(np.float64) - y))
    return np.asarray(8.0 * moved + 4.0 * ctx.u * np.abs(y.astype(np.float64)))


@dataclass(frozen=True)
class Domain:
    """Where the subject's promises hold, as far as a search may use it; `radius` None: everywhere."""

    centre: HostArray
    low: HostArray
    high: HostArray
    radius: float | None

    @classmethod
    def of(cls, ctx: Context) -> Domain:
        """Everything, or the box ∩ ball spanned by a sample of the inputs."""
        if ctx.subject.inputs is None and ctx.subject.lipschitz is not None:
            zero = np.zeros(ctx.subject.event_shape)
            return cls(zero, zero, zero, None)
        sample = np.asarray(ctx.inputs(min(1024, max(32, 2**18 // max(ctx.d, 1)))), dtype=np.float64)
        centre = sample.mean(axis=0)
        return cls(centre, sample.min(axis=0), sample.max(axis=0), float(norms(sample - centre).max()))

    @property
    def everywhere(self) -> bool:
        """Whether the promises hold on all of ℝᵈ."""
        return self.radius is None

    def clip(self, x: HostArray) -> HostArray:
        """Return x moved into the box, then towards the centre into the ball; dtype kept."""
        if self.radius is None:
            return x
        boxed = np.clip(np.asarray(x, dtype=np.float64), self.low, self.high)
        offset = boxed - self.centre
        shrink = np.minimum(1.0, self.radius / np.maximum(norms(offset), np.finfo(np.float64).tiny))
        inside = self.centre + offset * shrink.reshape(-1, *(1,) * (x.ndim - 1))
        return np.clip(inside, self.low, self.high).astype(x.dtype)

    def contains(self, x: HostArray) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return which rows lie inside, to a rounding of the sample's own radius."""
        if self.radius is None:
            return np.ones(len(x), dtype=bool)
        slack = 8 * float(np.finfo(x.dtype).eps) * (1.0 + self.radius)
        return distance(x, self.clip(x)) <= slack


def onto(ctx: Context, domain: Domain) -> bool:
    """Whether every y of ℝᵈ has a preimage among the promised inputs: Lip(g) < 1 claimed, on all of ℝᵈ."""
    return domain.everywhere and ctx.subject.lipschitz is not None and ctx.subject.lipschitz < 1.0


def attempt(ctx: Context, y: HostArray) -> tuple[HostArray, np.ndarray[Any, np.dtype[np.bool_]], str]:
    """Invert y; return (x, which rows were reported as not solved, how).

    A report is an exception, a warning that speaks of convergence, or a row that is not finite. After an exception or
    a warning every row is asked for by itself, so that one bad row does not decide for the others.
    """
    assert ctx.f.inverse is not None

    def one(rows: HostArray) -> tuple[HostArray | None, str]:
        assert ctx.f.inverse is not None
        try:
            x = ctx.f.inverse(rows)
        except Exception as error:  # any exception of the subject's own is a report, whatever its type
            return None, type(error).__name__
        reports = [text for text in ctx.caller.warning_texts if REPORT.search(text)]
        return x, f"a warning: {reports[0].splitlines()[0][:80]}" if reports else ""

    back, how = one(y)
    reported = np.zeros(len(y), dtype=bool)
    if back is None or how:
        back = np.full_like(y, np.nan)
        for i in range(len(y)):
            row, word = one(y[i : i + 1])
            reported[i] = row is None or bool(word)
            how = word or how
            if row is not None:
                back[i] = row[0]
    lost = ~np.isfinite(back.reshape(len(back), -1)).all(axis=1)
    return back, reported | lost, how or ("non-finite rows" if lost.any() else "")
