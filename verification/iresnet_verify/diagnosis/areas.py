"""The areas of failure: which checks look at the same numbers, who explains these, and what else fails because of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from iresnet_verify.check.result import CheckResult
from iresnet_verify.diagnosis import (
    agreements,
    bounds,
    densities,
    families,
    gradients,
    inverses,
    kept,
    log_dets,
    volumes,
)
from iresnet_verify.diagnosis.behaviours import LIPSCHITZ, OF_THE_INVERSE
from iresnet_verify.diagnosis.case import Case
from iresnet_verify.diagnosis.hypothesis import Cause, Explanation
from iresnet_verify.diagnosis.runs import misplaced_steps
from iresnet_verify.diagnosis.trials import repairs
from iresnet_verify.subject.subject import HostArray

BATCH = ("hygiene.batch-independence", "hygiene.single-row", "gradient.masked-rows", "inverse.rows-are-independent")
ALSO: dict[Cause, tuple[str, ...]] = {
    **dict.fromkeys((log_dets.PERMUTED, log_dets.ONE_ROW, log_dets.REDUCED, log_dets.BATCH_FACTOR, inverses.ROWS, inverses.ONE_ROW,
                     densities.VALUE), BATCH),
    inverses.RANDOM: ("hygiene.global-randomness-kept",),
    bounds.NEWLY_BUILT: ("logdet.matches-determinant",),
    repairs.REPAIR: ("inverse.is-injective", "inverse.unique-preimage", "inverse.separates-inputs"),
    gradients.FIRST: ("gradient.masked-rows",), gradients.MEAN: ("gradient.masked-rows",),
}
"""What a cause brings about beyond its own area."""


FOLLOWS = Cause("follows", "{what} is made rightly of what is wrong.", "Correct that.")
"""No cause of its own: it is folded under what is wrong with the inverse, or with the log-det."""
NARROW = (inverses.NARROW, log_dets.NARROW)
"""Causes that a dtype which is not kept brings about."""
OTHER_NETWORK = (families.JACOBIAN, log_dets.OTHER_VALUE, log_dets.WITHOUT)
"""Causes that say of which other network the numbers are; where F has two modes it is that of the other mode."""
PARAMETERS = (log_dets.OTHER_VALUE, log_dets.NEGATED, log_dets.WITHOUT, inverses.OTHER_VALUE, inverses.NEGATED, inverses.WITHOUT)
"""Causes that say by which value of a parameter the numbers would be: where in the code it is, they do not."""
MORE = (*PARAMETERS, log_dets.NOT_FINITE, misplaced_steps.LEFT_OUT, misplaced_steps.REPEATED, misplaced_steps.AGAIN, misplaced_steps.ORDER,
        misplaced_steps.SOME, log_dets.BLOCK_LEFT_OUT, log_dets.BLOCK_FACTOR)
"""Causes to which the change of the code that makes it right is added, if there is one."""
CUT_OFF = (gradients.PART, gradients.DETACHED, gradients.SLOPES)
"""Causes to which the place is added where a gradient is cut off."""
BY_A_NUMBER = (log_dets.OTHER_VALUE, inverses.OTHER_VALUE, families.JACOBIAN, families.IDENTITY, log_dets.AT_ANOTHER_POINT,
               inverses.SCALED_BRANCH)
"""Causes that say by which number something would be multiplied: if nobody would write it, a change of the code says more."""
LOCAL = tuple(c.name for c in (
    log_dets.CUT_SHORT, log_dets.EPSILON, log_dets.NARROW, log_dets.CLAMPED, inverses.CLIPPED, inverses.FIXED,
    inverses.EARLY, inverses.TOGETHER, inverses.NARROW, inverses.OTHER_VALUE))
"""Causes that need not show at every input: they are looked for around the points at which checks failed too, where the case's own
inputs are answered rightly. If those are wrong, what does not explain them is refuted, and a shrunk input with its neighbours along one
line confirms little."""


@dataclass(frozen=True)
class Area:
    """One quantity: `primary` checks compare it directly, `others` fail with it."""

    name: str
    primary: tuple[str, ...]
    others: tuple[str, ...]
    explain: Callable[[Case, Sequence[CheckResult]], Explanation | None]
    what: str

    def holds(self, check: str) -> bool:
        """Whether a failure of `check` may be one of this quantity."""
        return any(fnmatchcase(check, p) for p in (*self.primary, *self.others))


def points(results: Sequence[CheckResult], key: str, shape: tuple[int, ...]) -> list[HostArray]:
    """Batches of inputs at which checks failed."""
    found = [r.counterexample.inputs.get(key) for r in results if r.counterexample is not None]
    return [a for a in found if isinstance(a, np.ndarray) and a.shape[1:] == shape and len(a) and np.isfinite(a).all()]


def around(case: Case, point: HostArray) -> HostArray:
    """The point and neighbours of it, as many rows as the case has: inputs that are independent and as odd as it."""
    rng = np.random.default_rng(0)
    rows = np.repeat(point[:1].astype(np.float64), case.rows, axis=0)
    return np.asarray(rows * (1.0 + 0.05 * np.arange(case.rows).reshape(-1, *[1] * (rows.ndim - 1)) * rng.uniform(0.5, 1.0, rows.shape)),
                      dtype=point.dtype)


def _inverse(case: Case, results: Sequence[CheckResult]) -> Explanation | None:
    if case.ctx.f.inverse is None:
        return None
    found = kept.inverse_without_context(case) or inverses.inverse(case, case.y)
    if found is not None or inverses.is_wrong(case, case.y):
        return found
    shape = case.ctx.subject.event_shape
    tries = [around(case, y) for y in points(results, "y", shape)] + [
        case.ctx.f.forward(around(case, x), seed=0) for x in points(results, "x", shape)]
    return next((e for e in (_there_alone(inverses.inverse(case, y)) for y in tries[:3]) if e is not None), None)


def _log_det(case: Case, results: Sequence[CheckResult]) -> Explanation | None:
    found = kept.log_det_without_context(case) or volumes.log_det(case)
    if found is not None or volumes.is_wrong(case):
        return found
    tries = points(results, "x", case.ctx.subject.event_shape)[:2]
    return next((e for e in (_there_alone(volumes.log_det(case.at(around(case, x)))) for x in tries) if e is not None), None)


def _there_alone(found: Explanation | None) -> Explanation | None:
    """What explains a failure around one point, if it may show itself there alone: a wrong sign, say, would have been seen at any input."""
    return found if found is not None and found.cause.name in LOCAL else None


def _bound(case: Case, results: Sequence[CheckResult]) -> Explanation | None:
    del results
    claims: list[float] = []
    if case.ctx.subject.linear_maps is not None:
        claims = [float(m[3]) for m in case.ctx.subject.linear_maps() if len(m) > 3]
    return bounds.bound(case, claims)


def _of_the_inverse(case: Case, results: Sequence[CheckResult]) -> Explanation | None:
    """The log-det of the inverse at y; if it is minus the log-det at F⁻¹(y), what is wrong with these two is wrong with it."""
    if any(c in case.failed for c in (*INVERSE, *VALUE)) and volumes.inverse_log_det_follows(case):
        return Explanation(FOLLOWS, "the log-det of the inverse", "", case.rows, 0.0, 0)
    return volumes.inverse_log_det(case)


def _log_prob(case: Case, results: Sequence[CheckResult]) -> Explanation | None:
    """log_prob at x; if the subject's own log-det is in it, what is wrong with that is wrong with it."""
    if any(c in case.failed for c in VALUE) and densities.log_prob_follows(case):
        return Explanation(FOLLOWS, "log_prob", "", case.rows, 0.0, 0)
    return densities.log_prob(case)


