"""The exact expectation of a black box's random estimate, by enumeration of its own randomness.

E[X] = Σ_n P(N = n) · mean over Hadamard columns h of X(n, h) for every X that is, at each n, a quadratic polynomial of
the probe plus odd terms, since Σ_h h hᵀ = m·I for the m = 2^⌈log₂ d⌉ columns cut to d rows. With X̄(n) the mean over
columns, summation by parts gives the form used here, stable because each term is of the size of its contribution:

    E[X] = X̄(n₀) + Σ_{n > n₀} e_n,    e_n = P(N ≥ n)·(X̄(n) − X̄(n − 1)).

For a correct roulette e_n = (−1)^{n+1} tr Jⁿ/n: a wrong coefficient is seen at its own n.

Validity is tested, never assumed (`prepare`): injected draws decide the value (other seeds give the same one); a row
depends on its own probes only; slots are additive; and, in the probe, either *quadratic* (doubling multiplies the
stochastic part by 4 and the parallelogram identity holds), or a *sign* of the draw (value(2v) = value(v) = value(sign v)
and no fourth mixed difference on signs), or homogeneous on the *sphere* (value(2v) = value(v), ‖v‖²·value quadratic;
normal draws). Otherwise `NotEnumerableError` gives the reason, and the caller samples.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from iresnet_verify.randomness.distributions import Distribution
from iresnet_verify.randomness.injection import (
    InjectedDraws,
    Vector,
    distributions_of,
    is_modelled,
    length_place,
    padded,
)
from iresnet_verify.randomness.recorder import Draw, ReplaceDraw
from iresnet_verify.subject.subject import HostArray

OTHER_SEEDS = 24
"""Seeds under which injected draws must give the same value. A hidden geometric(½) length escapes with probability Σ_n 2⁻²⁵ⁿ < 3e-8."""


class NotEnumerableError(Exception):
    """The expectation of this estimate cannot be enumerated, for the reason given."""


@dataclass
class RandomEstimate:
    """A random estimate: `evaluate(x, seed)` -> (batch,), with everything but the injected draws fixed by the seed."""

    evaluate: Callable[[HostArray, int], Vector]
    inject: Callable[[ReplaceDraw], AbstractContextManager[Any]]
    event: tuple[int, ...]
    roundoff: float
    seconds: float = 30.0
    """Processor time of the calling thread: waiting for a busy machine costs none, so that load decides nothing."""

    @property
    def d(self) -> int:
        """Entries of one event."""
        return int(np.prod(self.event, dtype=int))


def hadamard(d: int) -> Vector:
    """Return the 2^⌈log₂ d⌉ Hadamard columns cut to d rows, one per row of the answer: Σ h hᵀ = m·I_d.

    >>> h = hadamard(3); (h.T @ h).tolist()
    [[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 4.0]]
    """
    h = np.ones((1, 1))
    while h.shape[0] < d:
        h = np.block([[h, h], [h, -h]])
    return h[:, :d]


def rounding_of(d: int, u: float, terms: int = 1) -> float:
    """Return 4(d + 64)·u·terms: the relative rounding of a sum of `terms` chained products through layers ≈ max(d, 64) wide.

    An inner product of n terms is accurate to γ_n ≈ nu in the worst case and to about √n·u in practice; the bound for
    64 stands for widths up to some thousands.
    """
    return 4.0 * (d + 64) * u * terms


class Enumerator:
    """The prepared enumeration of one estimate. `length` is the distribution of its series length, None where it draws none."""

    def __init__(self, estimate: RandomEstimate, x: HostArray, seed: int) -> None:
        self.estimate, self.seed, self.rows = estimate, seed, 0
        self.row_major, self.variant = False, 0
        self.even = False
        self.observed = 0.0
        self.last: list[Draw] = []
        self.kind = "constant"
        self.per_row_lengths = True
        self.started = time.thread_time()
        self.draws = self._discover(x[:1])
        batch = padded(x[:1], estimate.event)
        self.probe_distributions, lengths = distributions_of(self.draws, batch, estimate.event)
        self.discrete = any(k.distribution.family == "two-point" and k.value.dtype.kind != "f" for k in self.draws)
        self.length: Distribution | None = lengths[0] if lengths else None
        self.per_row_lengths = all(
            length_place(d.shape, batch) is not None for d in self.draws if d.distribution.family == "length")
        if len({(w.label, w.start) for w in lengths}) > 1:
            raise NotEnumerableError("series lengths of different distributions are drawn in one call")
        self._prepare(x[0])

    # -- calls

    def evaluate(self, x: HostArray, draws: InjectedDraws, seed: int | None = None) -> Vector:
        """Evaluate the estimate at the rows of x, padded, with these draws (their arrays padded alike)."""
        m, batch = x.shape[0], padded(x, self.estimate.event)
        index = np.r_[np.arange(m), np.zeros(batch - m, dtype=int)]
        for name in ("probes", "lengths", "other", "other_lengths"):
            value = getattr(draws, name)
            if value is not None:
                setattr(draws, name, value[index])
        draws.row_major, draws.variant = self.row_major, self.variant
        try:
            with self.estimate.inject(lambda draw: draws(draw, batch, self.estimate.event)):
                values = self.estimate.evaluate(np.ascontiguousarray(x[index]), self.seed if seed is None else seed)
        except Exception as error:  # a subject may raise anything on draws that its generator never gives
            if draws.probes is None:
                raise
            raise NotEnumerableError(f"injected draws raise {type(error).__name__}: {str(error)[:80]}") from error
        self.rows += batch
        self.last = draws.seen
        return np.asarray(values, dtype=np.float64)[:m]

    def at(self, x: HostArray, z: Vector, n: npt.ArrayLike, **more: Any) -> Vector:
        """X(n, z) for each row of x, its standardised probe z (rows, d), and its length n (rows,) or one for all."""
        lengths = np.broadcast_to(np.asarray(n, dtype=np.int64), x.shape[:1])
        seed = more.pop("seed", None)
        return self.evaluate(x, InjectedDraws(probes=z, lengths=lengths, **more), seed)

    def _discover(self, x: HostArray) -> list[Draw]:
        draws = InjectedDraws()
        self.evaluate(x, draws)
        return draws.seen

    # -- validity

    @property
    def start(self) -> int:
        """The smallest series length; 0 where none is drawn."""
        return 0 if self.length is None else self.length.start

    def survival(self, n: int) -> float:
        """P(N ≥ n)."""
        if self.length is None:
            return float(n <= self.start)
        return 1.0 if self.length.survival is None else self.length.survival(n)

    @property
    def survival_error(self) -> float:
        """Absolute error of P(N ≥ n): the granularity of the uniforms the sampler starts from."""
        return 0.0 if self.length is None else self.length.granularity

    @property
    def length_distribution_unknown(self) -> bool:
        """Whether lengths can be injected although P(N ≥ n) is not known."""
        return self.length is not None and self.length.survival is None

    def _prepare(self, row: HostArray) -> None:
        rng = np.random.default_rng(self.seed)
        d, n = self.estimate.d, self.start + (2 if self.survival(self.start + 2) > 0 else 0)
        pair = np.stack([row] * 8)
        z = rng.normal(size=(8, d))
        base = self.at(pair, z, n)
        if not np.isfinite(base).all():
            raise NotEnumerableError("values with injected draws are not finite")
        self.tolerance = 64.0 * rounding_of(d, self.estimate.roundoff, n + 1) * (float(np.abs(base).max()) + d)
        fixed = self._unmodelled(pair)
        for k in range(1, OTHER_SEEDS + 1):
            if self._differ(base, self.at(pair, z, n, seed=self.seed + k)):
                raise NotEnumerableError(f"draws besides probes and lengths change the value ({self._others()})")
            if self._unmodelled(pair) != fixed:
                raise NotEnumerableError(f"draws that are neither probes nor series lengths vary ({self._others()})")
        if not self.probe_distributions and self.length is None:
            return
        for self.variant in (0, 1):  # where the event may lie at two places, the slots tell which
            try:
                self._check_rows(pair, z, n, rng)
                self._check_slots(pair, z, n, rng)
                break
            except NotEnumerableError:
                if self.variant == 1:
                    raise
        self._classify(row, rng, n)

    def _unmodelled(self, x: HostArray) -> list[tuple[str, bytes]]:
        """Names and values of the last call's draws that are not enumerated. The same at every seed they are constants."""
        batch, event = padded(x, self.estimate.event), self.estimate.event
        return [(d.name, pickle.dumps(d.value.tolist())) for d in self.last if not is_modelled(d, batch, event)]

    def _others(self) -> str:
        names = sorted({d.name for d in self.draws}) or ["none seen"]
        return "draws seen: " + ", ".join(names)

    def _differ(self, a: Vector, b: Vector) -> bool:
        """Whether an identity is broken; what an accepted one is off by is kept, and counts as error of the expectation."""
        gap = float(np.max(np.abs(a - b), initial=0.0))
        if gap <= self.tolerance:
            self.observed = max(self.observed, gap)
            return False
        return True  # NaN too

    def _check_rows(self, x: HostArray, z: Vector, n: int, rng: np.random.Generator) -> None:
        changed = z.copy()
        changed[3] = rng.normal(size=z.shape[1])
        for row_major in (False, True):
            self.row_major = row_major
            if not self._differ(np.delete(self.at(x, changed, n), 3), np.delete(self.at(x, z, n), 3)):
                break
        else:
            raise NotEnumerableError("the value of a row depends on the probes of other rows")
        if self.length is None or not self.per_row_lengths or self.survival(n + 1) <= 0.0:
            return
        longer = np.full(x.shape[0], n, dtype=np.int64)
        longer[3] = n + 1
        if self._differ(np.delete(self.at(x, z, longer), 3), np.delete(self.at(x, z, n), 3)):
            raise NotEnumerableError("the value of a row depends on the series lengths of other rows")

    def _check_slots(self, x: HostArray, z: Vector, n: int, rng: np.random.Generator) -> None:
        """X with slots mixed two ways sums to X with equal slots: no slot multiplies another."""
        other = rng.choice([-1.0, 1.0], size=z.shape)
        z = np.sign(z)
        mixed = self.at(x, z, n, other=other, mask=1) + self.at(x, other, n, other=z, mask=1)
        if self._differ(mixed, self.at(x, z, n) + self.at(x, other, n)):
            raise NotEnumerableError("probes of one row multiply each other (orthogonalised, or a quadratic cross term)")
        if self.length is None or self.survival(n + 1) <= 0.0:
            return
        a, b = np.full(x.shape[0], n, dtype=np.int64), np.full(x.shape[0], n + 1, dtype=np.int64)
        mixed = self.at(x, z, a, other_lengths=b, mask=2) + self.at(x, z, b, other_lengths=a, mask=2)
        if self._differ(mixed, self.at(x, z, a) + self.at(x, z, b)):
            raise NotEnumerableError("several series lengths of one row do not enter additively")

    def _classify(self, row: HostArray, rng: np.random.Generator, n: int) -> None:
        d = self.estimate.d
        u, v = rng.normal(size=(2, d))
        signs = np.sign(rng.normal(size=(4, d)))
        points = np.stack([0 * v, v, 2 * v, u, u + v, u - v, np.sign(v), np.sign(u), *signs])
        x = np.stack([row] * len(points))
        plus, minus = self.at(x, points, n), self.at(x, -points, n)
        self.even = not self._differ(plus, minus)
        f = (plus + minus) / 2.0
        self.tolerance = max(self.tolerance, 64.0 * rounding_of(d, self.estimate.roundoff, n + 1) * float(np.nanmax(np.abs(f))))
        discrete, two_point = self.discrete, all(w.family == "two-point" for w in self.probe_distributions)
        skewed = not all(w.symmetric for w in self.probe_distributions)
        if np.isfinite(f).all() and not discrete and not self._differ(f[1:], f[:1]):
            self.kind = "independent of the probe"
        elif not discrete and self._is_quadratic(f[0], f[1:6]):
            self.kind = "quadratic"
        elif (two_point or not self._differ(f[[1, 2, 3]], f[[6, 6, 7]])) and not skewed and self._is_cubic_free(row, rng, n):
            self.kind = "sign"
        elif all(w.family == "normal" and w.mean == 0.0 for w in self.probe_distributions) and not self._differ(f[1:2], f[2:3]) and (
            self._is_quadratic(np.float64(0.0), f[1:6] * (points[1:6] ** 2).sum(1))
        ):
            self.kind = "sphere"
        else:
            raise NotEnumerableError("the value is neither quadratic in the probe nor a function of its signs")
        if skewed and not self.even:
            raise NotEnumerableError("odd terms in the probe, whose distribution is not symmetric")

    def _is_quadratic(self, zero: np.float64, f: Vector) -> bool:
        """On the symmetrised values at v, 2v, u, u + v, u − v, with the value at 0."""
        v, twice, u, plus, minus = f - zero
        return not self._differ(np.array([twice, plus + minus]), np.array([4.0 * v, 2.0 * (u + v)]))

    def _is_cubic_free(self, row: HostArray, rng: np.random.Generator, n: int) -> bool:
        """Whether all fourth mixed differences over two random partitions of the coordinates vanish (odd orders cancel)."""
        for _ in range(2):
            block = rng.permutation(self.estimate.d) % 4
            corners = np.array(list(np.ndindex(2, 2, 2, 2))) * 2.0 - 1.0
            z = corners[:, block] * np.sign(rng.normal(size=self.estimate.d))
            x = np.stack([row] * 16)
            f = (self.at(x, z, n) + self.at(x, -z, n)) / 2.0
            if self.estimate.d >= 4 and abs(float(f @ corners.prod(1))) > 16.0 * self.tolerance:
                return False
        return True

    # -- the expectation

    def columns(self) -> Vector:
        """The probes to enumerate: Hadamard columns, and their negatives unless the value is even in the probe."""
        if not self.probe_distributions or self.kind == "independent of the probe":
            return np.ones((1, self.estimate.d))
        h = hadamard(self.estimate.d)
        return h if self.even else np.concatenate([h, -h])

    def means(self, x: HostArray, n: int) -> tuple[Vector, Vector]:
        """X̄(n) on each row of x, and the mean of |X(n, h)|."""
        h = self.columns()
        values = self.at(np.repeat(x, len(h), axis=0), np.tile(h, (len(x), 1)), n).reshape(len(x), len(h))
        return values.mean(1), np.abs(values).mean(1)

    def describe(self) -> str:
        """How the expectation is enumerated, in words."""
        lengths = "no series length" if self.length is None else f"every series length of {self.length.label}"
        return f"{self.columns().shape[0]} Hadamard columns (value: {self.kind}) × {lengths}"
