"""What a call is not given, or keeps from another: an answer that does not depend on its context, or is that to an earlier call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from iresnet_verify.catalogue.shared.log_det_truth import truth_at
from iresnet_verify.diagnosis.case import SEED, Case
from iresnet_verify.diagnosis.hypothesis import Array, Cause, Explanation, Prediction, explain

NO_CONTEXT = Cause("hygiene.context-of-each-row", "{what} does not depend on the context, and should.", "Pass the context on.")
CACHED = Cause("cached", "{what} is that of the last call of forward, whatever x is.", "Compute it from x.")


def inverse_without_context(case: Case) -> Explanation | None:
    """Explain an inverse that is not given its context."""
    inverse = case.ctx.f.inverse
    if inverse is None:
        return None
    return _without_context(case, "The inverse", lambda: inverse(case.y, seed=SEED), lambda: case.ctx.f.forward(case.x, seed=SEED))


def log_det_without_context(case: Case) -> Explanation | None:
    """Explain a log-det that is not given its context."""
    if case.ctx.f.log_det is None:
        return None
    return _without_context(case, "log_det", lambda: case.ctx.evaluate_log_det(case.x, SEED), lambda: truth_at(case.ctx, case.x).value)


def _without_context(case: Case, what: str, answer: Callable[[], Array], right: Callable[[], Array]) -> Explanation | None:
    """Explain an answer that is the same to the bit for another context, where the right one is not."""
    if case.ctx.subject.context_shape is None:
        return None
    here, truth = answer(), right()
    with _another(case):
        there, moved = answer(), right()
    if np.array_equal(here, there) and (np.abs(truth - moved).reshape(len(truth), -1).max(1) > 1e6 * case.ctx.u * case.size).any():
        return Explanation(NO_CONTEXT, what, "", len(here), 0.0, 0, "With another context it is the same to the last bit.")
    return None


@contextmanager
def _another(case: Case) -> Iterator[None]:
    """Another conditioning event for the length of the block."""
    caller = case.ctx.caller
    before = caller.context_row
    assert before is not None
    caller.context_row = (before[::-1] * 0.5 + 0.25).astype(before.dtype)
    try:
        yield
    finally:
        caller.context_row = before


def log_det_of_the_last_call(case: Case) -> Explanation | None:
    """Explain a log-det that forward keeps: after a call of forward at other inputs it is theirs."""
    ctx = case.ctx
    if ctx.f.log_det is None or ctx.subject.log_det is None:
        return None
    other = (0.75 * case.x[::-1]).astype(case.x.dtype)
    right, there = case.truth.value, truth_at(ctx, other)  # before, since they call forward
    with ctx.guard():
        ctx.raw_forward(ctx.native(other), seed=SEED)
        got = np.asarray(ctx.host(ctx.raw_log_det(ctx.native(case.x), seed=SEED)), dtype=np.float64).reshape(len(right))
    return explain("log_det", got, right, [Prediction(CACHED, there.value, 8.0 * there.slack)])
