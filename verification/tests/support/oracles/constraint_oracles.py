"""Incremental quadratic constraints without the reference's arithmetic: M in ball arithmetic, what slopes reach, and a second solver."""

from __future__ import annotations

from typing import Any

import numpy as np
from flint import arb

from iresnet_ref.branches.certificates.quadratic import Form, Quadratic
from iresnet_verify.golden.balls import bits

Host = np.ndarray[Any, Any]
BALLS = np.frompyfunc(arb, 1, 1)


def full(combination: Any, problem: Quadratic, rows: int) -> Host:
    """Return Σ_j A_j δ_j of a problem without frequencies as one matrix on δ."""
    out = np.zeros((rows, problem.size))
    for j, a in combination.items():
        assert a.roundings == 0, "the oracle knows no rounded weights"
        out[:, problem.part(j)] = a.value[0]
    return out


def pieces(problem: Quadratic, form: Form) -> tuple[Host, Host, Host, Host, Host]:
    """Return (V, E, α, β, G): v = Vδ and δ_units = Eδ of all units, and aΔx + bΔg = Gδ."""
    d = problem.widths[0]
    v = np.concatenate([full(c, problem, n) for c, n in zip(problem.inputs, problem.widths[1:], strict=True)])
    low, high = (np.concatenate([getattr(u, name) for u in problem.network.units]) for name in ("low", "high"))
    g = problem.factor(form) * full(problem.output, problem, d)
    g[:, :d] += form.a * np.eye(d)
    return v, np.eye(problem.size)[d:], low, high, g


@bits(400)
def exactly_semidefinite(problem: Quadratic, form: Form, tau: Host, rho: float) -> bool | None:
    """Return whether M(t, ρ) ≻ 0 for the exact weights, by LDLᵀ in balls: True and False are proofs, None is undecided."""
    v, e, low, high, g = (BALLS(x) for x in pieces(problem, form))
    t = BALLS(tau[np.concatenate(problem.ties)])
    d = problem.widths[0]
    m = BALLS(np.zeros((problem.size, problem.size)))
    for k in range(d):
        m[k, k] += arb(rho)
    wide = np.concatenate([g, BALLS(np.zeros((problem.size - d, problem.size)))])
    m = m + (g.T @ g) * arb(form.sign) if form.sign else m + (wide.T + wide) * arb(0.5)
    a, b = e - low[:, None] * v, high[:, None] * v - e
    s = a.T @ (t[:, None] * b)
    m = m - (s + s.T) * arb(0.5)
    for k in range(len(m)):
        pivot = m[k, k]
        if not bool(pivot > 0):
            return False if bool(pivot < 0) else None
        column = m[k + 1 :, k]
        m[k + 1 :, k + 1 :] = m[k + 1 :, k + 1 :] - np.outer(column, column / pivot)
    return True


def reached(
    weights: list[Host], slopes: list[tuple[float, float]], rng: np.random.Generator, tries: int = 4, rounds: int = 15
) -> dict[str, float]:
    """Return what slopes within their intervals do reach: ‖J‖, −λ_min(sym J), and the least and largest singular value of I + J.

    Each is alternating ascent: the extreme vectors of J, then every slope at the end that helps. Δg = JΔx is attained by a piecewise
    linear φ, so that no proof may claim less (or more, of the least stretch).
    """
    d, depth = weights[0].shape[1], len(slopes)
    best = {"lipschitz": 0.0, "monotone": -np.inf, "lower": np.inf, "upper": 0.0}
    for kind in best:
        for _ in range(tries):
            ends = [np.where(rng.random(len(w)) < 0.5, *slope) for w, slope in zip(weights, slopes, strict=False)]
            for _ in range(rounds):
                j = weights[0]
                for w, s in zip(weights[1:], ends, strict=True):
                    j = w @ (s[:, None] * j)
                stretch = np.linalg.svd(np.eye(d) + j)
                largest = np.linalg.svd(j)
                values, vectors = np.linalg.eigh((j + j.T) / 2)
                best["lipschitz"] = max(best["lipschitz"], largest[1][0])
                best["monotone"] = max(best["monotone"], -values[0])
                best["lower"] = min(best["lower"], stretch[1][-1])
                best["upper"] = max(best["upper"], stretch[1][0])
                u, v = {
                    "lipschitz": (largest[0][:, 0], largest[2][0]), "monotone": (-vectors[:, 0], vectors[:, 0]),
                    "lower": (-stretch[0][:, -1], stretch[2][-1]), "upper": (stretch[0][:, 0], stretch[2][0]),
                }[kind]
                for i in range(depth):
                    forward = v
                    for w, s in zip(weights[:i], ends, strict=False):
                        forward = s * (w @ forward)
                    forward, back = weights[i] @ forward, u
                    for k in range(depth, i, -1):
                        back = weights[k].T @ back
                        back = back * ends[k - 1] if k - 1 > i else back
                    ends[i] = np.where(forward * back > 0, slopes[i][1], slopes[i][0])
    return best


def second_solver(problem: Quadratic, form: Form) -> float:
    """Return the least ρ with M(t, ρ) ⪰ 0 for some t ≥ 0 by Clarabel, an interior-point solver of others, to about 1e-6."""
    import clarabel
    from scipy import sparse

    v, e, low, high, g = pieces(problem, form)
    n, d, count = problem.size, problem.widths[0], problem.count
    tie = np.concatenate(problem.ties)
    a, b = e - low[:, None] * v, high[:, None] * v - e
    matrices = [np.diag(np.r_[np.ones(d), np.zeros(n - d)])]
    for k in range(count):
        s = a[tie == k].T @ b[tie == k]
        matrices.append(-(s + s.T) / 2)
    wide = np.concatenate([g, np.zeros((n - d, n))])
    constant = form.sign * g.T @ g if form.sign else (wide + wide.T) / 2
    upper = [(i, j) for j in range(n) for i in range(j + 1)]

    def svec(m: Host) -> Host:
        return np.asarray([m[i, j] * (1 if i == j else np.sqrt(2)) for i, j in upper])

    rows = sparse.csc_matrix(np.concatenate([
        -np.stack([svec(m) for m in matrices], axis=1), np.concatenate([np.zeros((count, 1)), -np.eye(count)], axis=1),
    ]))  # fmt: skip
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    cones = [clarabel.PSDTriangleConeT(n), clarabel.NonnegativeConeT(count)]
    cost = np.r_[1.0, np.zeros(count)]
    found = clarabel.DefaultSolver(
        sparse.csc_matrix((count + 1, count + 1)), cost, rows, np.concatenate([svec(constant), np.zeros(count)]), cones, settings
    ).solve()
    assert "Solved" in str(found.status), found.status
    return float(found.obj_val)
