"""Collapse: inputs far apart that F maps to one image, to the rounding of every component.

`injectivity` needs a certain sign of det J and `uniqueness` needs isolated solutions: both decide nothing where J is singular to
the oracle's error. There a step t·v along the right singular vector v of σ_min, corrected so that F stays where it is
(Gauss–Newton, minimum-norm), leads to b with ‖b − a‖ ≈ t. If F(b) = F(a) in *every component* to F's own rounding, F does not
separate a from b in this dtype. Two facts may still explain it:

- an inverse that brings both points back (diag(1, 1e-17) has one: its small component is not zero, and moves);
- a log-det that accounts for it. With Σ' = Σ log σ_i over the k' singular values that the oracle can tell from 0 and k others, the
  claimed log-det makes those σ_null = exp((log_det − Σ')/k) on average. Where σ_null·‖b − a‖ is below the rounding of F, the
  two images must look equal (a sigmoid in its saturated range): *not resolved in this dtype*.

A map without log-det and inverse may saturate too, so a collapse at some inputs only is no failure by itself. It is one where the
flat part has an *edge*. On the way from a collapsed input to a regular one let σ_min rise above the oracle's error τ at s. A function
that saturates like exp(−r|x|) has σ_min = τ·exp(r·h) at a distance h further on; a clamp, a ReLU or a max has one of the
size of ‖J‖ there. With h = 2⁻¹² of the way, σ_min ≥ √(τ‖J‖) needs a rate of 4096·½ log(‖J‖/τ) ≈ 7·10⁴ a way: no squashing
function between inputs of the data has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared import singular_products as products
from iresnet_verify.catalogue.shared import stretch_search as search
from iresnet_verify.catalogue.shared.map_errors import (
    Domain,
    Rows,
    attempt,
    component_rounding,
    distance,
    norms,
    refreshed,
    size,
)
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.measurements import maps as measures
from iresnet_verify.oracle.singular_values import norm_bound, smallest

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.oracle.jacobian import Jacobian
    from iresnet_verify.subject.subject import HostArray

STEPS = (0.01, 0.1, 1.0)
"""Distances from a, in units of max(1, ‖a‖)."""
CORRECTIONS = 4
SHARE = 0.25
"""The least part of the subject's own inputs at which F must collapse: fewer may be the far end of a saturating function."""
FEWEST = 3
"""The least number of such inputs."""
HALVINGS = 12
"""Bisections towards the edge of a flat part: to 2⁻¹² of the way between two inputs."""
SMALLEST = 2.0**-1022
"""What stands for the rounding of images that are equal bit for bit."""


def one_image(ctx: Context, a: HostArray, b: HostArray) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return the rows where F(a) and F(b) are finite and agree in every component to the rounding at both points."""
    y, z = ctx.f.forward(a), ctx.f.forward(b)
    with np.errstate(invalid="ignore"):
        allowed = component_rounding(ctx, a, y) + component_rounding(ctx, b, z)
        close = np.abs(y.astype(np.float64) - z) <= allowed
    return np.asarray((close & np.isfinite(y) & np.isfinite(z)).reshape(len(a), -1).all(axis=1))


def told_apart(ctx: Context, a: HostArray, b: HostArray) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return the rows where the subject's inverse tells a from b: each comes back to within a quarter of their distance."""
    if ctx.f.inverse is None:
        return np.zeros(len(a), dtype=bool)
    near = distance(a, b) / 4.0
    back_a, back_b = (attempt(ctx, ctx.f.forward(p))[0] for p in (a, b))
    return (distance(back_a, a) <= near) & (distance(back_b, b) <= near)


def accounted_for(ctx: Context, a: HostArray, b: HostArray, oracle: Jacobian) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return the rows whose log-det implies images of a and b closer than F's rounding (see the module); `oracle` at a."""
    if ctx.f.log_det is None or ctx.log_det_claim[0] == "gradient-only":
        return np.zeros(len(a), dtype=bool)
    value = ctx.evaluate_log_det(a, 17)
    sigma = np.linalg.svd(oracle.matrix, compute_uv=False)
    null = sigma <= np.maximum(oracle.error, ctx.u * sigma[:, 0])[:, None]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        known = np.where(null, 0.0, np.log(sigma)).sum(axis=1)
        implied = np.exp((value - known) / np.maximum(null.sum(axis=1), 1)) * distance(a, b)
    y = ctx.f.forward(a)
    return ~(implied > 4.0 * norms(component_rounding(ctx, a, y)) + ctx.u * norms(y))


