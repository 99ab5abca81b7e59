"""The constants of the activations proved in ball arithmetic, and their accuracy measured over the whole range on every framework."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import flint
import numpy as np
import pytest
from flint import arb, arb_series

from iresnet_ref.layers import gated, saturating
from iresnet_ref.layers.activations import ACTIVATIONS, get
from iresnet_ref.layers.by_name import LAYERS  # noqa: F401 - registers all activations
from iresnet_ref.layers.swish import HALF
from iresnet_verify.golden.balls import bits

WIDE = 25
"""Beyond ±25 every |φ′| − 1 and |φ″| of gates is below 1e-8: z e^{−z} and z² e^{−z} decrease there."""


def sigmoid(z: Any) -> Any:
    return 1 / (1 + (-z).exp())


SMOOTH: dict[str, Callable[[Any], Any]] = {
    "silu": lambda z: z * sigmoid(z),
    "gelu": lambda z: z * (-z / arb(2).sqrt()).erfc() / 2,
    "gelu tanh": lambda z: z * sigmoid(2 * (2 / arb.pi()).sqrt() * (z + arb(gated.CUBIC) * z * z * z)),
    "mish": lambda z: z * (1 - 2 / ((1 + z.exp()) * (1 + z.exp()) + 1)),
    "sigmoid": sigmoid,
    "log sigmoid": lambda z: -(1 + (-z).exp()).log(),
    "tanhshrink": lambda z: z - 1 + 2 / (1 + (2 * z).exp()),
    "softplus": lambda z: (1 + z.exp()).log(),
    "rising sine": lambda z: (z + z.sin()) / 2,
}
"""Power series in, power series out."""


@pytest.fixture(autouse=True)
def series_of_five_terms() -> Iterator[None]:
    before = flint.ctx.cap
    flint.ctx.cap = 5
    with bits(160):
        yield
    flint.ctx.cap = before


def derivative(phi: Callable[[Any], Any], order: int, at: Any) -> Any:
    """φ^(order) over a ball, nothing (NaN) where the ball is too wide for its exponentials."""
    try:
        return phi(arb_series([at, 1, 0, 0, 0]))[order] * math.factorial(order)
    except ValueError:
        return arb("nan")


def never_exceeds(phi: Callable[[Any], Any], order: int, bound: Any) -> float:
    """Prove |φ^(order)| ≤ bound + 10⁻⁴⁰ on [−25, 25] by halving; return the largest value that was seen.

    On a ball of centre m and radius r, |f| ≤ |f(m)| + |f′(m)|r + sup|f″|r²/2. Around the maximum, where no halving ends, f is concave
    (f″ < 0 all over the ball) and lies below its tangent, f(m) + |f′(m)|r: with m the root of f′ to 40 digits that is the maximum itself.
    """
    todo, seen, limit = [(k / 4 + 0.07, k / 4 + 0.32) for k in range(-4 * WIDE - 1, 4 * WIDE)], 0.0, arb(bound) + arb("1e-40")
    while todo:
        low, high = todo.pop()
        m, r = arb((low + high) / 2), (high - low) / 2
        f, slope = derivative(phi, order, m), derivative(phi, order + 1, m)
        bend = derivative(phi, order + 2, arb(float((low + high) / 2), r))
        seen = max(seen, abs(float(f.mid())))
        if bool(abs(f) + abs(slope) * r + abs(bend) * r * r / 2 <= limit):
            continue
        sign = 1 if float(f.mid()) > 0 else -1
        if r < 0.05 and bool(sign * bend < 0):
            root = m
            for _ in range(8):  # Newton's method, in balls
                root = arb((root - derivative(phi, order + 1, root) / derivative(phi, order + 2, root)).mid())
            if bool(abs(root - m) < r):
                top, tilt = derivative(phi, order, root), derivative(phi, order + 1, root)
                assert bool(abs(top) + abs(tilt) * 2 * r <= limit), f"{top} at {root} exceeds {bound}"
                seen = max(seen, abs(float(top.mid())))
                continue
        assert r > 1e-9, f"not proved near {low}"
        todo += [(low, (low + high) / 2), ((low + high) / 2, high)]
    return seen


@pytest.mark.parametrize("name", SMOOTH)
def test_the_lipschitz_constant_is_proved_and_no_larger_than_the_supremum(name: str) -> None:
    bound = get(name).lipschitz
    largest = never_exceeds(SMOOTH[name], 1, bound)
    assert largest >= bound * (1 - (1e-9 if name in ("log sigmoid", "tanhshrink", "softplus") else 2.0**-50))


@pytest.mark.parametrize("name", [*SMOOTH, "lipswish", HALF])
def test_the_slopes_are_proved_and_attained(name: str) -> None:
    """|φ′ − (α + β)/2| ≤ (β − α)/2: the interval holds, and neither end can be moved in by 1e-14."""
    low, high = get(name).slope_interval
    scale = {"lipswish": arb(11) / 10, HALF: arb(11) / 10 * arb(1004) / 1000}.get(name, arb(1))
    phi = SMOOTH["silu" if name not in SMOOTH else name]
    middle, radius = (arb(low) + arb(high)) / 2, (arb(high) - arb(low)) / 2
    never_exceeds(lambda z: phi(z) / scale - middle * z, 1, radius)
    if low < 0.0:
        for inner_low, inner_high in ((low + 1e-14, high), (low, high - 1e-14)):
            middle, radius = (arb(inner_low) + arb(inner_high)) / 2, (arb(inner_high) - arb(inner_low)) / 2
            with pytest.raises(AssertionError):
                never_exceeds(lambda z, m=middle: phi(z) / scale - m * z, 1, radius)


def test_every_activation_states_its_slopes_and_keeps_them() -> None:
    """Difference quotients of every φ on close and on distant pairs lie in its interval, up to their rounding; sine alone has ±1."""
    z = np.concatenate([np.linspace(-30, 30, 4001), np.linspace(-4, 4, 4001)])
    for name, phi in ACTIVATIONS.items():
        low, high = phi.slope_interval
        assert (phi.slopes is None) == (name == "sine")
        assert -phi.lipschitz <= low <= high <= phi.lipschitz
        for other in (z + 1e-3, z[::-1], z + 1.0):
            step = other - z
            apart = step != 0.0
            quotient = (phi.value(other[apart]) - phi.value(z[apart])) / step[apart]
            slack = 2 * phi.error_on(z) * 2.0**-53 * 62 / np.abs(step[apart])
            assert (quotient >= low - slack).all(), name
            assert (quotient <= high + slack).all(), name


def signs(phi: Callable[[Any], Any], low: float, high: float) -> set[bool]:
    """Prove by halving that φ″ has no zero on [low, high], and return its signs: |f(m)| > |f′(m)|r + sup|f″|r²/2 for f = φ″."""
    todo, found = [(low, high)], set()
    while todo:
        low, high = todo.pop()
        m, r = arb((low + high) / 2), (high - low) / 2
        f, tilt, bend = derivative(phi, 2, m), derivative(phi, 3, m), derivative(phi, 4, arb((low + high) / 2, r))
        if bool(abs(f) > abs(tilt) * r + abs(bend) * r * r / 2):
            found.add(bool(f > 0))
            continue
        assert r > 1e-9, f"not proved near {low}"
        todo += [(low, (low + high) / 2), ((low + high) / 2, high)]
    return found


@pytest.mark.parametrize(("name", "low", "high"), [("gelu tanh", -2.0, 0.0), ("mish", -4.0, 3.0), ("gelu", -6.0, 0.0), ("silu", -9.0, 9.0)])
def test_slopes_are_monotone_between_their_turns(name: str, low: float, high: float) -> None:
    """Beyond these intervals, and by symmetry on the other side of 0, docs/proofs.md has the sign of φ″ by its formula."""
    turns = sorted(turn for turn in get(name).turns or () if low < turn.low and turn.high < high)
    assert turns
    ends = [low, *(end for turn in turns for end in (turn.low, turn.high)), high]
    for left, right in zip(ends[::2], ends[1::2], strict=True):
        assert len(signs(SMOOTH[name], left, right)) == 1


@pytest.mark.parametrize("name", ["silu", "lipswish", HALF, "gelu", "gelu tanh", "mish"])
def test_turns_say_where_slopes_lie_at_an_extremum(name: str) -> None:
    scale = {"lipswish": arb(11) / 10, HALF: arb(11) / 10 * arb(1004) / 1000}.get(name, arb(1))
    phi, (least, largest) = SMOOTH["silu" if name not in SMOOTH else name], get(name).slope_interval
    for turn in get(name).turns or ():
        m, r = (turn.low + turn.high) / 2, (turn.high - turn.low) / 2
        slope, spread = derivative(phi, 1, arb(m)), abs(derivative(phi, 2, arb(m, r))) * r
        assert turn.least <= least or bool((slope - spread) / scale >= turn.least)  # no slope exceeds `slopes`, proved above
        assert turn.largest >= largest or bool((slope + spread) / scale <= turn.largest)
        assert (turn.least <= least) != (turn.largest >= largest)


@pytest.mark.parametrize("name", SMOOTH)
def test_the_curvature_is_proved(name: str) -> None:
    bound = get(name).curvature
    assert never_exceeds(SMOOTH[name], 2, bound) >= 0.999 * bound


@pytest.mark.parametrize("name", ["silu", "gelu", "gelu tanh", "mish"])
def test_a_constant_that_is_too_small_is_not_proved(name: str) -> None:
    with pytest.raises(AssertionError):
        never_exceeds(SMOOTH[name], 1, math.nextafter(get(name).lipschitz * (1 - 2.0**-49), 0.0))


EXACT: dict[str, Callable[[Any], Any]] = {
    **SMOOTH,
    "silu": lambda z: z * sigmoid(z) if z[0] > -50 else z * z.exp() if z[0] > -900 else z * 0,
    "mish": lambda z: z * 0 if z[0] < -900 else SMOOTH["mish"](z) if z[0] < 60 else z,
    "gelu tanh": lambda z: SMOOTH["gelu tanh"](z) if abs(z[0]) < 40 else z * (1 if z[0] > 0 else 0),
    "sigmoid": lambda z: sigmoid(z) if z[0] > -50 else z.exp(),
    "log sigmoid": lambda z: SMOOTH["log sigmoid"](z) if z[0] > -80 else z,
    "softplus": lambda z: SMOOTH["softplus"](z) if z[0] < 80 else z,
    "tanhshrink": lambda z: SMOOTH["tanhshrink"](z) if abs(z[0]) < 80 else z - (1 if z[0] > 0 else -1),
    "softsign": lambda z: z / (1 + z) if z[0] >= 0 else z / (1 - z),
    "selu": lambda z: arb(saturating.SELU_SCALE) * (z if z[0] > 0 else arb(saturating.SELU_ALPHA) * (z.exp() - 1)),
    "hard sigmoid": lambda z: z * 0 + (0 if z[0] < -3 else 1 if z[0] > 3 else (z + 3) / 6),
    "hardswish": lambda z: z * EXACT["hard sigmoid"](z),
}
"""The same for every argument: where an exponential would overflow, its limit."""


def arguments(dtype: Any) -> Any:
    """Arguments of every size: dense where something happens, and to the end of the range."""
    rng = np.random.default_rng(0)
    end = 36.0 if dtype is np.float32 else 300.0
    sizes = [np.exp(rng.uniform(-30, 7, 200)), rng.uniform(0, 25, 300), rng.uniform(0, 5, 200), 10.0 ** np.linspace(2, end, 25)]
    z = np.concatenate(sizes).astype(dtype)
    return np.concatenate([z, -z])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("framework", ["numpy", "torch", "jax.numpy"])
@pytest.mark.parametrize("name", sorted(EXACT))
def test_values_and_slopes_keep_the_declared_error_over_the_whole_range(name: str, framework: str, dtype: Any) -> None:
    xp = pytest.importorskip(framework)
    if framework == "jax.numpy" and dtype is np.float64:
        importlib.import_module("jax").config.update("jax_enable_x64", True)
    phi, z = get(name), arguments(dtype)
    value, slope = phi.both(xp.asarray(z))
    alone = np.asarray(phi.value(xp.asarray(z)), dtype=np.float64)
    u, pairs = float(np.finfo(dtype).eps) / 2, [np.asarray(a, dtype=np.float64) for a in (value, slope)]
    for i, point in enumerate(z.tolist()):
        truth = EXACT[name](arb_series([arb(point), 1, 0, 0, 0]))
        for got, exact in ((pairs[0][i], truth[0]), (alone[i], truth[0]), (pairs[1][i], truth[1])):
            # |fl φ − φ| ≤ c u (|φ| + 1), c what is declared; measured at most 2.4, and 6.9 for the slope of tanhshrink on JAX
            assert bool(abs(arb(float(got)) - exact) <= phi.error * u * (abs(exact) + 1)), (point, got, exact)
