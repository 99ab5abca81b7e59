"""Hypotheses of steps of forward (`steps`) that an inverse or a log-det leaves out, repeats, exchanges or takes with another factor.

Asked only where no other hypothesis explains the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from iresnet_verify.diagnosis import log_dets
from iresnet_verify.diagnosis.case import SEED, Case
from iresnet_verify.diagnosis.hypothesis import Array, Cause, Explanation, Prediction, as_far_as_made, explain
from iresnet_verify.diagnosis.runs.steps import Chain, chain, segments
from iresnet_verify.subject.subject import HostArray

LEFT_OUT = Cause("block-left-out", "{what} does not undo {detail}.", "Undo every step, the last one first.")
REPEATED = Cause("block-repeated", "{what} undoes {detail} twice.", "Undo every step once.")
AGAIN = Cause("block-applied-forward", "{what} applies {detail} once more, where it should undo that.", "Undo it.")
ORDER = Cause("order-of-blocks", "{what} undoes steps in another order: {detail}.", "Undo last what forward does first.")
SOME = Cause("components-left-out", "{what} does not undo {detail}.", "Undo the step in every component.")
INTERLEAVED = Cause("halves-interleaved", "{what} takes the event apart, or puts it together, otherwise than forward: {detail}.",
                    "Take the halves apart as forward puts them together.")
LARGEST = 64
"""Dimension up to which components are told apart."""


def inverse(case: Case, got: HostArray, promised: Array) -> Explanation | None:
    """Explain the answers `got` to F(x) by the steps of forward; `promised` is the error allowed to an image."""
    links = chain(case)
    made = list(as_far_as_made(_permuted(case, got, promised)))
    if links is not None:
        made += list(as_far_as_made(_steps(links, got, promised)))
    y = case.y.reshape(len(got), -1).astype(np.float64)
    wrong = np.linalg.norm(case.ctx.f.forward(got, seed=SEED).reshape(len(got), -1) - y, axis=1)
    return explain("inverse", np.zeros(len(got)), wrong, made)


def _steps(links: Chain, got: HostArray, promised: Array) -> Iterator[Prediction]:
    right, back, n = links.at(links.case.x), links.at(got), links.steps
    if right is None or back is None:
        return
    allowed = promised + 1e-9 * max(float(np.abs(z).max()) for z in right)

    def miss(a: Array | None, b: Array | None) -> Array:
        return np.full(len(got), np.inf) if a is None or b is None else np.asarray(np.linalg.norm(a - b, axis=1))

    for i, j in segments(n):
        words = links.words(i, j)
        yield Prediction(LEFT_OUT, miss(back[i], right[j]), allowed, words)
        yield Prediction(REPEATED, miss(back[j], right[i]), allowed, words)
        yield Prediction(AGAIN, miss(back[i], links.along(i, j, right[j])), allowed, words)
        apart = np.stack([np.abs(back[i] - right[i]).max(0), np.abs(back[i] - right[j]).max(0)])
        of = np.flatnonzero((apart[0] > allowed.max()) & (apart[1] <= allowed.max()))
        if 0 < len(of) < apart.shape[1] <= LARGEST:
            mixed = np.where(np.isin(np.arange(apart.shape[1]), of), right[j], right[i])
            yield Prediction(SOME, miss(back[i], mixed), allowed, f"{words} in component{'s' if len(of) > 1 else ''} "
                             f"{', '.join(str(c + 1) for c in of[:8])}")
    for i in range(n):
        for j in range(i + 1, n):
            for k in range(j + 1, n + 1):
                later = links.along(j, k, back[i])
                exchanged = None if later is None else links.along(i, j, later)
                yield Prediction(ORDER, miss(exchanged, right[k]), allowed, f"{links.words(j, k)} after {links.words(i, j)}")


def _permuted(case: Case, got: HostArray, promised: Array) -> Iterator[Prediction]:
    """F(Q x̂) = R y for orders Q and R of the components, one of which interleaves or takes apart."""
    def orders(axis: int) -> dict[str, Callable[[Array], Array]]:
        n = case.x.shape[axis]
        if n < 4 or n % 2:
            return {}
        apart = np.concatenate([np.arange(0, n, 2), np.arange(1, n, 2)])
        return {"as they are": lambda a: a, "every second one first": lambda a: np.take(a, apart, axis),
                "interleaved": lambda a: np.take(a, np.argsort(apart), axis)}

    y = case.y.astype(np.float64)
    for axis in sorted({1, case.x.ndim - 1}):
        for before, q in orders(axis).items():
            image = case.ctx.f.forward(q(got.astype(np.float64)).astype(case.x.dtype), seed=SEED).astype(np.float64)
            for after, r in orders(axis).items():
                if (before, after) != ("as they are", "as they are"):
                    miss = np.linalg.norm((image - r(y)).reshape(len(y), -1), axis=1)
                    yield Prediction(INTERLEAVED, miss, promised, f"its components are taken {before}, those of y {after}")


def log_det(case: Case, what: str, got: Array, sign: float) -> Explanation | None:
    """Explain a log-det by those of the steps of forward."""
    links = chain(case)
    if links is None:
        return None
    own, truth = links.log_dets(), case.truth
    tolerance = 8.0 * truth.slack + 1e-9 * (1.0 + np.abs(truth.value))
    made = []
    for i, j in segments(links.steps):
        part = np.sum(own[i:j], axis=0)
        if np.abs(part).max() <= 1e3 * tolerance.max():
            continue
        made.append(Prediction(log_dets.BLOCK_LEFT_OUT, sign * (truth.value - part), tolerance, links.words(i, j)))
        for c in (-1.0, 2.0, 0.5):
            made.append(Prediction(log_dets.BLOCK_FACTOR, sign * (truth.value + (c - 1.0) * part), tolerance,
                                   f"the log-det of {links.words(i, j)} times {c:g}"))
    return explain(what, got, sign * truth.value, made)
