"""The reference itself with one of its kernels replaced: what a slip in this library would look like from outside."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import iresnet_ref as ir
from iresnet_ref.jacobian.chain import Chain
from iresnet_ref.log_determinant import length_distributions
from iresnet_ref.log_determinant.series import event_dot
from iresnet_verify.mutants.mutant import Factory, table
from iresnet_verify.subject.subject import Subject

D, L = 5, 0.9
Kernel = Callable[..., Any]


def block(seed: int) -> ir.ResidualBlock:
    """F = id + g on NumPy float64, three layers."""
    return ir.ResidualBlock(ir.mlp((D, 9, 7, D), activation="elu", lipschitz=L, seed=seed))


def subject(seed: int, **changes: Any) -> Subject:
    """The reference as it is, but for `changes`, which are functions of the block."""
    F = block(seed)
    fields: dict[str, Any] = {
        "inverse": lambda y: ir.invert(F, y, rtol=1e-12).x,
        "log_det": lambda x: ir.logdet(F, x, method="exact").value,
        "lipschitz": ir.certify(F).bound,
        "log_det_is": "exact",
    }
    fields.update({k: v(F) if callable(v) else v for k, v in changes.items()})
    return Subject(name="reference", event_shape=(D,), forward=F, residual=F.branch, inverse_tolerance=1e-9,
                   framework="numpy", **fields)


def inverse(invert: Callable[[ir.ResidualBlock, Any], Any]) -> Factory:
    """The reference with this inverse."""
    return lambda seed: subject(seed, inverse=lambda F: lambda y: invert(F, y))


def exact(log_det: Callable[[Chain, Any], Any]) -> Factory:
    """The reference with this exact log-det, computed from its chain."""
    return lambda seed: subject(seed, log_det=lambda F: lambda x: log_det(F.branch.linearize(x)[1], x))


def roulette(coefficient: Callable[[length_distributions.Table, int], float], *, shared: bool = False, transposed: bool = True) -> Factory:
    """The reference's roulette, written out once more with these coefficients."""

    def log_det(F: ir.ResidualBlock) -> Kernel:
        table_of = length_distributions.table(length_distributions.geometric(L), L)

        def value(x: Any, seed: int = 0) -> Any:
            probes = ir.Probes(seed=seed)
            chain, v = F.branch.linearize(x)[1], probes.draw(x)
            lengths = probes.lengths(1 if shared else len(x), table_of.thresholds, table_of.n_exact_terms)
            n = np.broadcast_to(lengths, (1, len(x)))
            w: Any = v
            total = 0.0
            for k in range(1, int(n.max()) + 1):
                w = chain.rmatvec(w) if transposed else chain.matvec(chain.matvec(w))
                total = total + coefficient(table_of, k) * (n >= k) * np.asarray(event_dot(w, v, 1))
            return np.asarray(total)[0]

        return value

    return lambda seed: subject(seed, log_det=log_det, log_det_is="unbiased")


def right(drawn: length_distributions.Table, k: int) -> float:
    """(−1)^{k+1}/(k P(N ≥ k))."""
    return (-1) ** (k + 1) / (k * drawn.survival(k))


def claims(bound: Callable[[ir.ResidualBlock], float]) -> Factory:
    """The reference with this claimed constant, on weights whose product of norms is attained."""

    def build(seed: int) -> Subject:
        w = ir.spectral.normalise(np.linalg.qr(np.random.default_rng(seed).standard_normal((D, D)))[0] * 3.0, L**0.5)
        g = ir.mlp((D, D, D), activation="tanh", lipschitz=L, seed=seed)
        g = g.with_parameters({**g.parameters(), "0.weight": w, "2.weight": w.T, "0.bias": np.zeros(D)})
        F = ir.ResidualBlock(g)
        return Subject(name="reference", event_shape=(D,), forward=F, residual=g, lipschitz=bound(F), framework="numpy")

    return build


def dense(chain: Chain) -> Any:
    """J as an array of NumPy."""
    return np.asarray(chain.dense())


def slogdet(J: Any) -> Any:
    """log|det(I + J)|."""
    return np.linalg.slogdet(np.eye(J.shape[-1]) + J)[1]


def first_factors(chain: Chain) -> Any:
    """The chain without its last factor, cut to a square."""
    return dense(Chain(chain.factors[:-1], chain.batch, chain.like))[:, :D, :]


SEEN = ("inverse.recovers-input", "inverse.recovers-output", "inverse.keeps-tolerance")
BOUNDS = ("lipschitz.bounds-jacobian", "lipschitz.bounds-pairs", "lipschitz.bounds-stretch")
MUTANTS = table("reference", {
    "tolerance of the inverse squared away": (SEEN, inverse(lambda F, y: ir.invert(F, y, rtol=1e-5).x)),
    "inverse of the branch at y": (SEEN, inverse(lambda F, y: y - F.branch(y))),
    "inverse with one Newton step": (
        SEEN, inverse(lambda F, y: y - (np.linalg.inv(np.eye(D) + dense(F.branch.linearize(y)[1])) @ F.branch(y)[..., None])[..., 0])),
    "inverse not certified after 8 evaluations": (
        SEEN, inverse(lambda F, y: ir.invert(F, y, rtol=1e-12, method="banach", max_evaluations=8, throw=False).x)),
    "determinant of J": ("logdet.matches-determinant", exact(lambda c, x: np.linalg.slogdet(dense(c))[1])),
    "determinant of I - J": ("logdet.matches-determinant", exact(lambda c, x: slogdet(-dense(c)))),
    "trace for log-det": ("logdet.matches-determinant", exact(lambda c, x: np.trace(dense(c), axis1=1, axis2=2))),
    "two traces for log-det": (
        "logdet.matches-determinant",
        exact(lambda c, x: np.trace(dense(c) - dense(c) @ dense(c) / 2, axis1=1, axis2=2))),
    "a factor left out": ("logdet.matches-determinant", exact(lambda c, x: slogdet(first_factors(c)))),
    "rotation of the factors without the batch": (
        ("logdet.matches-determinant", "logdet.depends-on-input"), exact(lambda c, x: slogdet(dense(c.take(slice(0, 1)))) + 0 * x[:, 0])),
    "determinant in float32": ("logdet.matches-determinant", exact(lambda c, x: slogdet(dense(c).astype(np.float32)).astype(float))),
    "roulette, survival one later": ("estimator.unbiased", roulette(lambda t, k: (-1) ** (k + 1) / (k * t.survival(k + 1)))),
    "roulette, survival one earlier": (
        "estimator.unbiased", roulette(lambda t, k: (-1) ** (k + 1) / (k * t.survival(max(k - 1, 1))))),
    "roulette, 1/k missing": ("estimator.unbiased", roulette(lambda t, k: (-1) ** (k + 1) / t.survival(k))),
    "roulette, sign missing": ("estimator.unbiased", roulette(lambda t, k: 1 / (k * t.survival(k)))),
    "roulette, survival missing": ("estimator.unbiased", roulette(lambda t, k: (-1) ** (k + 1) / k)),
    "roulette, two products a term": ("estimator.unbiased", roulette(right, transposed=False)),
    "certificate of one layer": (BOUNDS, claims(lambda F: L**0.5 * 0.9)),
    "certificate squared": (BOUNDS, claims(lambda F: ir.certify(F).bound ** 2)),
    "certificate one percent low": (BOUNDS, claims(lambda F: ir.certify(F).bound * 0.99)),
    "certificate rounded down": (BOUNDS, claims(lambda F: math.floor(ir.certify(F).bound * 1e4 - 1) / 1e4)),
})
