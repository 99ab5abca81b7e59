"""Hypotheses of log-determinants: what a value or an expectation would be by each known mistake, from the Jacobian of g.

A = J_g (rows, d, d), t = log|det(I + A)|, p_k = tr Aᵏ. Behrmann et al. 2019, eq. 3: t = Σ (−1)^{k+1} p_k/k while ρ(A) < 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product

import numpy as np

from iresnet_verify.diagnosis.families import Family
from iresnet_verify.diagnosis.hypothesis import SPARE, Array, Cause, Prediction

LONGEST = 400
"""Powers of A that are summed; where they have not vanished by then, sums of infinitely many terms are not predicted."""
SIGNS = 8
"""Dimension up to which every vector of signs is tried for a probe."""
CUT = 60
"""Longest series that is recognised as cut."""

SIGN = Cause("sign", "{what} is minus what it should be: the sign of the log-det, or of every term of its series, is wrong.",
             "Return +log|det|: the k-th term of the series is (−1)^(k+1) tr(Jᵏ)/k.")
PLUS = Cause("series-without-signs", "{what} adds up every term of the series with one sign: it is ∓log det(I − J).",
             "Alternate the signs: the k-th term is (−1)^(k+1) tr(Jᵏ)/k.")
MINUS_J = Cause("minus-j", "{what} is log|det(I − J)|: J has the wrong sign.", "Use I + J.")
NO_IDENTITY = Cause("identity-forgotten", "{what} is log|det J| of the residual: the identity is forgotten.",
                    "Take the determinant of I + J.")
SURROGATE = Cause("missing-1/k", "{what} is tr(J(I + J)⁻¹): the 1/k of the series is missing, or the value of the surrogate is returned, "
                  "of which only the gradient is that of the log-det.",
                  "Divide the k-th term by k; of a Neumann surrogate declare log_det_is='gradient-only'.")
OFF_BY_ONE = Cause("k-off-by-one", "{what} has {detail}: k is off by one.", "The k-th term is (−1)^(k+1) tr(Jᵏ)/k, from k = 1 on.")
SQUARED = Cause("1/k²", "{what} divides its k-th term by k², where k belongs.", "The k-th term is (−1)^(k+1) tr(Jᵏ)/k.")
ABSOLUTE = Cause("absolute-value", "{what} is the absolute value of the log-det.", "Take the logarithm of |det|, not its absolute value.")
BLOCK_ORDER = Cause("order-of-blocks", "{what} is that of the blocks {detail}.",
                    "Give each block the output of the one before.")
ALL_AT_X = Cause("blocks-at-one-point", "{what} evaluates every block at {detail}.", "Give each block the output of the one before it.")
BLOCK_FACTOR = Cause("block-factor", "{what} takes {detail}.", "Add each block's log-det once, with its sign; "
                     "of a layer that acts on every pixel alike it counts H·W times.")
BLOCK_LEFT_OUT = Cause("block-left-out", "{what} leaves out {detail}.", "Add the log-det of every block.")
DROPPED = Cause("terms-dropped", "{what} lacks {detail} of the series.", "Add up every term from k = 1 on.")
CUT_SHORT = Cause("cut-short", "{what} is the series cut after {detail}.",
                  "Declare the bound of what is left out, log_det_is=<nats>, draw the length at random, or take more terms.")
COMPONENTS = Cause("components-left-out", "{what} leaves out {detail}, as a slice that is one too short does.",
                   "Sum over all components.")
SCALES = Cause("scale-for-its-logarithm", "{what} is {detail} of the map's scales, not the sum of their logarithms.", "Add up log|s|.")
DIAGONAL = Cause("diagonal-only", "{what} is the sum of the logarithms of the diagonal of I + J, as for an element-wise map.",
                 "Take the determinant of the whole matrix.")
FACTOR = Cause("factor", "{what} is {detail} times what it should be.", "Remove the factor.")
BATCH_FACTOR = Cause("factor", "{what} is {detail} times what it should be: the number of rows is in it.",
                     "Let nothing that the batch brings into a row's value.")
AFFINE = Cause("factor-and-constant", "{what} is {detail}.", "Remove the factor and the constant.")
CLAMPED = Cause("clamped", "{what} is changed on one side of a value: {detail}.", "Let every value through.")
ROUNDED = Cause("rounded", "{what} is rounded to {detail}.", "Do not round.")
OTHER_VALUE = Cause("parameter-stale", "{what} is that of the network with `{detail}`.",
                    "Read the parameters anew in each call: a copy of them is out of date.")
NEGATED = Cause("parameter-sign", "{what} is that of the network with −`{detail}`.", "Give it the sign that it has in forward.")
WITHOUT = Cause("parameter-forgotten", "{what} is that of the network with `{detail}` = 0.", "Use `{detail}` as in forward.")
MATRIX = Cause("another-matrix", "{what} is made of {detail}, not of I + J.", "Take the determinant of I + J.")
NOT_CENTRED = Cause("probes-not-centred", "{what} draws probes that are {detail}, of which E[vvᵀ] is not I.",
                    "Draw signs or standard normal probes.")
ONES = Cause("one-fixed-probe", "{what} takes vᵀJᵏv along one v alone for the traces: {detail}.",
             "Draw the probes anew, centred, or take the trace over all unit vectors.")
OFFSET = Cause("constant-added", "{what} is off by {detail} at every input.", "Look for a missing or superfluous constant.")
AT_ANOTHER_POINT = Cause("at-another-point", "{what} is the log-det at {detail}.", "Evaluate it where it is asked for.")
PERMUTED = Cause("rows-permuted", "{what} gives each row the value of another row: {detail}.", "Keep the rows in their order.")
ONE_ROW = Cause("one-row-for-all", "{what} gives every row the value of {detail}.", "Return one value a row.")
REDUCED = Cause("reduced-over-the-batch", "{what} gives every row the {detail} over the batch.", "Reduce over the axes of the event only.")
ZERO = Cause("zero", "{what} is 0.", "Return the log-det, or leave it out.")
CONSTANT = Cause("constant", "{what} does not depend on x: it is {detail} at every input.",
                 "Evaluate it at x: the slopes of the activations belong to the Jacobian.")
EPSILON = Cause("epsilon-in-the-log", "{what} has {detail} inside its logarithm.", "Take the logarithm of the value itself, by slogdet.")
NARROW = Cause("float32-inside", "{what} is right to {detail} only: it is computed in a narrower dtype than the argument's.",
               "Compute in the dtype of the argument.")
NOT_FINITE = Cause("not-finite", "{what} is NaN or infinite where the determinant is not 0.", "Take log|det| by slogdet.")
EULER = Cause("trace", "{what} is {detail}.", "Take the logarithm of the determinant.")


@dataclass(frozen=True)
class Volumes:
    """The right numbers at some rows, and what the wrong ones are made of."""

    A: Array
    """J_g, (rows, d, d)."""
    t: Array
    """log|det(I + A)|, (rows,)."""
    slack: Array
    """Rounding of t, (rows,)."""
    u: float
    event: tuple[int, ...]
    sign: float = 1.0
    """−1 for the log-det of the inverse, whose right value is −t."""
    elsewhere: Mapping[str, Array] = field(default_factory=dict)
    """The log-det at other points that a mistake might take, by their names."""
    of_parts: tuple[tuple[Cause, Array, str], ...] = ()
    """(cause, log-det, detail) of blocks that are put together wrongly, or of the network without one of its parameters."""
    of_blocks: tuple[Array, ...] = ()
    """The log-det of each block, where F is a chain of them: they add up to t."""
    families: tuple[Family, ...] = ()
    """Log-dets with one number to be fitted."""

    @property
    def right(self) -> Array:
        """The right value."""
        return self.sign * self.t

    @cached_property
    def traces(self) -> Array:
        """p_1, …, p_K, (K, rows)."""
        power, found = self.A.copy(), [np.trace(self.A, axis1=1, axis2=2)]
        longest = LONGEST if self.A.shape[1] <= 64 else CUT
        with np.errstate(over="ignore", invalid="ignore"):
            while len(found) < longest and np.abs(power).max(initial=0.0) > 1e-18:
                power = power @ self.A
                found.append(np.trace(power, axis1=1, axis2=2))
        return np.stack(found)

    @property
    def k(self) -> Array:
        """1, …, K as a column."""
        return np.arange(1.0, len(self.traces) + 1.0)[:, None]

    @property
    def terms(self) -> Array:
        """(−1)^{k+1} p_k/k, (K, rows)."""
        return (-1.0) ** (self.k + 1) * self.traces / self.k

    @property
    def vanish(self) -> bool:
        """Whether the terms left out are below rounding."""
        return bool(np.abs(self.traces[-1]).max(initial=0.0) <= self.u)

    @property
    def of_a_small_matrix(self) -> Array:
        """64·u·√d·(‖A‖ + 1)·Σ 1/σ_i: what the rounding of A changes in log|det A|, as in `log_det_truth`."""
        s = np.linalg.svd(self.A, compute_uv=False)
        with np.errstate(divide="ignore"):
            return np.asarray(64.0 * self.u * math.sqrt(self.A.shape[1]) * (s[:, 0] + 1.0) * (1.0 / s).sum(1))

    @property
    def levels(self) -> int:
        """How many different values t has at these rows; 1 for a constant, to which any line may be fitted."""
        return 1 + int((np.diff(np.sort(self.t)) > 2.0 * self.tolerance(self.t).max(initial=0.0)).sum())

    def tolerance(self, numbers: Array) -> Array:
        """8·slack + 64·u·(|number| + d): what rounding may change in a number that is made of A like t."""
        return 8.0 * self.slack + 64.0 * self.u * (np.abs(numbers) + self.A.shape[1])


def fitting(tolerance: Array) -> Array:
    """Twice the largest: a number that is taken from one row brings that row's rounding into all."""
    return np.full(np.shape(tolerance), 2.0 * tolerance.max(initial=0.0))


