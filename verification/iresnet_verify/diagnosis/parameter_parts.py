"""Of a log-det that is constant in x, the parameters are the independent inputs: each alone is scaled, and what it changes is compared."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from iresnet_verify.catalogue.shared.log_det_truth import truth_at
from iresnet_verify.diagnosis import log_dets
from iresnet_verify.diagnosis.case import SEED, Case
from iresnet_verify.diagnosis.hypothesis import Array, Explanation
from iresnet_verify.diagnosis.parts import parameters, with_parameter
from iresnet_verify.subject.subject import HostArray

SCALES = (1.0, 0.7, 0.85, 1.2, 1.45)
"""By which a parameter is multiplied."""


def part_of_a_parameter(case: Case, what: str, values: Callable[[HostArray, int], Array], sign: float) -> Explanation | None:
    """Explain a constant log-det by the one parameter of whose part it has a multiple with a name."""
    names = parameters(case)
    if np.ptp(case.truth.value) > 8.0 * case.truth.slack.max() or len(names) < 2:
        return None
    factors = {name: _factor(case, name, values, sign) for name in names}
    off = {name: c for name, c in factors.items() if c is not None and not abs(c - 1.0) <= 1e-9}
    known = {0.0: "0", -1.0: "−1"} | dict(log_dets.factors(case.ctx.d, case.ctx.subject.event_shape))
    if len(off) != 1 or len([c for c in factors.values() if c is not None]) < 2:
        return None
    ((name, c),) = off.items()
    words = next((words for value, words in known.items() if abs(value - c) <= 1e-9), None)
    if words is None:
        return None
    sure = f"With each of {len(names)} parameters scaled alone in {len(SCALES)} ways it follows as it should for all but this one."
    if words == "0":
        return Explanation(log_dets.BLOCK_LEFT_OUT, what, f"the part of `{name}`", len(SCALES), 0.0, 0, sure)
    return Explanation(log_dets.BLOCK_FACTOR, what, f"the part that `{name}` makes times {words}", len(SCALES), 0.0, 0, sure)


def _factor(case: Case, name: str, values: Callable[[HostArray, int], Array], sign: float) -> float | None:
    """c if what the parameter changes is c times what it should be; NaN if it is no multiple; None where it should change nothing."""
    got, right = np.zeros(len(SCALES)), np.zeros(len(SCALES))
    for i, c in enumerate(SCALES):
        with with_parameter(case, name, c):
            y = case.ctx.f.forward(case.x, seed=SEED)
            got[i] = values(case.x if sign > 0.0 else y, SEED)[0]
            right[i] = sign * truth_at(case.ctx, case.x).value[0]
    changed, changes = got - got[0], right - right[0]
    close = 1e3 * float(case.truth.slack.max()) * (1.0 + np.abs(right).max())
    if np.abs(changes).max() <= close:
        return None if np.abs(changed).max() <= close else np.nan
    c = float(changed @ changes / (changes @ changes))
    return c if np.abs(changed - c * changes).max() <= close else np.nan
