"""Hypotheses of inverses: each says which equation the answer x̂ to y solves in place of F(x̂) = y, or which step it is of an iteration.

A wrong map M is recognised by M(x̂) = y to the promised accuracy of the inverse; a step of an iteration by x̂ = x_n to rounding, where
x₀ = y, x_{k+1} = y − g(x_k) (Behrmann et al. 2019, Algorithm 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import numpy as np

from iresnet_verify.catalogue.shared.map_errors import promised
from iresnet_verify.diagnosis.case import SEED, Case
from iresnet_verify.diagnosis.hypothesis import SPARE, Array, Cause, Explanation, Prediction, as_far_as_made, explain
from iresnet_verify.diagnosis.parts import blocks, orders, parameters, with_parameter
from iresnet_verify.diagnosis.runs import misplaced_steps
from iresnet_verify.subject.calls import flat
from iresnet_verify.subject.frameworks import OPERATIONS
from iresnet_verify.subject.subject import HostArray

STEPS = 500
"""Iterates that are recognised."""
CHEAP = 64
"""Dimension up to which an answer is compared with what its Jacobian gives."""
SWEEP = 12
"""Dimension up to which a sweep over the components is followed."""
SMALL = 4
"""Dimension up to which every order of the components is."""
POINTS = 48
"""Points of a segment along which jumps are looked for."""
WORSE = 4.0
"""A row that misses its image so many times more in a batch than alone was stopped by the other rows."""

FIXED = Cause("fixed-number-of-steps", "{what} stops after {detail} whatever is left.",
              "Stop by the residual ‖y − x − g(x)‖ ≤ (1 − L)·tol, and report a failure to reach it.")
EARLY = Cause("stops-early", "{what} is a step of an iteration that stops before the promised accuracy{detail}.",
              "Stop by the residual ‖y − x − g(x)‖ ≤ (1 − L)·tol, not by a step or its square; or declare the inverse_tolerance that it "
              "has.")
TOGETHER = Cause("rows-stop-together", "{what} stops all rows of a batch at once, before the slowest row has converged ({detail}).",
                 "Stop each row by its own residual.")
NEWTON = Cause("fixed-number-of-steps", "{what} is {detail} of Newton's method.", "Iterate until the residual is small enough.")
MINUS_G = Cause("inverse-sign", "{what} solves x − g(x) = y: the sign of g is wrong.", "Iterate x ← y − g(x).")
FORWARD = Cause("inverse-applies-forward", "{what} is F(y).", "Solve F(x) = y.")
IDENTITY = Cause("inverse-is-identity", "{what} returns y itself.", "Solve F(x) = y.")
ROWS = Cause("rows-permuted", "{what} gives each row the answer to another row: {detail}.", "Keep the rows in their order.")
COLUMNS = Cause("components-permuted", "{what} returns the right numbers at other places of the event: {detail}.",
                "Put the halves together in the order in which they were taken apart.")
CACHED = Cause("cached", "{what} answers with the input of the last forward call, whatever y is.", "Compute it from y.")
RANDOM = Cause("inverse-random", "{what} gives another x at every call although F is not random: something in it runs in training mode.",
               "Keep the mode, and draw nothing in the inverse.")
SHIFT = Cause("shift-of-the-inverse", "{what} is off by the same {detail} at every y.",
              "Look for a bias that is added or subtracted twice, or not at all.")
SCALED = Cause("inverse-scaled", "{what} is x multiplied by {detail}.", "Remove the factor, or undo a scale that forward applies.")
AFFINE = Cause("inverse-affine", "{what} is c·x + s with another c and s for each component.",
               "Undo what forward adds last first: x = (y − s)/c is not y/c − s.")
MIXED = Cause("inverse-mixed", "{what} is a fixed matrix times x: a linear part is not undone.",
              "Multiply by the inverse of the matrix, which for a rotation alone is its transpose.")
ONE_ROW = Cause("one-row-for-all", "{what} gives every row the answer to {detail}.", "Return one answer a row.")
SCALED_BRANCH = Cause("branch-scaled", "{what} solves x + {detail}·g(x) = y: the branch has another factor than in F.",
                      "Use the branch as it is in F, each coefficient once.")
AT_Y = Cause("inverse-of-another-image", "{what} solves F(x) = {detail}, where y belongs.", "Solve F(x) = y.")
CLIPPED = Cause("clipped", "{what} solves F(x) = y for y clipped to ±{detail}.", "Do not clip, or raise where y is out of range.")
CLIPPED_X = Cause("clipped", "{what} is x clipped to ±{detail}.", "Do not clip, or raise where y is out of range.")
ORDER = Cause("order-of-blocks", "{what} undoes the blocks as if F applied them {detail}.", "Undo the last block first.")
LEFT_OUT = Cause("block-left-out", "{what} leaves out {detail}.", "Undo every block.")
REPEATED = Cause("block-repeated", "{what} undoes blocks {detail}.", "Undo every block once.")
SCALE_FIRST = Cause("scale-and-shift-exchanged", "{what} undoes a scale s and a shift t by y/s − t, where (y − t)/s belongs.",
                    "Undo last what forward does first.")
SCALE_AGAIN = Cause("scale-applied-again", "{what} multiplies by the scale that it should divide by.", "Divide by it: (y − t)/s.")
SHIFT_SIGN = Cause("shift-sign", "{what} adds the shift that it should subtract.", "Subtract it: (y − t)/s.")
NO_SHIFT = Cause("shift-forgotten", "{what} undoes the scale alone: the shift is forgotten.", "Subtract it: (y − t)/s.")
NO_SCALE = Cause("scale-forgotten", "{what} undoes the shift alone: the scale is forgotten.", "Divide by it: (y − t)/s.")
AT_THE_IMAGE = Cause("conditioned-on-y", "{what} takes the scale and the shift of each component at y, not at the components that it has "
                     "found.", "Undo an autoregression one component after the other, or iterate until nothing changes.")
SWEPT = Cause("order-of-components", "{what} finds the components one after the other {detail}, where each needs those after it.",
              "Begin with the component that depends on no other.")
TRANSPOSE = Cause("transpose-for-inverse", "{what} multiplies by Jᵀ, which undoes a rotation alone.", "Solve with the matrix.")
NEGATED = Cause("parameter-sign", "{what} is the inverse of the network with −`{detail}`.", "Give it the sign that it has in forward.")
SHIFT_SIGN_OF = Cause("shift-sign", "{what} adds the shift `{detail}` that it should subtract.", "Subtract it: (y − t)/s.")
SCALE_AGAIN_OF = Cause("scale-applied-again", "{what} multiplies by the scale of `{detail}` that it should divide by.",
                       "Divide by it: (y − t)/s.")
WITHOUT = Cause("parameter-forgotten", "{what} is the inverse of the network with `{detail}` = 0.", "Use `{detail}` in the inverse as "
                "in forward.")
OTHER_VALUE = Cause("parameter-stale", "{what} is the inverse of the network with `{detail}`.",
                    "Read the parameters anew in each call: a copy of them is out of date.")
NARROW = Cause("float32-inside", "{what} computes in {detail}, narrower than its argument's dtype.", "Compute in the dtype of the "
               "argument.")


@dataclass
class Answers:
    """y, what the inverse answers to it together and row by row, and what is allowed."""

    case: Case
    y: HostArray

    def __post_init__(self) -> None:
        inverse = self.case.ctx.f.inverse
        assert inverse is not None
        self.call = inverse
        self.other = (0.75 * self.case.x[::-1]).astype(self.case.x.dtype)
        self.case.ctx.f.forward(self.other, seed=SEED)  # an inverse that remembers the last call of forward shows it
        self.together = inverse(self.y, seed=SEED)
        self.turned = inverse(self.y[::-1].copy(), seed=SEED)[::-1]
        self.alone = self.case.alone(inverse, self.y)
        rows = np.linalg.norm(flat(self.y).astype(np.float64), axis=1) + np.linalg.norm(flat(self.together).astype(np.float64), axis=1)
        self.size = rows + np.sqrt(self.case.ctx.d)
        self.rounding = 16.0 * OPERATIONS * self.case.ctx.u * self.size
        """Of an iterate: 1024·u·size, an evaluation's rounding amplified by 1/(1 − L) up to 16."""
        self.promised = 4.0 * promised(self.case.ctx)[0] * np.maximum(1.0, rows) + self.rounding

    def forward(self, x: HostArray) -> HostArray:
        """F(x)."""
        return self.case.ctx.f.forward(x, seed=SEED)

    def coupled(self) -> bool:
        """Whether a row is answered worse in the batch, or in the batch turned round, than alone."""
        alone = WORSE * self.miss(self.forward(self.alone)) + self.rounding
        return bool(any((self.miss(self.forward(x)) > alone).any() for x in (self.together, self.turned)))

    def miss(self, image: HostArray, y: HostArray | None = None) -> Array:
        """‖image − y‖ of each row."""
        return np.asarray(np.linalg.norm(flat(image).astype(np.float64) - flat(self.y if y is None else y), axis=1))


