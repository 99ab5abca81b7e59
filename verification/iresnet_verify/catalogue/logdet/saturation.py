"""Saturation: where far inputs have one image, the log-det must say that the volume between them is lost.

By the change of variables the image of a box B has volume ∫_B |det J|. If F maps a whole box to one point to its rounding δ, that
volume is at most (2δ)^d. A log-det of at least ℓ on B makes it at least e^ℓ·vol(B): a contradiction if

    ℓ + Σ log|b_i − a_i| > d·log(2δ).

Softplus, sigmoid and tanh are right there: their log-det falls with the derivative. A clamp inside a squashing function, or a
log-det that forgets it, is not.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from iresnet_verify.catalogue.shared.map_errors import component_rounding, refreshed
from iresnet_verify.check.outcome import Counterexample, Outcome
from iresnet_verify.check.registry import check
from iresnet_verify.check.verdict import verdict
from iresnet_verify.measurements import log_dets as measures

if TYPE_CHECKING:
    from iresnet_verify.check.context import Context
    from iresnet_verify.subject.subject import HostArray

MAGNITUDES = (10.0, 100.0, 1e3, 1e4)
CORNERS = 14
"""Corners of the box drawn at random, besides a and b."""
SMALLEST = {"float64": 2.0**-1022, "float32": 2.0**-126}


@check(
    "logdet.accounts-for-saturation",
    claim="Where far inputs have one image to rounding, the log-det accounts for it: e^log_det·vol(B) is at most the image's volume.",
    reference="change of variables: vol F(B) = ∫_B |det dF/dx|", kind="search", needs=("log_det",), modes=False,
    cost="4 magnitudes × 4 boxes of 16 evaluations of the map and of its log-det",
    catches="clamps, saturation and clipping that the log-det ignores",
)
def accounts_for_saturation(ctx: Context) -> Outcome:
    """Boxes between a and 1.5a, a of size 10 to 10⁴ in every component, unless the subject declares its inputs."""
    if ctx.subject.inputs is not None:
        return Outcome("skipped", "the subject declares where its inputs lie")
    if ctx.log_det_claim[0] in ("gradient-only", "unbiased"):
        return Outcome("skipped", "the log-det is random, or claims no value")
    refreshed(ctx)
    excess: dict[float, list[float]] = {}
    boxes: dict[float, list[HostArray]] = {}
    finite = 0
    for magnitude in MAGNITUDES:
        for _ in range(4):
            box = _box(ctx, magnitude)
            y, value = ctx.f.forward(box), ctx.evaluate_log_det(box, 23)
            if not (np.isfinite(y).all() and np.isfinite(value).all()):
                continue
            finite += 1
            rounding = component_rounding(ctx, box, y)
            if not (np.abs(y.astype(np.float64) - y[:1]) <= rounding + rounding[:1]).all():
                continue
            delta = max(float(np.linalg.norm(rounding.reshape(len(box), -1), axis=1).max()), SMALLEST[ctx.subject.dtype])
            volume = float(np.log(np.abs(box[1].astype(np.float64) - box[0])).sum())
            excess.setdefault(magnitude, []).append(float(value.min()) + volume - ctx.d * math.log(2.0 * delta))
            boxes.setdefault(magnitude, []).append(box)
    if not excess:
        what = f"{finite} boxes at magnitudes 10 to 10⁴ have distinct images" if finite else "F or its log-det is not finite far out"
        return Outcome("passed" if finite else "skipped", what, {"compared": finite})
    evidence: dict[str, Any] = {"boxes": finite}
    return verdict(
        {m: np.array(e) for m, e in excess.items()}, 0.0,
        expected=lambda at: f"a log-det that accounts for one image of all inputs between {at.case:g} and {1.5 * at.case:g}",
        got=lambda at: f"one that makes the image's volume e^{at.error:.3g} times too large: F saturates, its log-det does not",
        remedy="look for a clamp, or declare inputs= where the map holds",
        passed=lambda at: f"F saturates in {at.compared} of {finite} boxes, as its log-det says",
        tolerance="log of the volume (2δ)^d of the images, δ the rounding of F", oracle="F and its log-det at the corners of boxes",
        evidence=evidence,
        counterexample=lambda at: Counterexample({"a": boxes[at.case][at.row][:1], "b": boxes[at.case][at.row][1:2],
                                                  "smallest": SMALLEST[ctx.subject.dtype]},
                                                 measures.volume_of_one_image))


def _box(ctx: Context, magnitude: float) -> HostArray:
    """Return corners of a box from a to 1.5a, a and 1.5a first, |a_i| in [1, 2]·magnitude."""
    shape = ctx.subject.event_shape
    a = magnitude * (1.0 + ctx.rng.uniform(size=shape)) * ctx.rng.choice([-1.0, 1.0], size=shape)
    share = np.concatenate([np.zeros((1, *shape)), np.ones((1, *shape)), ctx.rng.integers(0, 2, size=(CORNERS, *shape))])
    return np.asarray(a * (1.0 + 0.5 * share)).astype(ctx.inputs(1).dtype)