@dataclass(frozen=True)
class Collapse:
    """For each input a: the farthest b found with one image (a itself where there is none), and whether it is explained."""

    b: HostArray
    found: np.ndarray[Any, np.dtype[np.bool_]]
    resolved: np.ndarray[Any, np.dtype[np.bool_]]
    """Its inverse brings both back, or its log-det accounts for it."""
    regular: np.ndarray[Any, np.dtype[np.bool_]]
    """The Jacobian at a is certainly regular."""


def follow(ctx: Context, domain: Domain, a: HostArray, v: HostArray, step: float) -> HostArray:
    """Return b at about `step`·max(1, ‖a‖) from a along v, corrected towards F(b) = F(a)."""
    target = ctx.f.forward(a).astype(np.float64)
    length = (step * size(a)).reshape(-1, *(1,) * (a.ndim - 1))
    b = domain.clip((a + length * v).astype(a.dtype))
    for _ in range(CORRECTIONS):
        gap = (ctx.f.forward(b).astype(np.float64) - target).reshape(len(b), -1)
        if not np.isfinite(gap).all() or not gap.any():
            break
        J = ctx.jacobian(b).matrix
        if not np.isfinite(J).all():
            break
        move = np.stack([np.linalg.lstsq(m, g, rcond=1e-6)[0] for m, g in zip(J, gap, strict=True)]).reshape(b.shape)
        b = domain.clip((b - move).astype(b.dtype))
    return b


def collapsed(ctx: Context, domain: Domain, a: HostArray) -> tuple[Collapse, int]:
    """Follow the null vectors at the rows of a whose J is singular to the oracle's error; return what was found, and how many.

    Above d = LARGE no Jacobian is asked for where products show ‖J_g‖ < 1: there I + J_g is regular.
    """
    none = np.zeros(len(a), dtype=bool)
    doubtful = np.flatnonzero(~(products.contraction(ctx, a) < 1.0)) if products.available(ctx) else np.arange(len(a))
    if not len(doubtful):
        return Collapse(a.copy(), none, none, ~none), 0
    some, singular = _collapsed(ctx, domain, a[doubtful])
    found, resolved, regular, far = none.copy(), none.copy(), ~none, a.copy()
    found[doubtful], resolved[doubtful], regular[doubtful], far[doubtful] = some.found, some.resolved, some.regular, some.b
    return Collapse(far, found, resolved, regular), singular


def _collapsed(ctx: Context, domain: Domain, a: HostArray) -> tuple[Collapse, int]:
    oracle = ctx.jacobian(a)
    finite = np.asarray(np.isfinite(oracle.matrix).all(axis=(1, 2)))
    matrices = np.where(np.reshape(finite, (-1, 1, 1)), oracle.matrix, np.eye(ctx.d))
    threshold: Rows = np.maximum(oracle.error, ctx.u * norm_bound(matrices))
    singular = np.flatnonzero(np.logical_and(finite, smallest(matrices)[1] <= threshold))
    found, resolved, far = np.zeros(len(a), dtype=bool), np.zeros(len(a), dtype=bool), a.copy()
    if len(singular):
        rows, v = a[singular], np.linalg.svd(matrices[singular])[2][:, -1].reshape(len(singular), *a.shape[1:])
        for direction in (v, -v):
            alike = np.ones(len(singular), dtype=bool)
            for step in STEPS:
                b = follow(ctx, domain, rows, direction, step)
                alike &= one_image(ctx, rows, b) & (distance(b, rows) >= 0.25 * step * size(rows))
            far[singular[alike]] = b[alike]
            found[singular] |= alike
        back = told_apart(ctx, rows, far[singular])
        # a map may be as flat as its log-det states, an inverse may not: its promise is to come back
        excused = accounted_for(ctx, rows, far[singular], _rows_of(oracle, singular)) if ctx.f.inverse is None else back
        resolved[singular] = back | excused
    regular = finite.copy()
    regular[singular] = False
    return Collapse(far, found, resolved, regular), len(singular)