def inverse(case: Case, y: HostArray) -> Explanation | None:
    """Explain inverse(y)."""
    a = Answers(case, y)
    x = a.together
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    if (a.miss(x, a.call(y, seed=SEED + 1)) > a.promised).any() and (a.miss(x, a.call(y, seed=SEED)) <= a.promised).all():
        return Explanation(RANDOM, "inverse", "", len(y), 0.0, 0)
    wrong = a.miss(a.forward(x))
    zero = np.zeros(len(y))
    made = [Prediction(c, miss, a.promised, detail, fitted) for c, miss, detail, fitted in _equations(a)]
    made += [Prediction(c, miss, a.rounding, detail) for c, miss, detail in as_far_as_made(_steps(a))]
    found = explain("inverse", zero, wrong, made)
    if found is None:
        found = _narrow(a, wrong)
    if (found is None or found.fitted) and np.array_equal(y, case.y) and (wrong > a.promised).any():
        found = misplaced_steps.inverse(case, x, a.promised) or found  # without a fitted number it says more
    if found is None and (wrong > a.promised).any():
        return _jumps(a, wrong)
    return found


def is_wrong(case: Case, y: HostArray) -> bool:
    """Whether the inverse misses some y by more than it promises."""
    a = Answers(case, y)
    return not (a.miss(a.forward(a.together)) <= a.promised).all()


