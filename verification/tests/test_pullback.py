"""The reverse pass over (primal, tangent) pairs, against automatic differentiation of the same function written anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tables import CONSTRUCTORS, at_50_digits, backend, digits50, inputs

import iresnet_ref as ir
from iresnet_ref.arrays import to_host

torch = pytest.importorskip("torch")

PHI = {
    "identity": lambda z: z,
    "lipswish": lambda z: z * torch.sigmoid(z) / 1.1,
    "elu": torch.nn.functional.elu,
    "tanh": torch.tanh,
    "softplus": lambda z: torch.nn.functional.softplus(z, threshold=100.0),
    "sine": torch.sin,
    "relu": torch.relu,
}


def plain(g: ir.Branch, parameters: dict[str, Any]) -> Any:
    """g in plain torch, from its parameters and the names of its activations alone."""

    def value(x: Any) -> Any:
        for i, layer in enumerate(g.layers):
            affine = f"{i}.weight" in parameters
            x = x @ parameters[f"{i}.weight"].T + parameters[f"{i}.bias"] if affine else PHI[layer.name](x)
        return x

    return value


def by_autograd(g: ir.Branch, x: Any, v: Any, y_bar: Any, t_bar: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Gradients of Σ ȳᵀg(x) + Σ t̄ᵀJ_g(x)v by torch.autograd, twice for t̄ᵀJ."""
    parameters = {k: torch.tensor(to_host(p), requires_grad=True) for k, p in g.parameters().items()}
    x, v = (torch.tensor(a, requires_grad=True) for a in (x, v))
    value = plain(g, parameters)
    y = value(x)
    total = (torch.tensor(y_bar) * y).sum()
    for probe, cotangent in zip(v, torch.tensor(t_bar), strict=True):
        total = total + (probe * torch.autograd.grad(y, x, cotangent, create_graph=True)[0]).sum()
    grads = torch.autograd.grad(total, [x, v, *parameters.values()], allow_unused=True)
    full = [
        np.zeros(tuple(a.shape)) if d is None else d.numpy()
        for a, d in zip([x, v, *parameters.values()], grads, strict=True)
    ]
    return full[0], full[1], dict(zip(parameters, full[2:], strict=True))


def assert_close(a: Any, b: Any, what: str, rtol: float = 1e-12) -> None:
    a, b = to_host(a), to_host(b)
    assert a.shape == b.shape, what
    assert np.abs(a - b).max() <= rtol * np.abs(b).max() + 1e-300, what


def cotangents(d: int, rows: int, probes: int, shared: bool = False) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(7)
    return (
        rng.standard_normal((probes, 1 if shared else rows, d)),
        rng.standard_normal((rows, d)) * np.arange(rows)[:, None],  # unequal weights, one of them zero
        rng.standard_normal((probes, rows, d)),
    )


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_pullback_agrees_with_autograd(name: str, shared: bool) -> None:
    g = CONSTRUCTORS[name](np.zeros(1), 3)
    x = inputs(backend("numpy-f64"), g.event_shape[0], 5)
    v, y_bar, t_bar = cotangents(g.event_shape[0], x.shape[0], 2, shared)
    truth = by_autograd(g, x, v, y_bar, t_bar)
    ours = g.pullback(x, v, y_bar, t_bar)
    assert_close(ours[0], truth[0], "x̄")
    assert_close(ours[1], truth[1], "v̄")
    assert ours[2].keys() == g.parameters().keys()
    for key, gradient in ours[2].items():
        assert_close(gradient, truth[2][key], key)


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_pullback_is_linear_in_its_cotangents(name: str) -> None:
    g = CONSTRUCTORS[name](np.zeros(1), 3)
    x = inputs(backend("numpy-f64"), g.event_shape[0], 5)
    v, y_bar, t_bar = cotangents(g.event_shape[0], x.shape[0], 2)
    both, value, tangent = g.pullback(x, v, y_bar, t_bar), g.pullback(x, None, y_bar), g.pullback(x, v, None, t_bar)
    # d(ȳᵀg + t̄ᵀJv) = d(ȳᵀg) + d(t̄ᵀJv), and the first has no tangent
    assert value[1] is None
    assert_close(value[0] + tangent[0], both[0], "x̄")
    assert_close(tangent[1], both[1], "v̄")
    for key, gradient in both[2].items():
        assert_close(value[2][key] + tangent[2][key], gradient, key)


@pytest.mark.parametrize("key", ["numpy-f64", "torch-f64", "strict-device2-f64", "numpy-f32", "strict-device1-f32"])
@pytest.mark.parametrize("name", ["lipswish 2-16-2 L=.9", "softplus 4-9-5-4 L=.9"])
def test_pullback_agrees_with_50_digits(name: str, key: str) -> None:
    b, p = backend(key), digits50()
    g = CONSTRUCTORS[name](b.asarray(np.zeros(1)), 3)
    d = g.event_shape[0]
    arrays = [inputs(b, d, 5), *(b.asarray(a) for a in cotangents(d, 5, 2))]
    truth = at_50_digits(g).pullback(*(p.asarray(to_host(a).astype(np.float64)) for a in arrays))
    ours = g.pullback(*arrays)
    tol = 1e-5 if key.endswith("f32") else 1e-13
    assert_close(ours[0], truth[0], "x̄", tol)
    assert_close(ours[1], truth[1], "v̄", tol)
    for name_, gradient in ours[2].items():
        assert_close(gradient, truth[2][name_], name_, tol)