def predictions(v: Volumes, got: Array) -> Iterator[Prediction]:
    """Every prediction of a log-det that depends on x alone."""
    for cause, value, detail, fitted in _values(v, got):
        numbers = v.sign * np.asarray(value, dtype=np.float64)
        allowed = v.tolerance(numbers) + (8.0 * v.of_a_small_matrix if cause == NO_IDENTITY else 0.0)
        yield Prediction(cause, numbers, fitting(allowed) if fitted else allowed, detail, fitted)


def _values(v: Volumes, got: Array) -> Iterator[tuple[Cause, Array, str, int]]:
    t, A, rows = v.t, v.A, len(v.t)
    d = A.shape[1]
    eye = np.eye(d)
    ones = np.ones(rows)
    with np.errstate(all="ignore"):
        yield SIGN, -t, "", 0
        yield ZERO, 0.0 * t, "", 0
        if (t > 0.0).any() and (t < 0.0).any():  # else it is ±t
            yield ABSOLUTE, np.abs(t), "", 0
        minus = np.linalg.slogdet(eye - A)[1]
        if v.vanish:
            yield PLUS, -minus, "", 0
        yield MINUS_J, minus, "", 0
        yield NO_IDENTITY, np.linalg.slogdet(A)[1], "", 0
        solved = np.linalg.solve(eye + A, A) if np.isfinite(A).all() and np.isfinite(t).all() else A * np.nan
        yield SURROGATE, np.trace(solved, axis1=1, axis2=2), "", 0
        yield from _of_the_diagonal(v)
        yield EULER, np.exp(t), "the determinant, not its logarithm", 0
        yield EULER, np.log1p(np.abs(v.traces[0])), "log(1 + |tr J|)", 0
        yield from _series(v)
        for c, words in factors(v.A.shape[1], v.event):
            yield FACTOR, c * t, words, 0
        for c, words in ((float(rows), f"the batch size, {rows},"), (1.0 / rows, f"1/(the batch size), 1/{rows},")):
            yield BATCH_FACTOR, c * t, words, 0
        pivot = int(np.argmax(np.abs(t)))
        c = v.sign * got[pivot] / t[pivot] if t[pivot] else np.nan
        yield FACTOR, c * t, f"{c:.6g}", 1
        shift = v.sign * got[pivot] - t[pivot]
        yield OFFSET, t + shift, f"{shift:.6g}", 1
        for name, value in v.elsewhere.items():
            yield AT_ANOTHER_POINT, value, name, 0
        for cause, value, words in v.of_parts:
            yield cause, value, words, 0
        yield from _of_blocks(v, t, v.sign * got)
        yield from _of_other_matrices(v)
        yield from _of_the_value(t, v.sign * got)
        for family in v.families:
            for words, value in family.fitted(v.sign * got, t):
                yield family.cause, value, words, 1
        yield from _rows(t, got * v.sign)
        yield CONSTANT, ones * got[0] * v.sign, f"{got[0]:.6g}", 1
        eps = np.exp(v.sign * got[pivot]) - np.exp(t[pivot])
        if eps > 0:
            yield EPSILON, np.log(np.exp(t) + eps), f"{eps:.3g}", 1