def _narrow(a: Answers, wrong: Array) -> Explanation | None:
    """The right answer to the rounding of a narrower dtype, in whose numbers it is."""
    for name, u in (("float16", 2.0**-11), ("float32", 2.0**-24)):
        if a.case.ctx.u < u and _stamped(a.together, name):
            right = bool((wrong <= 16.0 * OPERATIONS * u * a.size).all() and (wrong > 2.0 * a.rounding).any())
            return Explanation(NARROW, "inverse", name, len(wrong), 0.0, 0, f"Every number of its answers to {len(wrong)} inputs is one of "
                               f"{name}, and right to that.") if right else None
    return None


def _stamped(x: HostArray, name: str) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.array_equal(x, x.astype(name).astype(x.dtype)) and not (x == np.round(x)).all())


def _equations(a: Answers) -> Iterator[tuple[Cause, Array, str, int]]:
    """(cause, ‖M(x̂) − y‖ of each row, detail, fitted numbers)."""
    x, y, case = a.together, a.y, a.case
    image = a.forward(x)
    shape = (len(y), -1)
    yield MINUS_G, a.miss((x - case.residual(x)).astype(np.float64)), "", 0
    yield FORWARD, a.miss(a.forward(y), x), "", 0
    yield IDENTITY, a.miss(x), "", 0
    nearest = np.linalg.norm(flat(image)[:, None].astype(np.float64) - flat(y)[None], axis=2).argmin(1)
    if len(set(nearest.tolist())) == len(y) and (nearest != np.arange(len(y))).any():
        yield ROWS, a.miss(image, y[nearest]), f"row i is that of row {nearest.tolist()}", 0
    if (flat(x) == flat(x)[:1]).all():
        for i, words in ((0, "the first row"), (-1, "the last row"), *[(i, f"row {i + 1}") for i in range(1, len(y) - 1)]):
            yield ONE_ROW, a.miss(image, np.broadcast_to(y[i], y.shape)), words, 0
    for name, other in _images(a).items():
        yield AT_Y, a.miss(image, other), name, 0
    context = case.ctx.subject.context_shape is not None  # one for all rows: what is fitted is not told from another context
    if len(y) > SPARE and np.array_equal(y, case.y) and not context:
        yield from _of_the_preimage(flat(x).astype(np.float64), flat(case.x).astype(np.float64))
    yield from _columns(a, image.reshape(shape).astype(np.float64), y.reshape(shape).astype(np.float64))
    yield CACHED, a.miss(x, a.other), "", 0
    off = np.abs(image - y) > a.promised.reshape(-1, *[1] * (y.ndim - 1))
    if off.any():
        c = float(np.median(np.abs(image[off])))
        if (np.abs(y[off]) > c).all():
            yield CLIPPED, a.miss(np.clip(y, -c, c), image), f"{c:.6g}", 0
    yield from as_far_as_made(_blocks(a, x))
    stale = [] if context else list(as_far_as_made(_parameters(a, x)))
    made = [] if case.ctx.d > CHEAP or _holds(WITHOUT, stale, a) else list(as_far_as_made(_affine(a, flat(x).astype(np.float64))))
    yield from made
    known = any(_holds(cause, made, a) for cause in {cause for cause, *_ in made})
    yield from (s for s in stale if s[0] not in (NEGATED, SHIFT_SIGN_OF, SCALE_AGAIN_OF) or not known)
    if all((miss > a.promised).any() for _, miss, _, _ in stale):  # else the parameter that makes the factor is named
        g, rest = flat(case.residual(x)), flat(y).astype(np.float64) - flat(x)
        c = float((g * rest).sum() / max(float((g * g).sum()), 1e-300))
        yield SCALED_BRANCH, np.linalg.norm(rest - c * g, axis=1), f"{c:.6g}", 1
    for c in (0.5, 2.0):  # rather than a stale parameter of the last layer, which gives the same
        yield SCALED_BRANCH, np.linalg.norm(flat(y).astype(np.float64) - flat(x) - c * flat(case.residual(x)), axis=1), f"{c:g}", 0


