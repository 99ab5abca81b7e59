"""Injectivity: no two distinct inputs have the same image. A search that needs no inverse and no claim.

A continuous injective map of a connected domain cannot change the sign of det J (invariance of domain). So: look for a
sign of det J that differs between two points, certain on both (smallest singular value above the oracle's error), by
lines between inputs and by descent of the smallest singular value; bisect to the fold det J = 0, step off it to both
sides along its null vector, and solve F(b) = F(a) for b ≠ a by damped Newton. Only such a *pair*, far apart and equal
in the image to rounding, refutes: a sign change alone may belong to a bijection that jumps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared import singular_products as products
from iresnet_verify.catalogue.shared import stretch_search as search
from iresnet_verify.catalogue.shared.map_errors import Domain, distance, norms, refreshed, size
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.measurements import maps as measures
from iresnet_verify.oracle import singular_values as singular

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray

APART = 1e-2
"""Two inputs are distinct beyond doubt where ‖a − b‖ ≥ APART·max(1, ‖a‖)."""

LINE = np.linspace(-0.5, 1.5, 5)
"""Places on the line through two inputs at which a contraction is looked at."""

NEWTON = 30
"""Steps of damped Newton from one side of a fold to the other."""


@dataclass(frozen=True)
class Signed:
    """At every row: sign(det J)·σ_min, 0 where the sign is not certain; and the right singular vector of σ_min."""

    value: np.ndarray[Any, np.dtype[np.float64]]
    null: HostArray
    left: HostArray


def signed(ctx: Context, x: HostArray) -> Signed:
    """Return the signed smallest singular value at every row of x."""
    chunk = max(1, search.WORK // max(ctx.d, 1))
    value, null, left = np.zeros(len(x)), np.zeros((len(x), ctx.d)), np.zeros((len(x), ctx.d))
    for start in range(0, len(x), chunk):
        oracle = ctx.jacobian(x[start : start + chunk])
        good = np.flatnonzero(np.isfinite(oracle.matrix).all(axis=(1, 2)))
        if len(good):
            sigma, low, left[start + good], null[start + good] = singular.smallest(oracle.matrix[good])
            sign = np.linalg.slogdet(oracle.matrix[good])[0]
            value[start + good] = np.where(low > oracle.error[good], sign * sigma, 0.0)
    return Signed(value, null, left)


def opposite(ctx: Context, domain: Domain) -> tuple[HostArray, HostArray, int, int, float]:
    """Return (x₊, x₋) with det J > 0 and < 0 (both empty if not found), the points tried, those of certain
    sign, and the smallest certain σ_min."""
    affordable = max(4, 2 * search.WORK // max(ctx.d, 1))
    ends = ctx.inputs(2 * max(1, min(ctx.budget.restarts, affordable // 4)))
    spread = np.linspace(-1.0, 2.0, 13) if domain.everywhere else np.linspace(0.0, 1.0, 9)
    column = (-1, *(1,) * (ends.ndim - 1))
    half = len(ends) // 2
    lines = [(p + t * (q - p)) for p, q in zip(ends[:half], ends[half:], strict=True) for t in spread]
    x = domain.clip(np.stack(lines).astype(ends.dtype)[:affordable])
    found = signed(ctx, x)
    tried, certain = len(x), int((found.value != 0.0).sum())
    smallest = float(np.abs(found.value[found.value != 0.0]).min(initial=np.inf))
    steps = max(3, min(ctx.budget.steps // 2, 30 * 32 // max(ctx.d, 1)))
    home = 1.0 if (found.value > 0).sum() * 2 >= (found.value != 0).sum() else -1.0
    order = np.argsort(found.value * home)[: max(2, min(ctx.budget.restarts, affordable // 16))]
    lead, score, null, left = x[order], (found.value * home)[order], found.null[order], found.left[order]
    step = 0.3 * size(lead)
    for _ in range(steps):
        if (score < 0).any():
            break
        moves = [ctx.rng.standard_normal(lead.shape) / np.sqrt(max(ctx.d, 1))]
        slope = search.steepest(ctx, lead, left, null)
        if slope is not None:
            moves.append(-slope / np.maximum(norms(slope), 1e-300).reshape(column))
        trial = np.concatenate([domain.clip((lead + step.reshape(column) * m).astype(lead.dtype)) for m in moves])
        seen = signed(ctx, trial)
        tried, certain = tried + len(trial), certain + int((seen.value != 0.0).sum())
        table = (seen.value * home).reshape(len(moves), len(lead))
        pick = table.argmin(axis=0) * len(lead) + np.arange(len(lead))
        better = table.min(axis=0) < score
        lead[better], score[better] = trial[pick[better]], table.min(axis=0)[better]
        null[better], left[better] = seen.null[pick[better]], seen.left[pick[better]]
        step = np.where(better, 1.5 * step, 0.6 * step)
    smallest = min(smallest, float(np.abs(score[score != 0.0]).min(initial=np.inf)))
    other = lead[score < 0]
    same = x[found.value * home > 0]
    if not len(other) or not len(same):
        return x[:0], x[:0], tried, certain, smallest
    return same, other, tried, certain, smallest


def fold(ctx: Context, a: HostArray, b: HostArray) -> tuple[HostArray, HostArray]:
    """Bisect the segment between det J > 0 and det J < 0; return a point of the fold (1, *event) and its null vector."""
    sign = np.sign(signed(ctx, a).value[0])
    for _ in range(40):
        middle = ((a.astype(np.float64) + b) / 2).astype(a.dtype)
        here = signed(ctx, middle)
        if here.value[0] == 0.0 or distance(a, b)[0] <= 4 * ctx.u * size(a)[0]:
            return middle, here.null[0]
        a, b = (middle, b) if np.sign(here.value[0]) == sign else (a, middle)
    return middle, here.null[0]


def other_preimage(ctx: Context, domain: Domain, a: HostArray, guess: HostArray) -> HostArray | None:
    """Solve F(b) = F(a) from b = guess by damped Newton; return b if it is apart from a and equal in the image."""
    target = ctx.f.forward(a)
    b, gap = guess, distance(ctx.f.forward(guess), target)[0]
    for _ in range(NEWTON):
        tolerance = float((ctx.forward_tolerance(a, target) + ctx.forward_tolerance(b, target))[0])
        if distance(a, b)[0] < APART * size(a)[0] or not domain.contains(b)[0]:
            return None
        if gap <= tolerance:
            return b
        J = ctx.jacobian(b).matrix[0]
        right = (ctx.f.forward(b).astype(np.float64) - target).reshape(-1)
        move = np.linalg.lstsq(J, right, rcond=None)[0].reshape(b.shape)
        for damping in (1.0, 0.5, 0.25, 0.1, 0.02):
            trial = (b - damping * move).astype(b.dtype)
            new = distance(ctx.f.forward(trial), target)[0]
            if new < gap:
                b, gap = trial, new
                break
        else:
            return None
    return None


def _contraction(ctx: Context, domain: Domain) -> Outcome | None:
    """Above d = LARGE: det J > 0 on lines between inputs and where an ascent of ‖J_g‖ ends, by ‖J_g‖ < 1; else None."""
    if not products.available(ctx):
        return None
    ends = ctx.inputs(2 * max(1, ctx.budget.restarts // 2))
    half = len(ends) // 2
    x = domain.clip(np.stack([p + t * (q - p) for p, q in zip(ends[:half], ends[half:], strict=True) for t in LINE]).astype(ends.dtype))
    if not (products.contraction(ctx, x[:1]) < 1.0).all():
        return None
    worst = search.worst_stretch(ctx, domain, restarts=ctx.budget.restarts, steps=ctx.budget.steps, far=True)
    bound = products.contraction(ctx, x)
    if not (bound < 1.0).all() or worst.value >= 1.0:
        return None
    bound = np.append(bound, products.contraction(ctx, worst.x, products.MANY_ROUNDS))
    if not (bound < 1.0).all():
        return None
    largest = float(bound.max())
    return Outcome(
        "passed", f"Not refuted: ‖J_g‖ ≤ {largest:.3g} < 1 at {len(bound)} points, so that det J > 0 there; one is where an ascent of "
        f"{worst.evaluations} evaluations found the largest, {worst.value:.3g}.",
        {"compared": len(bound), "jacobians": 0, "smallest_singular_value": 1.0 - largest, "largest_norm": worst.value,
         "sign_change": False},
        "‖J_g‖ < 1 by random vectors: each bound holds with probability 1 − 1e-5", products.SOURCE)


@check(
    "inverse.is-injective",
    claim="Distinct inputs have distinct images: F(a) = F(b) only for a = b.",
    reference="Behrmann et al. 2019 (arXiv 1811.00995), Theorem 1; invariance of domain", kind="search", modes=False,
    cost="searches of up to 16 points × 30 steps, one Jacobian each; above d = 30 fewer steps, above d = 128 products with J first",
    catches="a residual branch that is not contractive, a non-monotone element-wise map",
)
def is_injective(ctx: Context) -> Outcome:
    """Opposite signs of det J, the fold between them, and the pair of inputs on both sides of it with one image.

    Above d = 128 det J > 0 follows from ‖J_g‖ < 1, and an ascent of ‖J_g‖ looks for where it is not; Jacobians are asked for only then.
    """
    refreshed(ctx)
    domain = Domain.of(ctx)
    contraction = _contraction(ctx, domain)
    if contraction is not None:
        return contraction
    same, other, tried, certain, smallest = opposite(ctx, domain)
    evidence: dict[str, Any] = {"compared": certain, "jacobians": tried, "smallest_singular_value": smallest,
                                "sign_change": bool(len(other))}
    text = f"equal to the rounding of two evaluations at a distance of at least {APART}·max(1, ‖a‖)"
    if not certain:
        return Outcome("skipped", f"the Jacobian is singular to the oracle's error at all of {tried} points: no sign of det J is certain "
                       "[see inverse.separates-inputs]", evidence, text, "sign of det J by the Jacobian oracle")
    if not len(other):
        return Outcome("passed", f"Not refuted: {certain} of {tried} Jacobians have a certain sign of det J, all the same, smallest "
                       f"singular value {smallest:.3g}.", evidence, text, "sign of det J by the Jacobian oracle")
    for i in range(min(4, len(other))):
        near = int(distance(same, np.broadcast_to(other[i], same.shape)).argmin())
        point, null = fold(ctx, same[near : near + 1], other[i : i + 1])
        direction = null.reshape(point.shape) / max(float(np.linalg.norm(null)), 1e-300)
        for length in (0.03, 0.1, 0.3, 1.0):
            for side in (1.0, -1.0):
                a, guess = (
                    domain.clip((point + s * side * length * size(point)[0] * direction).astype(point.dtype))
                    for s in (1.0, -1.0)
                )
                b = other_preimage(ctx, domain, a, guess)
                if b is None:
                    continue
                rounding = float((ctx.forward_tolerance(a, ctx.f.forward(a)) + ctx.forward_tolerance(
                    b, ctx.f.forward(b)))[0])
                found = {**evidence, "distance": float(distance(a, b)[0]),
                         "distance_of_images": float(distance(ctx.f.forward(a), ctx.f.forward(b))[0])}
                return Outcome(
                    "failed", f"Two inputs {found['distance']:.3g} apart have images {found['distance_of_images']:.1g} apart "
                    f"(rounding {rounding:.1g}): F is not injective; make Lip(g) < 1.", found, text, "F at both points",
                    Counterexample({"a": a, "b": b, "rounding": rounding}, measures.same_image),
                )
    return Outcome("inconclusive", "det J changes sign, which no continuous injective map does, but no two inputs with one "
                   "image were found; the map may jump. Try a larger budget.", evidence, text,
                   "sign of det J by the Jacobian oracle")