def has_edge(ctx: Context, flat: HostArray, regular: HostArray) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return the rows of `flat` (collapsed) whose flat part has an edge on the way to the nearest row of `regular` (see the module)."""
    near = [int(np.argmin(distance(regular, np.broadcast_to(a, regular.shape)))) for a in flat]
    way = regular[near].astype(np.float64) - flat
    shape = (-1, *(1,) * (flat.ndim - 1))

    def least(s: Rows) -> tuple[Rows, Rows, Rows]:
        """σ_min, its error and ‖J‖ at a + s·way."""
        oracle = ctx.jacobian((flat + s.reshape(shape) * way).astype(flat.dtype))
        finite = np.isfinite(oracle.matrix).all(axis=(1, 2))
        matrices = np.where(np.reshape(finite, (-1, 1, 1)), oracle.matrix, 0.0)
        size = norm_bound(matrices)
        return smallest(matrices)[1], np.maximum(oracle.error, ctx.u * size), size

    low, high = np.zeros(len(flat)), np.ones(len(flat))
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        sigma, error, _ = least(middle)
        low, high = np.where(sigma <= error, middle, low), np.where(sigma <= error, high, middle)
    sigma, error, size = least(np.minimum(high + 2.0**-HALVINGS, 1.0))
    return np.asarray(sigma >= np.sqrt(error * size))


def _rows_of(oracle: Jacobian, rows: np.ndarray[Any, Any]) -> Jacobian:
    return type(oracle)(oracle.matrix[rows], oracle.source, oracle.error[rows], oracle.residual[rows])


@check(
    "inverse.separates-inputs",
    claim="Where the Jacobian is singular, inputs along its null direction still have distinct images.",
    reference="Behrmann et al. 2019 (arXiv 1811.00995), Theorem 1: F is a bijection", kind="search", modes=False,
    cost="32 Jacobians, above d = 16 fewer, above d = 128 only where products do not show ‖J_g‖ < 1; "
    "where one is singular, 3 steps of up to 4 further Jacobians and 16 evaluations each, and 13 Jacobians where few collapse",
    catches="projections, bottlenecks, ReLU, singular linear layers: F(a) = F(b) along whole lines",
)
def separates_inputs(ctx: Context) -> Outcome:
    """Steps of .01, .1 and 1 along null vectors, at the subject's own inputs, and an edge where few of them collapse."""
    refreshed(ctx)
    domain = Domain.of(ctx)
    count = max(4, min(8, search.WORK // max(ctx.d, 1)), min(32, search.WORK // (16 * max(ctx.d, 1))))
    a = ctx.inputs(count)
    pairs, singular = collapsed(ctx, domain, a)
    evidence: dict[str, Any] = {"compared": count, "singular_jacobians": singular, "collapsed": int(pairs.found.sum())}
    how = (f"every component equal to its rounding at distances of {', '.join(map(str, STEPS))}·max(1, ‖a‖), at {FEWEST} inputs or more "
           f"and {SHARE:.0%} of them, or where σ_min jumps at the edge of the flat part")
    oracle = "F at both points"
    if not singular:
        return Outcome("passed", f"the Jacobian is certainly regular at {count} inputs", evidence, how, "Jacobian oracle")
    wrong = np.flatnonzero(pairs.found & ~pairs.resolved)
    many = len(wrong) >= max(FEWEST, SHARE * count)
    if not many and len(wrong) and pairs.regular.any():
        evidence["edges"] = int(has_edge(ctx, a[wrong[:FEWEST]], a[pairs.regular]).sum())
    if many or evidence.get("edges", 0) == min(FEWEST, len(wrong)) > 0:
        i = int(wrong[np.argmax(distance(pairs.b[wrong], a[wrong]))])
        point, other = a[i : i + 1], pairs.b[i : i + 1]
        apart, images = float(distance(point, other)[0]), float(distance(ctx.f.forward(point), ctx.f.forward(other))[0])
        rounding = float(norms(component_rounding(ctx, point, ctx.f.forward(point)) + component_rounding(
            ctx, other, ctx.f.forward(other)))[0])
        what = ", and its inverse cannot tell them apart" if ctx.f.inverse is not None else ""
        return Outcome(
            "failed", f"expected distinct images of distinct inputs, got one image of two inputs {apart:.3g} apart ({images:.1g} between "
            f"the images, rounding {rounding:.1g}), at {len(wrong)} of {count} inputs{what}: F is not injective; look for a "
            "projection, a narrow or singular layer, or a flat activation", {**evidence, "distance": apart, "distance_of_images": images},
            how, oracle, Counterexample({"a": point, "b": other, "rounding": max(rounding, SMALLEST)}, measures.same_image))
    if pairs.found.any():
        return Outcome("inconclusive", f"not resolved in {ctx.subject.dtype}: F has one image for inputs far apart at "
                       f"{int(pairs.found.sum())} of {count} inputs, as its log-det or its inverse accounts for; "
                       "try inputs= where it is better conditioned", evidence, how, oracle)
    return Outcome("passed", f"not refuted: the images move along the null vectors of {singular} singular Jacobians", evidence, how, oracle)