def _holds(cause: Cause, made: list[tuple[Cause, Array, str, int]], a: Answers) -> bool:
    """Whether one of the equations of this cause holds."""
    return any(c is cause and bool((miss <= a.promised).all()) for c, miss, _, _ in made)


def _affine(a: Answers, x: Array) -> Iterator[tuple[Cause, Array, str, int]]:
    """Of a map y_i = s_i x_i + t_i, with s and t of other components than the i-th (a coupling, an autoregression), and of y = Wx + t."""
    J, y, least = a.case.ctx.jacobian(a.together).matrix, flat(a.y).astype(np.float64), a.promised.max()
    image = flat(a.forward(a.together)).astype(np.float64)
    for of, every in _scales(a, J, x, image):
        scale, shift = every[:, of], (image - every * x)[:, of]
        if np.abs(shift).max() <= least or np.abs(scale - 1.0).max() <= least:
            continue  # these are F itself, or the identity
        with np.errstate(all="ignore"):
            for cause, answer in ((SCALE_FIRST, y[:, of] / scale - shift), (SCALE_AGAIN, (y[:, of] - shift) * scale),
                                  (SHIFT_SIGN, (y[:, of] + shift) / scale), (NO_SHIFT, y[:, of] / scale), (NO_SCALE, y[:, of] - shift)):
                yield cause, np.linalg.norm(x[:, of] - answer, axis=1), "", 0
    at_y, image = a.case.ctx.jacobian(a.y).matrix, flat(a.forward(a.y)).astype(np.float64)
    there = np.diagonal(at_y, axis1=1, axis2=2)
    if (there != 0.0).all():
        yield AT_THE_IMAGE, np.linalg.norm(x - y - (y - image) / there, axis=1), "", 0
    if y.shape[1] <= SWEEP:
        for order, words in _orders(y.shape[1]):
            yield SWEPT, np.linalg.norm(x - _swept(a, order), axis=1), words, 0
    if np.abs(J - J.swapaxes(1, 2)).max() > least:
        origin = flat(a.forward(np.zeros_like(a.together[:1]))).astype(np.float64)
        yield TRANSPOSE, np.linalg.norm(x - np.einsum("nij,ni->nj", J, y - origin), axis=1), "", 0