def _series(v: Volumes) -> Iterator[tuple[Cause, Array, str, int]]:
    terms, traces, k = v.terms, v.traces, v.k
    cut = np.cumsum(terms, axis=0)
    for n in range(min(CUT, len(terms))):
        yield CUT_SHORT, cut[n], f"{n + 1} term{'s' if n else ''}", 0
    if not v.vanish:
        return
    sign = (-1.0) ** (k + 1)
    yield OFF_BY_ONE, (sign * traces / (k + 1)).sum(0), "1/(k + 1) for 1/k", 0
    yield SQUARED, (sign * traces / k**2).sum(0), "", 0
    yield OFF_BY_ONE, (sign[:-1] * traces[1:] / k[:-1]).sum(0), "tr(J^(k+1)) for tr(Jᵏ)", 0
    yield OFF_BY_ONE, (sign[1:] * traces[1:] / k[:-1]).sum(0), "1/(k − 1) for 1/k", 0
    yield DROPPED, terms[::2].sum(0), "every even term", 0
    yield DROPPED, terms[1::2].sum(0), "every odd term", 0
    total = terms.sum(0)
    for n in range(min(8, len(terms))):
        yield DROPPED, total - terms[n], f"term {n + 1}", 0
    power = np.linalg.matrix_power(v.A, 2)
    yield Cause("two-products-a-term", "{what} has tr(J²ᵏ) where tr(Jᵏ) belongs.", "Multiply by J once a term."), \
        np.linalg.slogdet(np.eye(v.A.shape[1]) + power)[1], "", 0
    # E[vvᵀ] of probes on [0, 1] is their variance on the diagonal, and 1/4 everywhere
    product, moments = v.A, []
    for _ in range(len(terms)):
        moments.append(product.sum((1, 2)) / 4.0)
        product = product @ v.A
    for variance, words in ((1.0 / 12.0, "uniform on [0, 1]"), (0.25, "0 or 1")):
        yield NOT_CENTRED, (sign * (variance * traces + np.stack(moments)) / k).sum(0), words, 0


