"""Incremental quadratic constraints: Lip(g), and what else of ⟨Δg, Δx⟩ and ‖aΔx + bΔg‖ follows from the slopes of g's units.

δ_k = s v_k with s ∈ [α_k, β_k] has (δ_k − α_k v_k)(β_k v_k − δ_k) ≥ 0. With multipliers t ≥ 0 let

    q(δ) = Q(δ) − Σ_k t_k (δ_k − α_k v_k)(β_k v_k − δ_k),      δ = (Δx, δ₁, …) ∈ R^N,  v = Aδ.

If its symmetric matrix M(t, ρ) ⪰ 0, then Q(δ) ≥ 0 at every pair of points. With Q = ρ‖Δx‖² − ‖Δg‖² that is Lip(g) ≤ √ρ (Fazlyab,
Robey, Hassani, Morari, Pappas, *Efficient and Accurate Estimation of Lipschitz Constants*, NeurIPS 2019, arXiv 1906.04893;
incremental constraints: Wang, Manchester, ICML 2023, arXiv 2301.11526). Whoever proposes t and ρ is not trusted: `proves` computes M with
a bound on its rounding and factorises it once (`norms.semidefinite`). docs/proofs.md derives each line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from iresnet_ref import rounding
from iresnet_ref.arrays import HostArray
from iresnet_ref.branches.certificates.network import Combination, Network, UnreadableError
from iresnet_ref.norms.dense import times_power_of_two
from iresnet_ref.norms.semidefinite import Matrix, Rounded, proves_semidefinite

_U = rounding.FLOAT64_ROUNDOFF
MOST_SCALED = 300
"""The largest exponent of a scaled weight: what underflows before is below 2⁻⁷⁵⁰ after."""
LARGEST_MULTIPLIER, LARGEST_WEIGHT = 2.0**100, 2.0**40
_ATTEMPTS = 24
Exponents = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Form:
    """Q(δ) = ρ‖Δx‖² + sign·‖aΔx + bΔg‖², or with `sign` 0 ρ‖Δx‖² + ⟨Δx, bΔg⟩."""

    a: float
    b: float
    sign: int


LIPSCHITZ = Form(0.0, 1.0, -1)


class Quadratic:
    """M(t, ρ) of a network, its signals scaled by powers of two so that every matrix is of size about 1: Δg = 2^`exponent` Δg̃.

    Multipliers are one for each tie: τ of length `count`, `ties[i]` the places of unit i's entries in it.
    """

    def __init__(self, network: Network) -> None:
        """Scale. Raises UnreadableError where a weight is out of range."""
        self.network = network
        rows, self.exponent = _scaling(network)
        self.widths = [network.width, *(len(unit.low) for unit in network.units)]
        self.offsets = np.cumsum([0, *self.widths])
        self.size = int(self.offsets[-1])
        self.inputs = [_scaled(unit.inputs, rows[i], rows) for i, unit in enumerate(network.units, 1)]
        self.output = _scaled(network.output, np.full(_height(network.output), self.exponent), rows)
        if max(float(np.abs(a.value).max(initial=0.0)) for c in (*self.inputs, self.output) for a in c.values()) > LARGEST_WEIGHT:
            raise UnreadableError("its weights span too many magnitudes")
        count = 0
        self.ties: list[HostArray] = []
        for unit in network.units:
            self.ties.append(unit.tie + count)
            count += int(unit.tie.max()) + 1
        self.count = count

    def part(self, i: int) -> slice:
        """Return where signal i stands in δ."""
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))

    def factor(self, form: Form) -> float:
        """Return b of the scaled problem: for Q without Δx in what is bounded ρ scales along, and b is 1."""
        return form.b if form == LIPSCHITZ else math.ldexp(form.b, self.exponent)

    def bounded(self, form: Form) -> Combination:
        """Return aΔx + bΔg̃ by signals."""
        b = self.factor(form)
        out = {j: g if b == 1.0 else g.times(b) for j, g in self.output.items()}
        if form.a:
            own = Rounded.exact(np.full((1, 1, 1), form.a) * np.eye(self.widths[0])[None])
            out[0] = out[0] + own if 0 in out else own
        return out

    def assemble(self, form: Form, tau: Matrix, rho: float) -> Assembled:
        """Return M̂(t, ρ), with the absolute terms and the roundings of its entries."""
        count = self.network.copies
        out = Assembled(np.zeros((count, self.size, self.size)), self.offsets)
        out.diagonal(0, np.full(self.widths[0], rho))
        g = self.bounded(form)
        if form.sign:
            out.gram(g, np.full(_height(g), float(form.sign)))
        else:
            out.cross(0, g, np.full(self.widths[0], -0.5))
        for i, (unit, v, tie) in enumerate(zip(self.network.units, self.inputs, self.ties, strict=True), 1):
            t = tau[tie]
            out.diagonal(i, t)
            out.cross(i, v, 0.5 * (unit.low + unit.high) * t, 0.5 * (np.abs(unit.low) + np.abs(unit.high)) * t)
            weight = unit.low * unit.high * t
            if weight.any():
                out.gram(v, weight)
        return out

    def proves(self, form: Form, tau: Matrix, rho: float) -> bool:
        """Return whether M(t, ρ) ⪰ 0 is proved: t and ρ may come from anywhere."""
        if not (np.isfinite(tau).all() and (tau >= 0.0).all() and math.isfinite(rho)):
            return False
        if tau.max(initial=0.0) > LARGEST_MULTIPLIER or abs(self.factor(form)) > LARGEST_MULTIPLIER or abs(rho) > LARGEST_MULTIPLIER:
            return False
        assembled = self.assemble(form, tau, rho)
        return proves_semidefinite(assembled.matrix, assembled.absolute, assembled.terms)

    def least(self, form: Form, tau: Matrix) -> float:
        """Return, in floating point, the least ρ with M(t, ρ) ⪰ 0 for these t; inf where there is none."""
        m = symmetric(self.assemble(form, tau, 0.0).matrix)
        d = self.widths[0]
        try:
            np.linalg.cholesky(m[:, d:, d:])
        except np.linalg.LinAlgError:
            return math.inf
        coupling = m[:, d:, :d]
        schur = coupling.swapaxes(1, 2) @ np.linalg.solve(m[:, d:, d:], coupling) - m[:, :d, :d]
        return float(np.linalg.eigvalsh((schur + schur.swapaxes(1, 2)) / 2.0)[:, -1].max())

    def prove_least(self, form: Form, tau: Matrix) -> float:
        """Return a proved ρ for these t, just above the least one; inf where none is proved."""
        start = self.least(form, tau)
        if not math.isfinite(start):
            return math.inf
        excess = 4.0 * _U * self.size * (self.size + 8)
        unit = max(abs(start), 1e-30 if form == LIPSCHITZ else 1e-3)
        for _ in range(_ATTEMPTS):
            rho = start + unit * excess
            if self.proves(form, tau, rho):
                return rho
            excess *= 4.0
        return math.inf

    def root(self, rho: float) -> float:
        """Return a bound ≥ 2^exponent·√ρ for ρ ≥ 0."""
        return times_power_of_two(math.sqrt(rho) * (1.0 + 2.0 * _U), self.exponent) if rho > 0.0 else 0.0

    def start(self, growth: float = 1.2) -> Matrix:
        """Return multipliers of about the product bound; the larger the growth from layer to layer, the surer M can be made positive."""
        sizes = [{j: float(np.linalg.norm(a.value, 2, axis=(1, 2)).max()) for j, a in c.items()} for c in (*self.inputs, self.output)]
        weights = np.zeros(len(self.widths))
        for j, norm in sizes[-1].items():
            weights[j] += norm * norm * len(sizes[-1])
        tau = np.zeros(self.count)
        for i in range(len(self.widths) - 1, 0, -1):
            unit = self.network.units[i - 1]
            largest = np.maximum(np.abs(unit.low), np.abs(unit.high))
            need = growth * max(float(weights[i]), 1e-12)
            np.maximum.at(tau, self.ties[i - 1], 2.0 * largest / np.maximum(unit.high - unit.low, 1e-9) * need)
            for j, norm in sizes[i - 1].items():
                weights[j] += need * norm * norm * float(largest.max()) ** 2 * len(sizes[i - 1])
        return tau


class Assembled:
    """A stack of symmetric matrices by their lower triangles, |M̂ − M| ≤ γ_terms N̄ with N̄ known by its products."""

    def __init__(self, matrix: Matrix, offsets: Exponents) -> None:
        """Begin with zero."""
        self.matrix = matrix
        self._offsets = offsets
        self._longest = 0
        self._added = 0
        self._diagonal = np.zeros(matrix.shape[-1])
        self._crosses: list[tuple[int, int, Matrix, Matrix]] = []
        self._grams: list[tuple[list[int], list[Matrix], Matrix]] = []

    def part(self, i: int) -> slice:
        """Return where signal i stands."""
        return slice(int(self._offsets[i]), int(self._offsets[i + 1]))

    def diagonal(self, i: int, entries: Matrix) -> None:
        """Add diag(entries) to block (i, i)."""
        at = np.arange(int(self._offsets[i]), int(self._offsets[i + 1]))
        self.matrix[:, at, at] += entries
        self._diagonal[at] += np.abs(entries)
        self._rounds(0)

    def cross(self, i: int, v: Combination, weight: Matrix, absolute: Matrix | None = None) -> None:
        """Add −(e_iᵀ diag(weight) v + its transpose); for i = 0 also to the blocks (0, 0)."""
        size = np.abs(weight) if absolute is None else absolute
        for j, a in v.items():
            block = -weight[:, None] * a.value
            if j == i:
                self.matrix[:, self.part(i), self.part(i)] += block + block.swapaxes(1, 2)
            elif j < i:
                self.matrix[:, self.part(i), self.part(j)] += block
            else:
                self.matrix[:, self.part(j), self.part(i)] += block.swapaxes(1, 2)
            self._crosses.append((i, j, size, a.absolute))
            self._rounds(2 + a.roundings)

    def gram(self, v: Combination, weight: Matrix) -> None:
        """Add vᵀ diag(weight) v."""
        signals = sorted(v)
        for j in signals:
            left = (weight[:, None] * v[j].value).swapaxes(1, 2)
            for k in (k for k in signals if k <= j):
                self.matrix[:, self.part(j), self.part(k)] += left @ v[k].value
                self._rounds(len(weight) + v[j].roundings + v[k].roundings + 2)
        self._grams.append((signals, [v[j].absolute for j in signals], np.abs(weight)))

    def _rounds(self, roundings: int) -> None:
        """Count: a term is rounded so many times, at most eight more for its factors, and once with every addition."""
        self._added += 1
        self._longest = max(self._longest, roundings)

    @property
    def terms(self) -> int:
        """Return how many roundings any term of any entry meets at most."""
        return self._longest + 8 + self._added

    def absolute(self, x: Matrix) -> Matrix:
        """Return N̄x for x ≥ 0 of shape (count, N)."""
        y = self._diagonal * x
        for i, j, size, a in self._crosses:
            y[:, self.part(i)] += size * _times(a, x[:, self.part(j)])
            y[:, self.part(j)] += _times(a.swapaxes(1, 2), size * x[:, self.part(i)])
        for signals, absolutes, weight in self._grams:
            v = weight * sum(_times(a, x[:, self.part(j)]) for j, a in zip(signals, absolutes, strict=True))
            for j, a in zip(signals, absolutes, strict=True):
                y[:, self.part(j)] += _times(a.swapaxes(1, 2), v)
        return y


def _times(a: Matrix, x: Matrix) -> Matrix:
    return (a @ x[:, :, None])[:, :, 0]


def symmetric(m: Matrix) -> Matrix:
    """Return the symmetric matrices of these lower triangles."""
    lower = np.tril(m)
    both: Matrix = lower + np.tril(m, -1).swapaxes(1, 2)
    return both


def _height(combination: Combination) -> int:
    return next(iter(combination.values())).value.shape[1]


def _scaling(network: Network) -> tuple[list[Exponents], int]:
    """Return e with δ_i = 2^{e_i}·δ̃_i entry by entry (0 for Δx), and that of Δg, which bring every matrix to a size of about 1.

    Forward, a row of each v̂ is brought to size 1; then half of what its column lacks in the units behind is moved, by ties.
    """
    exponents: list[Exponents] = [np.zeros(network.width, dtype=np.int64)]
    for unit in network.units:
        exponents.append(_tied(unit.tie, _sizes(unit.inputs, exponents, 2)))
    for i, unit in enumerate(network.units, 1):
        after = [later.inputs for later in network.units[i:]]
        behind = [_columns(c, i, exponents[k], exponents[i]) for k, c in enumerate(after, i + 1) if i in c]
        if i in network.output:
            top = int(_sizes(network.output, exponents, 2).max(initial=0))
            behind.append(_columns(network.output, i, np.full(_height(network.output), top), exponents[i]))
        if behind:
            ahead = _sizes(unit.inputs, exponents, 2) - exponents[i]
            most: Exponents = np.max(np.stack(behind), axis=0)
            exponents[i] = exponents[i] + _tied(unit.tie, np.round(0.5 * (ahead - most)).astype(np.int64))
    top = int(_sizes(network.output, exponents, 2).max(initial=0))
    if max(int(np.abs(e).max(initial=0)) for e in (*exponents, np.asarray([top]))) > MOST_SCALED // 2:
        raise UnreadableError("its weights span too many magnitudes")
    return exponents, top


def _sizes(combination: Combination, exponents: list[Exponents], axis: int) -> Exponents:
    """Return the exponent of the largest entry of each row of Σ A_j 2^{e_j}; 0 where all are 0."""
    parts = [_exponents(a.value, exponents[j][None, None, :], axis) for j, a in combination.items()]
    largest = np.max(parts, axis=0)
    return np.where(largest == _NOTHING, 0, largest)


def _columns(combination: Combination, j: int, rows: Exponents, columns: Exponents) -> Exponents:
    """Return the exponent of the largest entry in each column of A_j, scaled; −∞ becomes the row's own."""
    found = _exponents(combination[j].value, (columns[None, :] - rows[:, None])[None], 1)
    return np.where(found == _NOTHING, 0, found)


_NOTHING = -(2**40)


def _exponents(a: Matrix, shift: Exponents, axis: int) -> Exponents:
    if not np.isfinite(a).all():
        raise UnreadableError("a product of its weights leaves the range of float64")
    parts = np.where(a == 0.0, _NOTHING, np.frexp(a)[1] + shift)
    return np.asarray(parts.max(axis=(0, axis), initial=_NOTHING), dtype=np.int64)


def _tied(tie: HostArray, exponents: Exponents) -> Exponents:
    """Return one exponent for each tie, the largest of its entries."""
    out = np.full(int(tie.max()) + 1, _NOTHING)
    np.maximum.at(out, tie, exponents)
    return out[tie]


def _scaled(combination: Combination, rows: Exponents, exponents: list[Exponents]) -> Combination:
    return {j: a.scaled(-rows, exponents[j]) for j, a in combination.items()}