def _scales(a: Answers, J: Array, x: Array, image: Array) -> Iterator[tuple[Any, Array]]:
    """(the components that are undone wrongly, the scales): of one step, and of either of two, of which the other is undone rightly."""
    d, least = x.shape[1], a.promised[:, None]
    scale = np.diagonal(J, axis1=1, axis2=2)
    yield np.ones(d, bool), scale
    wrong = (np.abs(x - flat(a.case.x)) > least).any(0)
    if np.array_equal(a.y, a.case.y) and wrong.any() and not wrong.all():
        yield wrong, scale
    wrong = (np.abs(image - flat(a.y)) > least).any(0)
    if wrong.any() and not wrong.all() and np.isfinite(J).all():
        own, rest = J[:, wrong], J[:, ~wrong]
        of_the_step = own[:, :, wrong] - own[:, :, ~wrong] @ np.linalg.solve(rest[:, :, ~wrong], rest[:, :, wrong])  # Schur's complement
        found = np.ones_like(x)
        found[:, wrong] = np.diagonal(of_the_step, axis1=1, axis2=2)
        yield wrong, found


def _orders(d: int) -> list[tuple[Sequence[int], str]]:
    """Orders in which components may be visited, in words too: from either end, and all of up to four."""
    found: list[tuple[Sequence[int], str]] = [(range(d), "from the first to the last"), (range(d)[::-1], "from the last to the first")]
    others = permutations(range(d)) if d <= SMALL else ()
    return found + [(p, f"in the order {', '.join(str(i + 1) for i in p)}") for p in others if p not in (tuple(o) for o, _ in found)]


def _swept(a: Answers, order: Iterable[int]) -> Array:
    """From x = 0, each component solved once, in this order, with the scale and the shift that the others give it then."""
    x = np.zeros_like(flat(a.y).astype(np.float64))
    for i in order:
        at = x.reshape(a.y.shape).astype(a.y.dtype)
        scale = a.case.ctx.jacobian(at).matrix[:, i, i]
        with np.errstate(all="ignore"):
            x[:, i] += (flat(a.y)[:, i] - flat(a.forward(at))[:, i]) / scale
    return x


def _images(a: Answers) -> dict[str, HostArray]:
    """What an inverse may solve for in place of y, by name."""
    y = a.y.astype(np.float64)
    points = {"y − g(y)": y - a.case.residual(a.y), "−y": -y, "g(y)": a.case.residual(a.y),
              "the mean of the batch": np.broadcast_to(y.mean(0), y.shape), "y less the mean of the batch": y - y.mean(0)}
    if y[0].size > 1:
        points |= {"y with its components in reverse": np.flip(y, -1), "y rolled by one": np.roll(y, 1, -1),
                   "y rolled back by one": np.roll(y, -1, -1)}
    return {name: np.asarray(p) for name, p in points.items()}


