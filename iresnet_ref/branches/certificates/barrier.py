"""Good multipliers by Newton's method on a barrier: min ρ − (log det M(t, ρ) + Σ log t)/w for growing w. Nothing here is trusted.

Where α ≤ 0 ≤ β for every unit, M ≻ 0 alone implies t > 0, and Σ log t is left out: it would slow down by driving multipliers of no weight.

M = ρE₀ + B − Σ_k t_k (a_k b_kᵀ + b_k a_kᵀ)/2 with a_k = e_k − α_k A_k, b_k = β_k A_k − e_k. With the inner products of M⁻¹,

    ∂/∂t_k (−log det M) = ⟨a_k, b_k⟩,        ∂²/∂t_k∂t_l = (⟨a_k, a_l⟩⟨b_k, b_l⟩ + ⟨a_k, b_l⟩⟨b_k, a_l⟩)/2.

A step is taken where it leaves M ⪰ M_before/10, and w grows where the decrement is below .7: otherwise the iteration jams at the boundary,
and what it returns is 10 to 100 % worse. One step costs about eight products of N×N matrices: for N up to a few hundred, or few inputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from iresnet_ref.arrays import HostArray
from iresnet_ref.branches.certificates.quadratic import Form, Quadratic, symmetric
from iresnet_ref.norms.semidefinite import Matrix

_GROWTH = 4.0
_NEAR = 0.7
_KEPT = 0.1


@dataclass(frozen=True)
class Centre:
    """Multipliers τ and a ρ with M(τ, ρ) ≻ 0, in the middle of what is feasible."""

    tau: Matrix
    rho: float


def first(problem: Quadratic, form: Form, slack: float = 1.0) -> Centre | None:
    """Return a feasible centre from the product bound's multipliers; None where none is found."""
    for growth in (1.2, 2.0, 4.0, 16.0, 256.0):
        tau = problem.start(growth)
        found = [(problem.least(form, q * tau), q) for q in (1.0, 2.0, 0.3, 0.1)]
        rho, q = min(found)
        if math.isfinite(rho):
            return Centre(q * tau, rho + slack * (abs(rho) + 1e-12))
    return None


def newton(problem: Quadratic, form: Form, start: Centre, gap: float, steps: int = 150, floor: float = 0.0) -> Centre:
    """Return a centre whose ρ is, where the method gets there, within about gap·(|ρ| + `floor`) of the least one."""
    barrier = _Barrier(problem, form)
    at = barrier.point(start)
    if at is None:
        return start
    best, centred = start, math.inf
    weight = barrier.degree / (0.3 * (abs(start.rho) + floor + 1e-30))
    for _ in range(steps):
        found = barrier.step(at, weight)
        if found is None:
            break
        after = barrier.search(at, weight, *found)
        if after is None:
            break
        at, rho, wanted = after, after.centre.rho, gap * (abs(after.centre.rho) + floor)
        if rho < best.rho:
            best = at.centre
        if found[1] < _NEAR:
            # the error falls as 1/w: a third of the last decrease is left
            if barrier.degree / weight < 1.01 * wanted or centred - rho < wanted:
                break
            centred = rho
            weight = min(weight * _GROWTH, barrier.degree / wanted)
    return best


@dataclass(frozen=True, eq=False)
class _Point:
    """A centre, M there and its Cholesky factor."""

    centre: Centre
    m: Matrix
    factor: Matrix


