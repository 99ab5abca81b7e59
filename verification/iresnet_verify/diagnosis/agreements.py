"""Which of three is the odd one: where the inverse and the log-det are of one map, forward is another.

With G the inverse and ℓ the log-det, both of a map H = G⁻¹, ℓ(G(y)) = −log|det dG/dy| at every y, whatever forward is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from iresnet_verify.catalogue.shared.log_det_truth import truth_at
from iresnet_verify.check.result import CheckResult
from iresnet_verify.diagnosis import inverses
from iresnet_verify.diagnosis.case import SEED, Case
from iresnet_verify.diagnosis.hypothesis import Cause, Explanation, Prediction, explain

OTHER_MAP = Cause("forward-is-another-map", "forward is another map than that of which the inverse and the log-det are, which agree.",
                  "Change forward, or both others.")


def forward(case: Case, results: Sequence[CheckResult]) -> Explanation | None:
    """Explain wrong inverses and wrong log-dets, where both are, by the map that they have in common."""
    ctx, f = case.ctx, case.ctx.f
    kinds = {r.id.partition(".")[0] for r in results}
    if f.inverse is None or f.log_det is None or not {"inverse", "logdet"} <= kinds or not inverses.is_wrong(case, case.y):
        return None
    inverse, x = f.inverse, f.inverse(case.y, seed=SEED)
    got, again = (ctx.evaluate_log_det(x, s) for s in (SEED, SEED + 1))
    if not np.array_equal(got, again):
        return None
    back = replace(ctx, subject=replace(ctx.subject, forward=lambda y, *context: ctx.native(inverse(ctx.host(y), seed=SEED)), inverse=None,
                                        residual=None, log_det=None, context_shape=None))
    of_g = truth_at(back, case.y)
    made = Prediction(OTHER_MAP, -of_g.value, 8.0 * of_g.slack)
    return explain("forward", got, truth_at(ctx, x).value, [made])