def _of_the_preimage(got: Array, x: Array) -> Iterator[tuple[Cause, Array, str, int]]:
    """x̂ as a function of x: shifted, scaled, clipped, mixed; (rows, d) each."""
    n, d = x.shape
    apart = got - x
    yield SHIFT, np.linalg.norm(apart - apart[:1], axis=1), f"{np.linalg.norm(apart[0]):.3g} (‖x̂ − x‖)", 1
    c = float((got * x).sum() / max(float((x * x).sum()), 1e-300))
    yield SCALED, np.linalg.norm(got - c * x, axis=1), f"{c:.6g}", 1
    each = (got * x).sum(0) / np.maximum((x * x).sum(0), 1e-300)
    yield SCALED, np.linalg.norm(got - each * x, axis=1), f"{', '.join(f'{v:.6g}' for v in each[:4])}{'…' if d > 4 else ''}", 2
    centred = x - x.mean(0)
    slope = (centred * (got - got.mean(0))).sum(0) / np.maximum((centred**2).sum(0), 1e-300)
    if (np.abs(slope) > 1e-6).all():  # else a component does not depend on x
        yield AFFINE, np.linalg.norm(got - got.mean(0) - slope * centred, axis=1), "", 3
    if n >= d + SPARE:
        yield MIXED, np.linalg.norm(got - x @ np.linalg.lstsq(x, got, rcond=None)[0], axis=1), "", max(d, 4)
    bound = float(np.abs(got).max())
    if bound and (np.abs(got) == bound).sum() > SPARE:
        yield CLIPPED_X, np.linalg.norm(got - np.clip(x, -bound, bound), axis=1), f"{bound:.6g}", 0


def _columns(a: Answers, image: Array, y: Array) -> Iterator[tuple[Cause, Array, str, int]]:
    gap = np.abs(image[:, :, None] - y[:, None, :]).max(0)  # (d, d)
    to = gap.argmin(1)
    if len(set(to.tolist())) == len(to) and (to != np.arange(len(to))).any():
        yield COLUMNS, a.miss(image, y[:, to]), _permutation(to), 0
    if a.case.x.shape == a.y.shape and np.array_equal(a.y, a.case.y):
        x, right = flat(a.together).astype(np.float64), flat(a.case.x).astype(np.float64)
        to = np.abs(x[:, :, None] - right[:, None, :]).max(0).argmin(1)
        if len(set(to.tolist())) == len(to) and (to != np.arange(len(to))).any():
            yield COLUMNS, a.miss(x, right[:, to]), _permutation(to), 0


def _permutation(to: Any) -> str:
    return f"component i is that of place {[int(i) for i in to[:8]]}{'…' if len(to) > 8 else ''}"


def _blocks(a: Answers, x: HostArray) -> Iterator[tuple[Cause, Array, str, int]]:
    found = blocks(a.case)
    if found is None or len(found) < 2:
        return
    for order, words in orders(len(found)):
        yield ORDER, a.miss(_through([found[i] for i in order], x)), words, 0
    n = len(found)
    for these in product(range(n), repeat=n) if n <= 3 else ():
        if len(set(these)) < n:
            yield REPEATED, a.miss(_through([found[i] for i in these], x)), f"{', '.join(str(i + 1) for i in these)} of {n}", 0
    for i in range(len(found)):
        yield LEFT_OUT, a.miss(_through(found[:i] + found[i + 1 :], x)), f"block {i + 1} of {len(found)}", 0


def _through(chain: list[Callable[[HostArray], HostArray]], x: HostArray) -> HostArray:
    for block in chain:
        x = block(x)
    return x