class _Barrier:
    """wρ − Σ log det M − Σ log t of a problem, its derivatives and the search along a direction."""

    def __init__(self, problem: Quadratic, form: Form) -> None:
        self.a, self.b = _constraints(problem)
        self.at, self.bt = self.a.swapaxes(1, 2), self.b.swapaxes(1, 2)
        self.base = symmetric(problem.assemble(form, np.zeros(problem.count), 0.0).matrix)
        self.inputs = np.arange(problem.widths[0])
        self.tie: HostArray = np.concatenate(problem.ties)
        tied = len(self.tie) != problem.count or bool((self.tie != np.arange(len(self.tie))).any())
        self.fold = (np.arange(problem.count)[:, None] == self.tie[None, :]).astype(np.float64) if tied else None
        self.kept = float(any((unit.low * unit.high > 0.0).any() for unit in problem.network.units))
        self.degree = len(self.base) * problem.size + self.kept * problem.count

    def matrix(self, centre: Centre) -> Matrix:
        """Return M(t, ρ)."""
        s = self.at @ (centre.tau[self.tie][:, None] * self.b)
        m = np.asarray(self.base - 0.5 * (s + s.swapaxes(1, 2)), dtype=np.float64)
        m[:, self.inputs, self.inputs] += centre.rho
        return m

    def point(self, centre: Centre, before: Matrix | None = None) -> _Point | None:
        """Return the point where M ≻ 0 and M ≻ M_before/10; else None."""
        m = self.matrix(centre)
        if before is not None and _cholesky(m - _KEPT * before) is None:
            return None
        factor = _cholesky(m)
        return None if factor is None else _Point(centre, m, factor)

    def value(self, at: _Point, weight: float) -> float:
        """Return the barrier."""
        logdet = 2.0 * float(np.log(np.einsum("fii->fi", at.factor)).sum())
        return weight * at.centre.rho - logdet - self.kept * float(np.log(at.centre.tau).sum())

    def step(self, at: _Point, weight: float) -> tuple[Matrix, float] | None:
        """Return Newton's step in (ρ, τ) and its decrement."""
        d, tau = len(self.inputs), at.centre.tau
        inverse = np.linalg.inv(at.m)
        ai, bi = self.a @ inverse, self.b @ inverse
        aa, bb, ab = ai @ self.at, bi @ self.bt, ai @ self.bt
        slope = np.einsum("fii->i", ab)
        bend = 0.5 * (aa * bb + ab * ab.swapaxes(1, 2)).sum(axis=0)
        mixed = -(ai[:, :, :d] * bi[:, :, :d]).sum(axis=(0, 2))
        if self.fold is not None:
            slope, bend, mixed = self.fold @ slope, self.fold @ bend @ self.fold.T, self.fold @ mixed
        corner = inverse[:, :d, :d]
        gradient = np.concatenate([[weight - np.einsum("fii->", corner)], slope - self.kept / tau])
        hessian = np.empty((len(gradient),) * 2)
        hessian[0, 0] = (corner * corner).sum()
        hessian[0, 1:] = hessian[1:, 0] = mixed
        hessian[1:, 1:] = bend + np.diag(self.kept / tau**2)
        step = _solved(hessian, gradient)
        return None if step is None else (step, math.sqrt(max(-float(gradient @ step), 0.0)))

    def search(self, at: _Point, weight: float, step: Matrix, decrement: float) -> _Point | None:
        """Return the first point along the step that is inside and lower enough (Armijo)."""
        tau, shrinks = at.centre.tau, step[1:] < 0.0
        length = min(1.0, 0.9 * float(np.min(-tau[shrinks] / step[1:][shrinks]))) if shrinks.any() else 1.0
        value = self.value(at, weight)
        for _ in range(40):
            after = self.point(Centre(tau + length * step[1:], at.centre.rho + length * float(step[0])), at.m)
            if after is not None and self.value(after, weight) <= value - 0.1 * length * decrement**2 + 1e-9 * abs(value):
                return after
            length *= 0.65
        return None


def _constraints(problem: Quadratic) -> tuple[Matrix, Matrix]:
    """Return the rows a_k and b_k of all units, (frequencies, multipliers before ties, N)."""
    count, d = problem.network.copies, problem.widths[0]
    a = np.zeros((count, problem.size - d, problem.size))
    b = np.zeros_like(a)
    for i, (unit, v) in enumerate(zip(problem.network.units, problem.inputs, strict=True), 1):
        part = problem.part(i)
        rows = slice(part.start - d, part.stop - d)
        for j, block in v.items():
            a[:, rows, problem.part(j)] = -unit.low[:, None] * block.value
            b[:, rows, problem.part(j)] = unit.high[:, None] * block.value
        k: HostArray = np.arange(rows.start, rows.stop, dtype=np.intp)
        a[:, k, k + d] += 1.0
        b[:, k, k + d] -= 1.0
    return a, b


def _cholesky(m: Matrix) -> Matrix | None:
    try:
        factor = np.asarray(np.linalg.cholesky(m), dtype=np.float64)
    except np.linalg.LinAlgError:
        return None
    return factor if np.isfinite(factor).all() else None


def _solved(hessian: Matrix, gradient: Matrix) -> Matrix | None:
    """Return −H⁻¹g, H scaled to a diagonal of ones, a little regularised where it has to be."""
    diagonal = hessian.diagonal()
    if not (np.isfinite(hessian).all() and (diagonal > 0.0).all()):
        return None
    d = 1.0 / np.sqrt(diagonal)
    scaled = hessian * d[:, None] * d[None, :]
    for more in (0.0, 1e-15, 1e-13, 1e-11):
        scaled[np.diag_indices(len(d))] += more
        if _cholesky(scaled) is not None:
            step: Matrix = np.asarray(-d * np.linalg.solve(scaled, d * gradient), dtype=np.float64)
            return step if np.isfinite(step).all() else None
    return None
