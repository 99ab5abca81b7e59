"""Good multipliers for wide branches: L-BFGS over log t on the largest eigenvalue that is left when M's signals are eliminated.

From the last signal to the first, S_jk ← S_jk − S_ijᵀ S_ii⁻¹ S_ik leaves a d×d matrix −S, and the least ρ is λ_max(S). Its smooth
stand-in is f = (tr S^p)^{1/p}, p a power of two, by squaring alone. With δ_i = B_i Δx the minimisers and W = S^{p−1}/tr S^p,

    ∂ log f/∂t_k = ⟨(δ_k − α_k v_k)(β_k v_k − δ_k)⟩_W.

A chain costs Σ n³ for its widths n instead of N³. Nothing here is trusted.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from iresnet_ref.branches.certificates.barrier import Centre
from iresnet_ref.branches.certificates.quadratic import Form, Quadratic, symmetric
from iresnet_ref.norms.semidefinite import Matrix

Evaluation = tuple[float, Matrix] | None
_STAGES = ((4, 0.2), (6, 0.3), (9, 0.5))
"""(log₂ p, the share of the evaluations) one after the other."""
_WORK, _FEWEST = 6e10, 24
"""Operations to spend, about two seconds; and evaluations at the least."""
_MEMORY = 25


def descend(problem: Quadratic, form: Form, start: Centre) -> Centre:
    """Return better multipliers."""
    cost = problem.network.copies * (10.0 * sum(float(n) ** 3 for n in problem.widths) + 16.0 * problem.widths[0] ** 3)
    evaluations = int(min(max(_WORK / cost, _FEWEST), 260))
    x, best = np.log(start.tau), start
    for squarings, share in _STAGES:
        def value(y: Matrix, squarings: int = squarings) -> Evaluation:
            return _evaluate(problem, form, np.exp(y), squarings)

        x = lbfgs(value, x, int(evaluations * share))
        rho = problem.least(form, np.exp(x))
        if rho < best.rho:
            best = Centre(np.exp(x), rho)
    return best


def _evaluate(problem: Quadratic, form: Form, tau: Matrix, squarings: int) -> Evaluation:
    """Return log f and its gradient by log τ, p = 2^squarings; None where t is not feasible."""
    count = len(problem.widths)
    m = problem.assemble(form, tau, 0.0).matrix
    blocks = {(j, k): m[:, problem.part(j), problem.part(k)] for j in range(count) for k in range(j + 1)}
    blocks = {at: b for at, b in blocks.items() if at[0] == at[1] or b.any()}
    gains: list[dict[int, Matrix]] = [{} for _ in range(count)]
    for i in range(count - 1, 0, -1):
        inner = symmetric(blocks[i, i])
        try:
            np.linalg.cholesky(inner)
        except np.linalg.LinAlgError:
            return None
        inverse = np.linalg.inv(inner)
        around = [j for j in range(i) if (i, j) in blocks]
        gains[i] = {j: inverse @ blocks[i, j] for j in around}
        for j in around:
            for k in (k for k in around if k <= j):
                less = blocks[i, j].swapaxes(1, 2) @ gains[i][k]
                blocks[j, k] = blocks[j, k] - less if (j, k) in blocks else -less
    found = _smooth_maximum(symmetric(-blocks[0, 0]), squarings)
    if found is None:
        return None
    logarithm, weight = found
    signals = [np.eye(problem.widths[0])[None]]
    gradient = np.zeros(problem.count)
    for i in range(1, count):
        delta = -np.sum([gain @ signals[j] for j, gain in gains[i].items()], axis=0)
        signals.append(delta)
        unit = problem.network.units[i - 1]
        v = np.sum([a.value @ signals[j] for j, a in problem.inputs[i - 1].items()], axis=0)
        left, right = delta - unit.low[:, None] * v, unit.high[:, None] * v - delta
        np.add.at(gradient, problem.ties[i - 1], ((left @ weight) * right).sum(axis=(0, 2)))
    return logarithm, gradient * tau


def _smooth_maximum(s: Matrix, squarings: int) -> Evaluation:
    """Return log (Σ tr S^p)^{1/p} over a stack, p = 2^squarings, and its gradient W by S; None where it is not finite or not positive."""
    scale = float(np.linalg.norm(s, axis=(1, 2)).max())
    if not 0.0 < scale < math.inf:
        return None
    power, logarithm, exponent = s / scale, math.log(scale), 1.0
    before: Matrix = np.broadcast_to(np.eye(s.shape[1]), s.shape)  # S^{p−1} = S^{p/2}⋯S²S
    for _ in range(squarings):
        before = before @ power
        power = power @ power
        size = float(np.linalg.norm(power, axis=(1, 2)).max())
        exponent *= 2.0
        logarithm += math.log(size) / exponent
        power = power / size
        before = before / float(np.linalg.norm(before, axis=(1, 2)).max())
    value = logarithm + math.log(float(np.einsum("fii->", power))) / exponent
    return value, before / float(np.sum(before * s))  # ⟨W, S⟩ = 1, since f is homogeneous


def lbfgs(value: Callable[[Matrix], Evaluation], x: Matrix, evaluations: int) -> Matrix:
    """Minimise by the limited-memory BFGS recursion (Nocedal & Wright 2006, Algorithm 7.5) with halving until the value falls (Armijo)."""
    now = value(x)
    if now is None:
        return x
    pairs: list[tuple[Matrix, Matrix, float]] = []
    used, length = 1, min(1.0, 1.0 / (float(np.abs(now[1]).sum()) + 1e-300))
    while used < evaluations:
        direction = -_inverse_hessian(pairs, now[1])
        slope = float(direction @ now[1])
        if slope >= 0.0:
            pairs, direction = [], -now[1]
            slope = float(direction @ now[1])
        step = length if not pairs else min(1.0, 2.0 / float(np.abs(direction).max()))
        moved = None
        while used < evaluations:
            after = value(x + step * direction)
            used += 1
            if after is not None and after[0] <= now[0] + 1e-4 * step * slope:
                moved = after
                break
            step *= 0.4
            if step < 1e-9:
                return x
        if moved is None:
            return x
        change, bend = step * direction, moved[1] - now[1]
        curvature = float(change @ bend)
        if curvature > 1e-12 * float(np.linalg.norm(change) * np.linalg.norm(bend)):
            pairs = [*pairs[-_MEMORY + 1 :], (change, bend, curvature)]
        x, now = x + change, moved
        if -slope < 1e-9:
            break
    return x


def _inverse_hessian(pairs: list[tuple[Matrix, Matrix, float]], gradient: Matrix) -> Matrix:
    q: Matrix = gradient.copy()
    along: list[float] = []
    for change, bend, curvature in reversed(pairs):
        a = float(change @ q) / curvature
        along.append(a)
        q -= a * bend
    if pairs:
        _, bend, curvature = pairs[-1]
        q *= curvature / float(bend @ bend)
    for (change, bend, curvature), a in zip(pairs, reversed(along), strict=True):
        q += (a - float(bend @ q) / curvature) * change
    return q