def _parameters(a: Answers, x: HostArray) -> Iterator[tuple[Cause, Array, str, int]]:
    chain = blocks(a.case) or []
    shorter = [flat(_through(chain[:i] + chain[i + 1 :], x)).astype(np.float64) for i in range(len(chain))] if len(chain) > 1 else []
    for name in parameters(a.case):
        def miss(c: float, name: str = name) -> HostArray:
            with with_parameter(a.case, name, c):
                return flat(a.forward(x)).astype(np.float64) - flat(a.y)

        without = miss(0.0)
        image = without + flat(a.y)
        if all(np.abs(image - other).max() > a.promised.max() for other in (flat(x), *shorter)):  # else a block is left out, or all of F
            yield WITHOUT, np.linalg.norm(without, axis=1), name, 0
        negated = miss(-1.0)
        if np.abs(negated + flat(a.forward(x)) + flat(a.y) - 2.0 * flat(x)).max() > a.promised.max():  # else g has the wrong sign
            missed = np.linalg.norm(negated, axis=1)
            yield (_negated(a, name) if (missed <= a.promised).all() else NEGATED), missed, name, 0
        fits = (_fitted(miss, start) for start in (1.0, 2.0, 0.5, -1.0))
        c, r = next(((c, r) for c, r in fits if (np.linalg.norm(r, axis=1) <= a.promised).all()), (1.0, miss(1.0)))
        if abs(c) > 1e-6:
            yield OTHER_VALUE, np.linalg.norm(r, axis=1), f"{name} multiplied by {c:.6g}", 1


def _negated(a: Answers, name: str) -> Cause:
    """What it means that a parameter has the wrong sign: it is a shift if J does not depend on it, a log-scale if −p undoes p in J."""
    if a.case.ctx.d > CHEAP:
        return NEGATED
    found = []
    for c in (0.0, 1.0, -1.0):
        with with_parameter(a.case, name, c):
            found.append(a.case.ctx.jacobian(a.together).matrix)
    without, plus, minus = found
    close = 1e-9 * (1.0 + np.abs(plus).max())
    if np.abs(plus - minus).max() <= close:
        return SHIFT_SIGN_OF if np.abs(plus - without).max() <= close else NEGATED
    if np.linalg.cond(without).max() > 1e9:
        return NEGATED
    undone = np.linalg.solve(without, plus) @ np.linalg.solve(without, minus) - np.eye(a.case.ctx.d)
    return SCALE_AGAIN_OF if np.abs(undone).max() <= 1e-9 else NEGATED


def _fitted(miss: Callable[[float], HostArray], c: float) -> tuple[float, HostArray]:
    """Gauss-Newton in the one number c; the residuals at the end, infinite where they are not finite."""
    r, step = miss(c), 1e-3
    for _ in range(8):
        slope = (miss(c + step) - r) / step
        if not np.isfinite(slope).all() or not (slope * slope).sum():
            break
        c -= float((slope * r).sum() / (slope * slope).sum())
        r = miss(c)
        step = 1e-6
    return c, np.where(np.isfinite(r), r, np.inf)


def _steps(a: Answers) -> Iterator[tuple[Cause, Array, str]]:
    """(cause, distance of each row's answer from the nearest iterate that the cause allows, detail)."""
    y = a.y.astype(np.float64)
    for start, words in ((y, "from x₀ = y"), (np.zeros_like(y), "from x₀ = 0")):
        iterates = [flat(start)]
        x = start
        for _ in range(STEPS):
            with np.errstate(all="ignore"):
                x = y - a.case.residual(x.astype(a.y.dtype))
            if not np.isfinite(x).all():
                break
            iterates.append(flat(x))
            if np.linalg.norm(iterates[-1] - iterates[-2], axis=1).max() == 0.0:
                break
        path = np.stack(iterates)
        alone, together = (np.linalg.norm(path - flat(z).astype(np.float64), axis=2) for z in (a.alone, a.together))  # (steps, rows)
        done = np.linalg.norm(path - path[-1], axis=2) <= a.rounding
        if done[0].all():
            return
        yield from _stopping(a, alone, together, done, words)
    J = a.case.ctx.jacobian(a.y) if a.case.ctx.d <= CHEAP else None
    if J is not None:
        x = y - np.linalg.solve(J.matrix, flat(a.case.residual(a.y))[..., None])[..., 0].reshape(y.shape)
        yield NEWTON, a.miss(a.together, x), "one step"


