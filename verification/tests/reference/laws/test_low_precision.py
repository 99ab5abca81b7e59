"""bfloat16 and float16: F and the series keep one rounding per stored number, sums are accumulated in float32, the rest is refused."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import iresnet_backends
import iresnet_ref as ir
from iresnet_ref.arrays import product, to_host
from iresnet_ref.log_determinant.series import series_logdet
from iresnet_ref.rounding import gamma, unit_roundoff

F32 = 2.0**-24
SHORT = [(name, dtype) for name in ("torch:cpu", "jax:cpu") for dtype in ("bfloat16", "float16")]
each = pytest.mark.parametrize(("name", "dtype"), SHORT)


def pair(name: str, dtype: str, sizes: tuple[int, ...] = (24, 96, 24)) -> tuple[Any, Any, ir.ResidualBlock, Any]:
    """(block, x) in the short dtype, and the same numbers in host float64."""
    b = iresnet_backends.get(name, dtype)
    F = ir.ResidualBlock(ir.mlp(sizes, activation="elu", lipschitz=0.9, seed=2, like=b.asarray(np.zeros(1))))
    x = b.asarray(np.random.default_rng(0).standard_normal((6, sizes[0])))
    exact = ir.mlp(sizes, activation="elu", lipschitz=0.9, like=np.zeros(1))
    p = {k: to_host(v).astype(np.float64) for k, v in F.branch.parameters().items()}
    return F, x, ir.ResidualBlock(exact.with_parameters(p)), to_host(x).astype(np.float64)


def host_error(F: ir.ResidualBlock, x: np.ndarray[Any, Any], u: float) -> np.ndarray[Any, Any]:
    """Bound the error of F(x) for sums accumulated in float32: u per stored number, γ_n of float32 per sum."""
    e, h = np.zeros_like(x), x
    p = F.branch.parameters()
    for i in (0, 2):
        w, bias = p[f"{i}.weight"], p[f"{i}.bias"]
        sums = np.abs(h) @ np.abs(w).T
        y = h @ w.T
        # fl(Wh), rounded once to the short dtype, and fl(+ b), rounded once more
        e = e @ np.abs(w).T + (gamma(w.shape[1], F32) * sums + u * np.abs(y) + u * np.abs(y + bias)) * (1 + 8 * u)
        h = y + bias
        if i == 0:
            h = np.where(h > 0, h, np.expm1(h))
            e = e + 8 * u * (np.abs(h) + 1)
    return (e + u * np.abs(x + h)) * (1 + 8 * u)


@each
def test_forward_errs_by_its_stored_roundings(name: str, dtype: str) -> None:
    F, x, high, hx = pair(name, dtype)
    u = unit_roundoff(x)
    y = F(x)
    assert y.dtype == x.dtype
    error = np.abs(to_host(y).astype(np.float64) - high(hx))
    assert (error <= host_error(high, hx, u)).all()
    assert error.max() > F32, "the test compares a short dtype with itself"


@each
def test_the_series_errs_by_its_stored_roundings(name: str, dtype: str) -> None:
    F, x, high, hx = pair(name, dtype)
    u, d, terms = unit_roundoff(x), hx.shape[1], 6
    v = ir.Probes(seed=1, count=3).draw(x)
    value = ir.logdet(F, x, method=ir.Series(terms, probes=ir.Probes(seed=1, count=3))).value
    assert value.dtype == x.dtype
    chain = high.branch.linearize(hx)[1]
    truth = series_logdet(chain, to_host(v).astype(np.float64), terms)
    short = to_host(series_logdet(F.branch.linearize(x)[1], v, terms)).astype(np.float64)
    w = [np.linalg.norm(np.abs(p), 2) for k, p in high.branch.parameters().items() if k.endswith("weight")]
    # φ′ errs with its argument at the rate |φ″| ≤ 1; each product with J stores three vectors, each rounded once
    argument = host_error(high, hx, u).max()
    of_j = math.prod(w) * (argument + 8 * u + 4 * u + 2 * gamma(96, F32))
    size = max(1.0, math.prod(w))
    allowed = d * sum(of_j * size ** (k - 1) for k in range(1, terms + 1)) + u * np.abs(truth) + d * terms * gamma(d, F32)
    assert (np.abs(short - truth) <= allowed).all()
    # and a stricter claim about the typical error, measured: below 4u per unit of ‖v‖² = d
    assert np.abs(short - truth).max() <= 4 * u * d


@each
def test_sums_are_accumulated_in_float32(name: str, dtype: str) -> None:
    b = iresnet_backends.get(name, dtype)
    n = 2**12  # past where a sum of ones stops growing in the short dtype: 2/u = 512 in bfloat16, 4096 in float16
    one = b.asarray(np.full((1, n), 1.0))
    small = b.asarray(np.full((n, 1), 2.0**-8))
    assert float(to_host(product(one, small))[0, 0]) == n * 2.0**-8
    assert product(one, small).dtype == one.dtype


SERIES = ir.Series(4, probes=ir.Probes(seed=1, count=2))
CALLS: dict[str, Any] = {
    "F(x)": lambda F, x: F(x),
    "branch.linearize": lambda F, x: F.branch.linearize(x)[0],
    "branch.pullback": lambda F, x: F.branch.pullback(x, x)[0],
    "ir.certify": lambda F, x: ir.certify(F),
    "ir.spectral.normalise": lambda F, x: ir.spectral.normalise(F.branch.layers[0].weight, 0.5),
    "ir.spectral.power_iteration": lambda F, x: ir.spectral.power_iteration(F.branch.layers[0].operator, F.branch.layers[0].weight),
    "ir.logdet(…, ir.Series(n))": lambda F, x: ir.logdet(F, x, SERIES).value,
    "ir.logdet_gradient(…, ir.Series(n))": lambda F, x: ir.logdet_gradient(F, x, SERIES).x_bar,
    "ir.backward_in_forward(…, ir.Series(n))": lambda F, x: ir.backward_in_forward(F, x, method=SERIES)[0],
    "Flow.log_prob": lambda F, x: ir.Flow([F]).log_prob(x, options=ir.Options(logdet=SERIES)).value,
    "Flow.log_prob_gradient": lambda F, x: ir.Flow([F]).log_prob_gradient(x, options=ir.Options(logdet=SERIES))[0],
    "ir.bounds.inverse_ball": lambda F, x: ir.bounds.inverse_ball(F, x, F(x)),
    "ir.invert": ir.invert,
    "ir.logdet_of_inverse": ir.logdet_of_inverse,
    "ir.inverse_gradient": lambda F, x: ir.inverse_gradient(F, x, x),
    "ir.sequence_gradient": lambda F, x: ir.sequence_gradient([F], x, x, method=SERIES),
    "Flow.sample": lambda F, x: ir.Flow([F]).sample(2, seed=0),
    "ir.bounds.logdet_error_bound": ir.bounds.logdet_error_bound,
    "ir.spectral.spectral_norm": lambda F, x: ir.spectral.spectral_norm(F.branch.layers[0].weight),
    "ir.spectral.singular_triple": lambda F, x: ir.spectral.singular_triple(F.branch.layers[0].weight),
    "ir.spectral.gram_bound": lambda F, x: ir.spectral.gram_bound(F.branch.layers[0].weight),
    "ir.logdet(…, ir.Exact())": lambda F, x: ir.logdet(F, x, "exact"),
    "ir.logdet(…, ir.Roulette())": lambda F, x: ir.logdet(F, x, "roulette"),
    "ir.logdet(…, ir.Arnoldi(n))": lambda F, x: ir.logdet(F, x, ir.Arnoldi(2)),
    "ir.logdet(…, ir.Auto())": ir.logdet,
    "ir.logdet_gradient(…, ir.Exact())": lambda F, x: ir.logdet_gradient(F, x, "exact"),
    "ir.logdet_gradient(…, ir.Roulette())": lambda F, x: ir.logdet_gradient(F, x, "roulette"),
    "ir.logdet_gradient(…, ir.Auto())": ir.logdet_gradient,
}


def rows_of_the_table() -> dict[str, bool]:
    """{call: whether docs/backends.md says that it is there}, of its rows on half precision."""
    page = (Path(__file__).parents[4] / "docs/backends.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \| (yes|refused) \|", page, re.MULTILINE)
    return {name: there == "yes" for cell, there in rows for name in re.findall(r"`([^`]+)`", cell)}


@pytest.mark.parametrize(("name", "dtype"), SHORT[:3])  # JAX once: it compiles each call
def test_the_table_of_half_precision_is_right(name: str, dtype: str) -> None:
    """Nothing but what the table names, and no error but DTypeError with its remedy; results keep the dtype."""
    F, x, _, _ = pair(name, dtype, (9, 9))  # beyond the order of 8 that elimination takes
    assert rows_of_the_table().keys() == CALLS.keys()
    for call, there in rows_of_the_table().items():
        if there:
            found = CALLS[call](F, x)
            assert getattr(found, "dtype", x.dtype) == x.dtype, call
        else:
            with pytest.raises(ir.DTypeError, match=r"expected float32 or float64, got .*; try .*cast to float32$"):
                CALLS[call](F, x)


@each
def test_short_weights_are_certified_exactly(name: str, dtype: str) -> None:
    F, _, high, _ = pair(name, dtype)
    assert F.certificate.proved
    assert F.certificate.bound == high.certificate.bound <= 0.9
