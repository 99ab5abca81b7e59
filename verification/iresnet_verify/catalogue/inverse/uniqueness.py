"""Uniqueness: F(x) = y has one solution, whatever point a search for another one starts from.

`injectivity` looks for a change of the sign of det J. A map may keep that sign and still meet a point twice: the complex
exponential has det J > 0 everywhere. So F(b) = F(a) is solved here by damped Newton from many starting points, none of
them near a. A solution refutes only where it is isolated as a is: with J(a) and J(b) far from singular, η/σ_min at both
ends is small compared with their distance, so that rounding cannot have made two images equal which are not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared import stretch_search as search
from iresnet_verify.catalogue.shared.map_errors import Domain, Rows, distance, refreshed, size
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.measurements import maps as measures
from iresnet_verify.oracle import singular_values as singular

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray

APART = 1e-2
"""Two solutions are distinct beyond doubt where ‖a − b‖ ≥ APART·max(1, ‖a‖)."""
ISOLATED = 1e-3
"""η/σ_min at both ends is at most this part of their distance."""
STEPS = 12
SLIDES = 1000
"""Steps without a Jacobian, at most, above d = LARGE."""
DAMPING = (1.0, 0.5, 0.2, 0.05)


@check(
    "inverse.unique-preimage",
    claim="F(x) = y has one solution: Newton's method from other starting points finds none but x.",
    reference="Behrmann et al. 2019 (arXiv 1811.00995), Theorem 1: one fixed point, from every starting point (Banach)",
    kind="search", modes=False, cost="4 (quick) to 32 starts × 12 Jacobians; above d = 128 up to 1,000 evaluations first",
    catches="maps that are invertible locally only (rotations and exponentials that wrap around), two fixed points of one y",
)
def unique_preimage(ctx: Context) -> Outcome:
    """Pairs (a, start) from the domain; every start that converges to F(a) away from a is a second preimage."""
    refreshed(ctx)
    domain = Domain.of(ctx)
    count = max(1, min(ctx.budget.restarts, search.WORK // (4 * max(ctx.d, 1))))
    a, b = ctx.inputs(count), np.roll(ctx.inputs(count), 1, axis=0)
    target = ctx.f.forward(a)
    b, gap, evaluations = _newton(ctx, domain, b, target)
    noise = ctx.forward_tolerance(a, target) + ctx.forward_tolerance(b, target)
    apart = distance(a, b)
    solved = (gap <= noise) & domain.contains(b)
    second = solved & (apart >= APART * size(a))
    evidence: dict[str, Any] = {"starts": count, "evaluations": evaluations, "solved": int(solved.sum()),
                                "compared": int((solved & ~second).sum()), "unresolved": 0}
    text = (f"equal to the rounding of two evaluations, at a distance of at least {APART}·max(1, ‖a‖), with "
            f"η/σ_min ≤ {ISOLATED}·‖a − b‖ at both ends")
    for i in np.flatnonzero(second):
        pair = np.stack([a[i], b[i]])
        oracle = ctx.jacobian(pair)
        smallest = singular.smallest(oracle.matrix)[1] - oracle.error
        if not (smallest > 0).all() or noise[i] / smallest.min() > ISOLATED * apart[i]:
            evidence["unresolved"] += 1
            continue
        found = {**evidence, "distance": float(apart[i]), "distance_of_images": float(gap[i]),
                 "smallest_singular_value": float(smallest.min())}
        return Outcome(
            "failed", f"a second preimage of F(a) lies {apart[i]:.3g} from a: the images are {gap[i]:.1g} apart (rounding "
            f"{noise[i]:.1g}), so F is not injective; make Lip(g) < 1, or declare the inputs= where it is", found, text,
            "F at both points", Counterexample({"a": a[i : i + 1], "b": b[i : i + 1], "rounding": float(noise[i])},
                                               measures.same_image))
    at_x = evidence["compared"]
    elsewhere = (f"; {evidence['unresolved']} arrived elsewhere, where the Jacobian is singular to rounding [see inverse.separates-inputs]"
                 if evidence["unresolved"] else "")
    if not at_x:
        return Outcome("skipped", f"none of {count} starting points arrived at x{elsewhere}", evidence, text, "F at both points")
    return Outcome("passed", f"Not refuted: {count} starting points, {at_x} arrived at x{elsewhere}.", evidence, text, "F at both points")


def _slid(ctx: Context, domain: Domain, b: HostArray, value: HostArray, gap: Rows, target: HostArray) -> int:
    """Take steps b ← b − (F(b) − target), which need no Jacobian, in place and as long as each shrinks the gap; return the evaluations."""
    rows, evaluations = np.arange(len(b)), 0
    for _ in range(SLIDES):
        trial = domain.clip((b[rows] - (value[rows].astype(np.float64) - target[rows])).astype(b.dtype))
        image = ctx.f.forward(trial)
        evaluations += len(rows)
        new = distance(image, target[rows])
        better = new < 0.99 * gap[rows]
        kept = rows[better]
        b[kept], value[kept], gap[kept] = trial[better], image[better], new[better]
        rows = kept[gap[kept] > 16.0 * ctx.u * size(target[kept])]
        if not len(rows):
            break
    return evaluations


def _newton(ctx: Context, domain: Domain, b: HostArray, target: HostArray) -> tuple[HostArray, Rows, int]:
    """Damped Newton for F(b) = target in all rows at once; return (b, ‖F(b) − target‖, evaluations)."""
    steps = max(4, min(STEPS, 40 * 32 // max(ctx.d, 1)))
    value = ctx.f.forward(b)
    gap, evaluations = distance(value, target), len(b)
    active, floor = np.arange(len(b)), 16.0 * ctx.u * size(target)
    if ctx.d > singular.LARGE:
        evaluations += _slid(ctx, domain, b, value, gap, target)
        floor = np.maximum(floor, 0.5 * ctx.forward_tolerance(b, value))
    for _ in range(steps):
        active = active[gap[active] > floor[active]]
        if not len(active):
            break
        J = ctx.jacobian(b[active]).matrix
        usable = np.isfinite(J).all(axis=(1, 2))
        active, J = active[usable], J[usable]
        if not len(active):
            break
        right = (value[active].astype(np.float64) - target[active]).reshape(len(active), -1)
        move = np.stack([np.linalg.lstsq(m, r, rcond=None)[0] for m, r in zip(J, right, strict=True)]).reshape(b[active].shape)
        moved = np.zeros(len(active), dtype=bool)
        for damping in DAMPING:
            left = np.flatnonzero(~moved)
            if not len(left):
                break
            rows = active[left]
            trial = domain.clip((b[rows] - damping * move[left]).astype(b.dtype))
            image = ctx.f.forward(trial)
            evaluations += len(rows)
            better = distance(image, target[rows]) < gap[rows]
            b[rows[better]], value[rows[better]] = trial[better], image[better]
            gap[rows[better]] = distance(image[better], target[rows[better]])
            moved[left[better]] = True
        active = active[moved]
    return b, gap, evaluations