def _stopping(a: Answers, alone: Array, together: Array, done: Array, words: str) -> Iterator[tuple[Cause, Array, str]]:
    own = [np.flatnonzero(alone[:, i] <= a.rounding[i]) for i in range(alone.shape[1])]
    joint = np.flatnonzero((together <= a.rounding).all(1))
    far = np.full(alone.shape[1], np.inf)
    if not all(len(n) for n in own):
        if len(joint):  # rows alone are answered by other means
            yield FIXED, (together[joint[0]] if not done[joint[0]].all() else far), f"{joint[0]} steps"
        return
    first = np.array([n[0] for n in own])
    finished = bool(all(done[n[0], i] for i, n in enumerate(own))) or a.coupled()
    common = np.flatnonzero((alone <= a.rounding).all(1))
    if len(joint) and joint[0] < first.max() and first.min() < first.max() and not done[joint[0]].all():
        yield TOGETHER, together[joint[0]], f"after {joint[0]} steps, where they need {first.min()} to {first.max()} alone"
    elif len(common) and not finished and not done[common[0]].all():
        if not common[0]:
            return  # no step at all is the identity
        if not _as_many_steps(a, int(common[0]), words):
            yield EARLY, alone[common[0]], f", after {common[0]} steps {words}, and after another number at other inputs"
        else:
            yield FIXED, np.maximum(alone, together)[common[0]], f"{common[0]} step{'s' if common[0] != 1 else ''} {words}"
    elif not finished:
        yield EARLY, np.array([alone[n, i] for i, n in enumerate(first)]), f", after {first.min()} to {first.max()} steps {words}"


def _as_many_steps(a: Answers, n: int, words: str) -> bool:
    """Whether inputs of other sizes are answered by the n-th iterate too."""
    y = np.concatenate([0.01 * a.y, 10.0 * a.y]).astype(a.y.dtype)
    x = np.zeros_like(y) if words.endswith("0") else y
    for _ in range(n):
        x = (y - a.case.residual(x)).astype(y.dtype)
    rounding = np.concatenate([a.rounding, 10.0 * a.rounding])
    return bool((a.miss(a.case.alone(a.call, y), x) <= rounding).all())


def _jumps(a: Answers, wrong: Array) -> Explanation | None:
    """An answer whose error is small and jumps along a segment of y: an iteration that stops by a rule, whatever its steps are."""
    if not (wrong <= 0.05 * a.size).all() or len(a.y) < 2 or a.coupled():
        return None
    way = a.y[1].astype(np.float64) - a.y[0]
    points = np.stack([a.y[0] + s * way for s in np.linspace(0.0, 1.0, POINTS)]).astype(a.y.dtype)
    back = a.case.alone(a.call, points)
    rest = flat(a.forward(back)).astype(np.float64) - flat(points)
    steps = np.linalg.norm(np.diff(rest, axis=0), axis=1)
    bends = np.linalg.norm(np.diff(rest, 2, axis=0), axis=1)
    jumps = int((bends > 0.25 * np.linalg.norm(rest, axis=1).max()).sum())
    if jumps >= 2 and np.median(steps) < 0.5 * steps.max():
        largest = float((wrong / a.size).max())
        return Explanation(EARLY, "inverse", f": it leaves a residual of up to {largest:.1e} of the size of y, which jumps from y to y",
                           POINTS, 0.0, 0, f"Along a line of {POINTS} inputs the residual jumps {jumps} times and is smooth between.",
                           by_elimination=True)
    return None