def _plain(function: Callable[[Case], Explanation | None]) -> Callable[[Case, Sequence[CheckResult]], Explanation | None]:
    return lambda case, results: function(case)


INVERSE = ("inverse.recovers-input", "inverse.recovers-output", "inverse.keeps-tolerance", "inverse.keeps-precision",
           "inverse.rows-are-independent", "convergence.is-reported", "convergence.worst-input")
VALUE = ("logdet.matches-determinant", "estimator.unbiased", "logdet.finite")
FORWARD = Area("forward", (*INVERSE, *VALUE), ("inverse.odd-inputs", "gradient.through-inverse", "logdet.*", "estimator.*", "density.*",
                                               "gradient.log-*", "gradient.far-inputs"), agreements.forward, "forward")
"""Both at once, where one is not explained by itself."""
AREAS = (
    Area("bound", ("lipschitz.bounds-jacobian", "lipschitz.layers", "lipschitz.bounds-pairs", "lipschitz.bounds-stretch"),
         (*LIPSCHITZ, "inverse.is-injective"), _bound, "The claimed bound on Lip(g)"),
    Area("inverse", INVERSE,
         ("inverse.odd-inputs", "gradient.through-inverse"), _inverse, "The inverse"),
    Area("log_det", VALUE,
         ("logdet.*", "estimator.unbiased", "estimator.coefficients", "gradient.log-det", "gradient.log-det-input", "gradient.far-inputs",
          "gradient.log-prob"),
         _log_det, "The log-det"),
    Area("kept", ("hygiene.batch-independence", "hygiene.determinism"), ("hygiene.single-row", "logdet.*", "gradient.log-det*"),
         _plain(kept.log_det_of_the_last_call), "An answer"),
    Area("packed", ("parity.packed-log-det", "logdet.one-value"), ("logdet.*", "gradient.log-det*"), _plain(volumes.packed_log_det),
         "The log-det that forward returns"),
    Area("inverse_log_det", OF_THE_INVERSE, (), _of_the_inverse,
         "The log-det of the inverse"),
    Area("log_prob", ("density.change-of-variables",), ("density.*",), _log_prob, "log_prob"),
    Area("forward_gradient", ("gradient.forward-input", "gradient.forward"),
         ("gradient.masked-rows", "gradient.through-inverse", "gradient.far-inputs"),
         _plain(gradients.forward_gradient), "The gradient of forward"),
    Area("log_det_gradient", ("gradient.log-det", "gradient.log-det-input"),
         ("gradient.masked-rows", "gradient.far-inputs", "gradient.log-prob"), _plain(gradients.log_det_gradient),
         "The gradient of the log-det"),
    Area("inverse_gradient", ("gradient.through-inverse",), (), _plain(gradients.inverse_gradient), "The gradient of the inverse"),
)
"""The quantities, causes before what follows from them."""
