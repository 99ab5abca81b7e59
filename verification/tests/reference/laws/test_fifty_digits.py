"""A slice of the laws on the 50-digit backend itself, to 50 digits: the code that is the oracle of the others loses none of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from tables import CONSTRUCTORS, digits50, distance, inputs

import iresnet_ref as ir
from iresnet_ref.arrays import namespace, to_host
from iresnet_ref.log_determinant.series import series_logdet
from iresnet_ref.rounding import logdet_rounding, unit_roundoff

each = pytest.mark.parametrize("name", ["lipswish 2-16-2 L=.9", "elu 3-8-8-3 L=.5", "sine 3-7-6-5-3 L=.99"])


def make(name: str) -> tuple[ir.ResidualBlock, Any]:
    b = digits50()
    g = CONSTRUCTORS[name](b.asarray(np.zeros(1)), 3)
    return ir.ResidualBlock(g), inputs(b, g.event_shape, 3, 3)


def determinant(a: Any) -> Any:
    """The determinant of 2×2 or 3×3 matrices by its permutations."""
    if a.shape[-1] == 2:
        return a[:, 0, 0] * a[:, 1, 1] - a[:, 0, 1] * a[:, 1, 0]
    even = sum(a[:, 0, i] * a[:, 1, (i + 1) % 3] * a[:, 2, (i + 2) % 3] for i in range(3))
    return even - sum(a[:, 0, i] * a[:, 1, (i - 1) % 3] * a[:, 2, (i - 2) % 3] for i in range(3))


def gap(a: Any, b: Any) -> float:
    """max|a − b|, the difference taken at 50 digits."""
    return float(np.abs(to_host(a - b)).max())


@each
def test_inverse_undoes_forward_to_forty_digits(name: str) -> None:
    F, x = make(name)
    inverse = ir.invert(F, F(x), rtol=1e-42)
    bound = to_host(inverse.error_bound)
    assert to_host(inverse.converged).all()
    assert (distance(inverse.x, x) <= bound).all()
    assert bound.max() <= 1e-38


@each
def test_exact_logdet_is_the_determinant_by_permutations(name: str) -> None:
    F, x = make(name)
    xp, d = namespace(x), x.shape[1]
    truth = xp.log(determinant(F.branch.linearize(x)[1].dense() + digits50().asarray(np.eye(d))))
    u = unit_roundoff(x)
    # d! products of d entries |I + J| ≤ 1 + L, over a determinant of at least (1 − L)ᵈ
    by_permutations = (math.factorial(d) + d) * u * math.factorial(d) * ((1 + F.contraction()) / (1 - F.contraction())) ** d
    assert gap(ir.logdet(F, x, method="exact").value, truth) <= logdet_rounding(d, u, F.contraction()) + by_permutations
    assert float(np.abs(to_host(truth)).max()) > 1e-3, "an empty comparison"


@each
def test_products_are_adjoint_and_the_series_is_that_of_the_traces(name: str) -> None:
    F, x = make(name)
    d, u, lipschitz = x.shape[1], unit_roundoff(x), F.contraction()
    xp, chain = namespace(x), F.branch.linearize(x)[1]
    widths = sum(math.prod(p.shape) for p in F.branch.parameters().values())
    signs = np.array([[(-1.0) ** (k >> i & 1) for i in range(d)] for k in range(2**d)])
    v = digits50().asarray(np.broadcast_to(signs[:, None, :], (2**d, x.shape[0], d)))
    w = xp.flip(v, axis=0) * x
    assert gap(xp.sum(chain.matvec(v) * w, axis=-1), xp.sum(v * chain.rmatvec(w), axis=-1)) <= 200 * widths * u * d
    jacobian = chain.dense()
    power, total = jacobian, 0.0
    for k in range(1, 5):
        total = total + (-1.0) ** (k + 1) / digits50().asarray(float(k)) * sum(power[:, i, i] for i in range(d))
        power = xp.matmul(power, jacobian)
    # the mean over all signs of Σ_k (−1)^{k+1} vᵀJᵏv/k is Σ_k (−1)^{k+1} tr(Jᵏ)/k
    size = d * sum(lipschitz**k / k for k in range(1, 5))
    assert gap(xp.mean(series_logdet(chain, v, 4), axis=0), total) <= 40 * 4 * widths * d * u * max(size, 1.0)


@each
def test_float64_is_seen_to_be_wrong(name: str) -> None:
    """The comparisons would notice if a constant or a function fell back to float64."""
    F, x = make(name)
    here = ir.ResidualBlock(CONSTRUCTORS[name](np.zeros(1), 3))
    difference = gap(F(x), digits50().asarray(here(to_host(x))))
    assert 1e-19 < difference < 1e-12
