"""The reverse pass over (primal, tangent) pairs, against automatic differentiation of the same function written anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from autodiff_oracles import assert_close, assert_gradients, torch_gradients, torch_jacobians
from tables import CONSTRUCTORS, at_50_digits, backend, digits50, inputs

import iresnet_ref as ir
from iresnet_ref.arrays import to_host

torch = pytest.importorskip("torch")
each_constructor = pytest.mark.parametrize("name", CONSTRUCTORS)


def case(name: str, shared: bool = False) -> tuple[Any, Any, Any, Any, Any]:
    """(g, x, v, ȳ, t̄) with unequal rows, one of them of weight zero."""
    g = CONSTRUCTORS[name](np.zeros(1), 3)
    d, rng = g.event_shape[0], np.random.default_rng(7)
    x = inputs(backend("numpy-f64"), d, 5)
    v = rng.standard_normal((2, 1 if shared else 5, d))
    y_bar = rng.standard_normal((5, d)) * np.arange(5)[:, None]
    return g, x, v, y_bar, rng.standard_normal((2, 5, d))


@pytest.mark.parametrize("shared", [False, True])
@each_constructor
def test_pullback_agrees_with_autograd(name: str, shared: bool) -> None:
    g, x, v, y_bar, t_bar = case(name, shared)

    def loss(g: Any, x: Any, v: Any) -> Any:
        """Σ ȳᵀg(x) + Σ t̄ᵀJ_g(x)v, with t̄ᵀJ by a first differentiation."""
        y = g(x)
        total = (torch.tensor(y_bar) * y).sum()
        for probe, cotangent in zip(v, torch.tensor(t_bar), strict=True):
            total = total + (probe * torch.autograd.grad(y, x, cotangent, create_graph=True)[0]).sum()
        return total

    x_bar, theta, v_bar = torch_gradients(g, x, loss, v)
    ours = g.pullback(x, v, y_bar, t_bar)
    assert_gradients((ours[0], ours[2]), (x_bar, theta), 1e-12)
    assert_close(ours[1], v_bar, "v̄", 1e-12)


@each_constructor
def test_pullback_is_linear_in_its_cotangents(name: str) -> None:
    g, x, v, y_bar, t_bar = case(name)
    both, value, tangent = g.pullback(x, v, y_bar, t_bar), g.pullback(x, None, y_bar), g.pullback(x, v, None, t_bar)
    # d(ȳᵀg + t̄ᵀJv) = d(ȳᵀg) + d(t̄ᵀJv), and the first has no tangent
    assert value[1] is None
    assert_close(value[0] + tangent[0], both[0], "x̄", 1e-12)
    assert_close(tangent[1], both[1], "v̄", 1e-12)
    for key, gradient in both[2].items():
        assert_close(value[2][key] + tangent[2][key], gradient, key, 1e-12)


def test_pullback_of_a_block_adds_the_identity() -> None:
    g, x, v, y_bar, t_bar = case("elu 3-8-8-3 L=.5")
    block, branch = ir.ResidualBlock(g).pullback(x, v, y_bar, t_bar), g.pullback(x, v, y_bar, t_bar)
    assert_close(block[0], y_bar + branch[0], "x̄", 1e-15)  # F = id + g, and J_F = I + J_g
    assert_close(block[1], t_bar + branch[1], "v̄", 1e-15)
    assert all((block[2][key] == gradient).all() for key, gradient in branch[2].items())
    assert_close(ir.ResidualBlock(g).pullback(x, v, None, t_bar)[0], g.pullback(x, v, None, t_bar)[0], "x̄", 1e-15)
    with pytest.raises(ir.ShapeError, match="y_bar: expected shape"):
        ir.ResidualBlock(g).pullback(x, y_bar=y_bar[:, :2])


@pytest.mark.parametrize("start", [1, 2, 3])
@pytest.mark.parametrize("name", ["elu 3-8-8-3 L=.5", "softplus 4-9-5-4 L=.9"])
def test_pullback_around_the_loop_agrees_with_autograd(name: str, start: int) -> None:
    g, x, _, y_bar, _ = case(name)
    tape = g.record(x)
    n = tape.inputs[start].shape[1]
    v, t_bar = np.random.default_rng(1).standard_normal((2, 3, 5, n))

    def loss(layers: Any, x: Any) -> Any:
        """Σ ȳᵀg(x) + Σ t̄ᵀMv, M = J of the layers in front of `start`, times that of those behind it."""
        h, parts = x, []
        for layer in layers:
            parts.append(torch_jacobians(layer, h))
            h = layer(h)
        loop = torch.eye(n, dtype=torch.float64).expand(5, n, n)
        for part in parts[start:] + parts[:start]:
            loop = part @ loop
        moved = torch.einsum("bij,kbj->kbi", loop, torch.tensor(v))
        return (torch.tensor(y_bar) * h).sum() + (torch.tensor(t_bar) * moved).sum()

    ours = tape.pullback(y_bar, tape.push(v, start), t_bar, start)
    assert_gradients((ours[0], ours[2]), torch_gradients(g, x, loss, layers=True), 1e-12)


@pytest.mark.parametrize("key", ["numpy-f64", "torch-f64", "strict-device2-f64", "numpy-f32", "strict-device1-f32"])
@pytest.mark.parametrize("name", ["lipswish 2-16-2 L=.9", "softplus 4-9-5-4 L=.9"])
def test_pullback_agrees_with_50_digits(name: str, key: str) -> None:
    b, p = backend(key), digits50()
    g = CONSTRUCTORS[name](b.asarray(np.zeros(1)), 3)
    arrays = [b.asarray(a) for a in case(name)[1:]]
    truth = at_50_digits(g).pullback(*(p.asarray(to_host(a).astype(np.float64)) for a in arrays))
    ours = g.pullback(*arrays)
    # an inner product of n ≤ 32 terms loses γ_n ≤ 32u; the largest entries are hardly smaller than their sums of moduli
    tol = 2**12 * float(b.xp.finfo(b.dtype).eps)
    assert_close(ours[0], truth[0], "x̄", tol)
    assert_close(ours[1], truth[1], "v̄", tol)
    for parameter, gradient in ours[2].items():
        assert_close(gradient, truth[2][parameter], parameter, tol)