def _of_blocks(v: Volumes, t: Array, got: Array) -> Iterator[tuple[Cause, Array, str, int]]:
    """One block's log-det with a factor, or one block's alone."""
    n = len(v.of_blocks)
    named = {-1.0: "−1", **{c: words.partition(" (")[0] for c, words in factors(v.A.shape[1], v.event)}}
    for i, own in enumerate(v.of_blocks, 1):
        if np.abs(own - t).max() <= v.tolerance(t).max():
            continue  # the others have none
        for c, words in named.items():
            yield BLOCK_FACTOR, t + (c - 1.0) * own, f"the log-det of block {i} of {n} times {words}", 0
        if n > 2:
            yield BLOCK_LEFT_OUT, own, f"every block but number {i}", 0
        pivot = int(np.argmax(np.abs(own)))
        if _independent(own, np.ones(len(t))):  # else it is a constant
            c = 1.0 + (got - t)[pivot] / own[pivot]
            yield BLOCK_FACTOR, t + (c - 1.0) * own, f"the log-det of block {i} of {n} times {c:.6g}", 1


def _of_the_diagonal(v: Volumes) -> Iterator[tuple[Cause, Array, str, int]]:
    """The diagonal of I + J alone, its sum, its product, or a part of I + J."""
    d = v.A.shape[1]
    s = 1.0 + np.diagonal(v.A, axis1=1, axis2=2)
    logs = np.log(np.abs(s)).sum(1)
    yield DIAGONAL, logs, "", 0
    yield EULER, np.abs(s).prod(1), "the product of the diagonal of I + J", 0
    if (np.abs(logs - v.t) <= v.tolerance(v.t)).all():
        yield from _of_scales(v, s)
    else:
        yield EULER, s.sum(1), "the trace of I + J", 0
    for kept, words in ((slice(0, d - 1), "the last component"), (slice(1, d), "the first component"),
                        (slice(0, d // 2), "the second half of the components"), (slice(d // 2, d), "the first half of them")):
        part = np.linalg.slogdet((np.eye(d) + v.A)[:, kept, kept])[1]
        if _independent(part, v.t):  # else it is t with a factor, or 0
            yield COMPONENTS, part, words, 0
    if d > 1:
        yield from _of_two_steps(v, d // 2)


def _of_two_steps(v: Volumes, k: int) -> Iterator[tuple[Cause, Array, str, int]]:
    """Of maps that change one half and then the other: log|det J| is that of one block of J, and of what is left of it (Schur)."""
    J = np.eye(v.A.shape[1]) + v.A
    for own, other, words in ((slice(0, k), slice(k, None), "first"), (slice(k, None), slice(0, k), "second")):
        part, rest = np.linalg.slogdet(J[:, own, own])[1], np.linalg.slogdet(J[:, other, other])[1]
        if not _independent(part, v.t) or not np.isfinite(part).all() or np.abs(v.t - part - rest).max() <= 1e-9:
            continue  # it is t with a factor, or J is triangular: these are its components
        yield BLOCK_LEFT_OUT, v.t - part, f"the step that changes the {words} half of the components", 0
        for c in (-1.0, 2.0, 0.5):
            yield BLOCK_FACTOR, v.t + (c - 1.0) * part, f"the log-det of the step that changes the {words} half times {c:g}", 0
            yield BLOCK_FACTOR, c * v.t + (1.0 - c) * part, f"the log-det of the steps but that of the {words} half times {c:g}", 0


def _of_scales(v: Volumes, s: Array) -> Iterator[tuple[Cause, Array, str, int]]:
    """Of a coupling or an autoregression, whose log-det is Σ log|s_i|: the sum of the s_i, or of what their activation is given."""
    s = s[:, (np.abs(s - 1.0) > v.tolerance(v.t)[:, None]).any(0)]
    if s.shape[1] == 0:
        return
    yield SCALES, s.sum(1), "the sum", 0
    if (s > 0.0).all():
        yield SCALES, np.log(np.expm1(s)).sum(1), "the sum before the softplus", 0
    if ((s > 0.0) & (s < 1.0)).all():
        logits = np.log(s / (1.0 - s)).sum(1)
        yield SCALES, logits, "the sum before the sigmoid", 0
        yield SCALES, logits - 2.0 * s.shape[1], "the sum before 2 is added and the sigmoid", 0


def _independent(a: Array, b: Array) -> bool:
    """Whether a is no multiple of b."""
    return bool(np.isfinite(a).all() and np.linalg.matrix_rank(np.stack([a, b]), tol=1e-9 * float(np.abs([a, b]).max(initial=1e-300))) > 1)


def _of_other_matrices(v: Volumes) -> Iterator[tuple[Cause, Array, str, int]]:
    """What J is mistaken for. A gradient of Σ g is the vector of column sums, in which people see the diagonal."""
    if v.A.shape[1] == 1:
        return
    A, eye = v.A, np.eye(v.A.shape[1])
    T = A.swapaxes(1, 2)
    with np.errstate(all="ignore"):
        yield MATRIX, np.linalg.slogdet(eye + (A + T) / 2.0)[1], "the symmetric part (J + Jᵀ)/2", 0
        yield MATRIX, np.linalg.slogdet(eye + np.abs(A))[1], "|J|, entry by entry", 0
        yield MATRIX, np.linalg.slogdet(eye + T @ A)[1], "I + JᵀJ", 0
        if np.isfinite(A).all():
            yield MATRIX, np.log1p(np.linalg.svd(A, compute_uv=False)).sum(1), "the singular values of J, Σ log(1 + σ_i)", 0
        for axis, words in ((1, "column"), (2, "row")):
            yield MATRIX, np.log(np.abs(1.0 + A.sum(axis))).sum(1), f"the {words} sums of J, Σ log|1 + Σ_j J_ij|", 0
        if v.vanish:
            power, total = A, np.zeros(len(A))
            for k in range(1, len(v.traces) + 1):
                total = total + (-1.0) ** (k + 1) * power.sum((1, 2)) / k
                if k <= CUT or k == len(v.traces):
                    yield ONES, total, f"v = (1, …, 1), {k} terms", 0
                power = power @ A
            yield from _along(v)


def _along(v: Volumes) -> Iterator[tuple[Cause, Array, str, int]]:
    """Σ (−1)^{k+1} vᵀAᵏv/k for each v of signs."""
    d = v.A.shape[1]
    for rest in product((1.0, -1.0), repeat=d - 1) if d <= SIGNS else ():
        if min(rest) > 0.0:
            continue  # as above
        probe = np.array([1.0, *rest])
        w, total = np.broadcast_to(probe, (len(v.A), d)), np.zeros(len(v.A))
        for k in range(1, len(v.traces) + 1):
            w = np.einsum("nij,nj->ni", v.A, w)
            total = total + (-1.0) ** (k + 1) * (w @ probe) / k
            if k <= CUT or k == len(v.traces):
                yield ONES, total, f"v = ({', '.join(f'{p:g}' for p in probe)}), {k} terms", 0


def _of_the_value(t: Array, got: Array) -> Iterator[tuple[Cause, Array, str, int]]:
    """Functions of the right value: c·t + b; t changed above or below 0, or cut off; t rounded to decimals."""
    n = len(t)
    if not (np.isfinite(t).all() and np.isfinite(got).all()):
        return
    (slope, constant), *_ = np.linalg.lstsq(np.stack([t, np.ones(n)], 1), got, rcond=None)
    if abs(slope) > 1e-6:  # else it does not depend on t
        yield AFFINE, slope * t + constant, f"{slope:.6g} times what it should be and {constant:+.6g}", 2
    for side, words in ((t > 0.0, "positive"), (t < 0.0, "negative")):
        if side.sum() > SPARE and not side.all():
            i = int(np.argmax(np.where(side, np.abs(got - t), -1.0)))
            c = got[i] / t[i]
            yield CLAMPED, np.where(side, c * t, t), f"{words} ones are multiplied by {c:.6g}", 1
    for bound, cut, words in ((float(got.max()), np.minimum, "above"), (float(got.min()), np.maximum, "below")):
        if SPARE < (got == bound).sum() < n:
            yield CLAMPED, cut(t, bound), f"none is {words} {bound:.6g}", 1
    for decimals in range(7):
        if np.round(t, decimals).any():  # else it is 0
            yield ROUNDED, np.round(t, decimals), f"{decimals} decimals", 0


def factors(d: int, event: tuple[int, ...]) -> list[tuple[float, str]]:
    """Numbers that a log-det may be multiplied by, with their names."""
    area, channels = math.prod(event[1:]), math.prod(event[:1])
    named = {1.0 / math.log(2.0): "1/log 2 (it is in bits)", 1.0 / math.log(10.0): "1/log 10", 2.0: "2 (a sum of two for their "
        "mean)", 0.5: "1/2"}
    named |= {float(d): f"d = {d}", 1.0 / d: f"1/d = 1/{d}"} if d > 1 else {}
    named |= {float(area): f"H·W = {area}", 1.0 / area: f"1/(H·W) = 1/{area}"} if len(event) > 1 else {}
    for size in event[1:]:
        if size != channels:
            named[channels / size] = f"{channels}/{size} (the channels for a side)"
    return list(named.items())


def _rows(t: Array, got: Array) -> Iterator[tuple[Cause, Array, str, int]]:
    n = len(t)
    for shift in (1, -1):
        yield PERMUTED, np.roll(t, shift), f"they are shifted by {shift}", 0
    yield PERMUTED, t[::-1], "they are reversed", 0
    nearest = np.abs(got[:, None] - t[None, :]).argmin(1) if np.isfinite(got).all() and np.isfinite(t).all() else np.arange(n)
    if len(set(nearest.tolist())) == n and (nearest != np.arange(n)).any():
        yield PERMUTED, t[nearest], "they are permuted", 0
    for row, name in ((0, "the first row"), (-1, "the last row")):
        yield ONE_ROW, np.full(n, t[row]), name, 0
    yield REDUCED, np.full(n, t.sum()), "sum", 0
    yield REDUCED, np.full(n, t.mean()), "mean", 0


def narrow(v: Volumes, got: Array, roughness: Array) -> Iterator[Prediction]:
    """The right value to the rounding of a narrower dtype: its numbers are of that dtype, or jump between neighbouring inputs."""
    d = v.A.shape[1]
    J = np.eye(d) + v.A
    condition = np.linalg.norm(J, axis=(1, 2)) * np.linalg.norm(np.linalg.inv(J), axis=(1, 2))
    for name, u in (("float16", 2.0**-11), ("float32", 2.0**-24)):
        with np.errstate(over="ignore"):
            stamped = np.array_equal(got, got.astype(name).astype(np.float64)) and not (got == np.round(got)).all()
        rough = bool(np.median(roughness) > 64.0 * v.u * (1.0 + np.abs(v.t).max()))
        if v.u < u and (stamped or (rough and name == "float32")):
            yield Prediction(NARROW, v.right, 64.0 * u * (np.abs(v.t) + d * condition), name)
            return
