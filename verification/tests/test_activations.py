"""Activations: φ, φ′, φ″ against 50-digit differentiation, accuracy as assumed by the proofs, Lipschitz constants."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from iresnet_ref.activations import ACTIVATIONS, get

FORMULAS = {
    "identity": lambda z: z,
    "lipswish": lambda z: z / (1 + mpmath.exp(-z)) / mpmath.mpf("1.1"),
    "elu": lambda z: z if z > 0 else mpmath.expm1(z),
    "tanh": mpmath.tanh,
    "softplus": lambda z: mpmath.log1p(mpmath.exp(z)),
    "sine": mpmath.sin,
    "relu": lambda z: max(z, mpmath.mpf(0)),
}
POINTS = np.concatenate([np.linspace(-20, 20, 81), [-700.0, -100.0, -37.5, -1e-8, 1e-300, 1e-8, 37.5, 100.0, 700.0]])


def test_every_activation_has_a_formula() -> None:
    assert FORMULAS.keys() == ACTIVATIONS.keys()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FORMULAS)
def test_values_and_derivatives_are_accurate_to_8u(name: str, dtype: type) -> None:
    phi, u = get(name), float(np.finfo(dtype).eps) / 2
    points = POINTS[(np.abs(POINTS) < 80) | (dtype is np.float64)]
    z = points.astype(dtype)
    value, first = phi.both(z)
    second = phi.second(z)
    assert value.dtype == first.dtype == second.dtype == dtype
    with mpmath.workdps(60):
        for i, point in enumerate(z.tolist()):
            at = mpmath.mpf(point)
            truth = FORMULAS[name](at)
            # |fl φ − φ| ≤ 8u(|φ| + 1), 0 for the exact ones
            assert abs(mpmath.mpf(float(value[i])) - truth) <= phi.error * u * (abs(truth) + 1)
            if point == 0.0 or (name in ("relu", "elu") and abs(point) < 1e-6):
                continue  # the kink, or differences across it
            slope, bend = mpmath.diff(FORMULAS[name], at, 1), mpmath.diff(FORMULAS[name], at, 2)
            assert abs(mpmath.mpf(float(first[i])) - slope) <= 8 * u * (abs(slope) + 1) + mpmath.mpf(10) ** -25
            assert abs(mpmath.mpf(float(second[i])) - bend) <= 8 * u * (abs(bend) + 1) + mpmath.mpf(10) ** -15
    assert (phi.value(z) == value).all()


@pytest.mark.parametrize("name", FORMULAS)
def test_lipschitz_constant_is_a_bound_and_nearly_attained(name: str) -> None:
    slope = np.abs(get(name).both(np.linspace(-50, 50, 400_001))[1]).max()
    assert 0.999 <= slope <= get(name).lipschitz * (1 + 2.0**-50)


def test_unknown_activation_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"expected one of elu, identity, lipswish.*got 'gelu'; try 'lipswish'"):
        get("gelu")
