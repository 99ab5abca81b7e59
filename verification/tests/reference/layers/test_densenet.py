"""Densely connected branches: the concatenation's constant attained and never exceeded, gradients by autograd, certificate, spread."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from tables import at_50_digits, backend, exact, inputs

import iresnet_ref as ir
from iresnet_ref.arrays import to_host
from iresnet_ref.branches.branch import Branch
from iresnet_ref.branches.densely_connected import densenet
from iresnet_ref.layers.by_name import nonlinearity
from iresnet_ref.layers.concatenation import Concatenation
from iresnet_ref.layers.linear import Affine
from iresnet_ref.layers.pointwise import Pointwise

torch = pytest.importorskip("torch")

CASES = {
    "clipswish": {"activation": "clipswish"},
    "learnable clipswish": {"activation": "learnable clipswish"},
    "lipswish, fixed concatenation": {"activation": "lipswish", "learnable": False},
    "maxmin": {"activation": "maxmin"},
}


def build(case: str, seed: int = 0, like: Any = None) -> ir.Branch:
    g = densenet(3, depth=2, growth=4, seed=seed, like=like, **CASES[case])  # type: ignore[arg-type]
    rng = np.random.default_rng(seed)
    xp = ir.arrays.namespace(g.like)
    changed = {  # concatenations that are not equal
        k: xp.asarray(rng.standard_normal(2), dtype=p.dtype, device=ir.arrays.device(p)) if p.shape == (2,) and k.endswith("raw") else p
        for k, p in g.parameters().items()
    }
    return g.with_parameters(changed)


def plain(g: ir.Branch, parameters: dict[str, Any], case: str) -> Any:
    """The branch in plain torch, from its parameters."""

    def phi(z: Any, prefix: str) -> Any:
        if case == "maxmin":
            return z.unflatten(-1, (-1, 2)).sort(-1, descending=True)[0].flatten(-2)
        if case.startswith("lipswish"):
            return z * torch.sigmoid(z) / 1.1
        beta = torch.nn.functional.softplus(parameters[prefix + "1.raw"]) if case.startswith("learnable") else 1.0
        return torch.cat([z * torch.sigmoid(beta * z), -z * torch.sigmoid(-beta * z)], -1) / (1.1 * 1.004)

    def value(x: Any) -> Any:
        last = len(g.layers) - 1
        for i in range(last):
            inner = phi(x @ parameters[f"{i}.0.weight"].T + parameters[f"{i}.0.bias"], f"{i}.")
            eta = torch.full((2,), math.sqrt(0.5), dtype=x.dtype)
            if f"{i}.raw" in parameters:
                eta = torch.nn.functional.softplus(parameters[f"{i}.raw"])
                eta = eta / eta.norm()
            x = torch.cat([eta[0] * x, eta[1] * inner], -1)
        return x @ parameters[f"{last}.weight"].T + parameters[f"{last}.bias"]

    return value


@pytest.mark.parametrize("case", CASES)
def test_value_jacobian_and_gradients_are_those_of_autograd(case: str) -> None:
    g = build(case)
    rng = np.random.default_rng(1)
    x, y_bar, v, t_bar = rng.standard_normal((5, 3)), rng.standard_normal((5, 3)), *rng.standard_normal((2, 2, 5, 3))
    parameters = {k: torch.tensor(to_host(p), requires_grad=True) for k, p in g.parameters().items()}
    f = plain(g, parameters, case)
    xt, vt = torch.tensor(x, requires_grad=True), torch.tensor(v, requires_grad=True)
    y = f(xt)
    assert np.abs(g(x) - y.detach().numpy()).max() <= 1e-15
    jacobian = torch.stack([torch.autograd.functional.jacobian(lambda r: f(r[None])[0], row) for row in xt.detach()])
    assert np.abs(g.linearize(x)[1].dense() - jacobian.numpy()).max() <= 1e-15
    total = (torch.tensor(y_bar) * y).sum()
    for probe, bar in zip(vt, torch.tensor(t_bar), strict=True):
        total = total + (probe * torch.autograd.grad(y, xt, bar, create_graph=True)[0]).sum()
    truth = torch.autograd.grad(total, [xt, vt, *parameters.values()])
    x_bar, v_bar, gradients = g.pullback(x, v, y_bar, t_bar)
    for ours, theirs in zip([x_bar, v_bar, *(gradients[k] for k in parameters)], truth, strict=True):
        # 1e-10 relative to the largest entry
        assert np.abs(ours - theirs.numpy()).max() <= 1e-12 * float(theirs.abs().max())
    value, tangent = g.pullback(x, None, y_bar), g.pullback(x, v, None, t_bar)
    assert np.abs(value[0] + tangent[0] - x_bar).max() <= 1e-14


@pytest.mark.parametrize("raw", [(0.0, 0.0), (3.0, -2.0), (-1.0, 4.0)])
@pytest.mark.parametrize("gain", [0.3, 1.0, 2.5])
def test_the_constant_is_attained_and_never_exceeded(raw: tuple[float, float], gain: float) -> None:
    # f(h) = K·h: ‖[η₁h; η₂Kh]‖_p = ‖(η₁, η₂K)‖_p ‖h‖_p exactly
    layer = Concatenation((Affine(gain * np.eye(2), np.zeros(2)),), np.asarray(raw))
    s = np.log1p(np.exp(np.asarray(raw)))
    eta = s / np.linalg.norm(s)
    dense = ir.Branch((layer,), (2,)).linearize(np.ones((1, 2)))[1].dense()[0]
    for p in (1.0, 2.0, math.inf):
        truth = np.linalg.norm([eta[0], eta[1] * gain], p)
        assert truth * (1 - 1e-15) <= layer.norm_bound(p) <= truth * (1 + 1e-13)
        assert np.linalg.norm(dense, p) <= layer.norm_bound(p)
        assert np.linalg.norm(dense, p) >= layer.norm_bound(p) * (1 - 1e-13)


@pytest.mark.parametrize("case", CASES)
def test_the_certificate_holds_whatever_the_concatenation_is(case: str) -> None:
    for seed in range(5):
        g = build(case, seed)
        bound = ir.certify(g).bound
        assert bound <= 0.9
        x = np.random.default_rng(seed).standard_normal((50, 3)) * 3
        norms = np.linalg.norm(g.linearize(x)[1].dense(), 2, axis=(1, 2))
        assert (norms <= bound).all()


@pytest.mark.parametrize("key", ["numpy-f64", "torch-f32", "strict-device2-f64"])
@pytest.mark.parametrize("case", CASES)
def test_the_errors_of_inverse_value_and_logdet_are_within_their_bounds(case: str, key: str) -> None:
    b = backend(key)
    g = build(case, 2, b.asarray(np.zeros(1)))
    block, x = ir.ResidualBlock(g), inputs(b, 3, 4)
    y = block(x)
    tol = 1e-12 if key.endswith("f64") else 1e-5
    inverse = ir.invert(block, y, rtol=tol)
    error = np.linalg.norm((to_host(inverse.x) - to_host(x)).astype(np.float64), axis=1)
    assert (error <= np.maximum(to_host(inverse.error_bound), 100 * tol)).all()
    value, spread, growth, drift = g.running_error(x)
    high = at_50_digits(g)
    assert (np.linalg.norm(to_host(exact(value) - high(exact(x))), axis=1) <= to_host(spread)).all()
    other = x * 1.5 - 0.25
    moved = np.linalg.norm(to_host(other - x).astype(np.float64), axis=1)
    change = np.abs((to_host(g.running_error(other)[1]) - to_host(spread)).astype(np.float64))
    assert (change <= growth * moved + to_host(drift)).all()
    dense = to_host(g.linearize(x)[1].dense()).astype(np.float64)
    truth = np.linalg.slogdet(np.eye(3) + dense)[1]
    assert np.abs(to_host(ir.logdet(block, x, method="exact").value) - truth).max() <= 10 * tol


def test_images_are_concatenated_along_their_channels() -> None:
    g = ir.convnet((2, 4, 4), channels=3, kernels=(3, 1), activation="lipswish")
    first, *_ = g.layers
    layer = Concatenation((first, Pointwise(nonlinearity("elu", np.zeros(1)).activation)), np.zeros(2))  # type: ignore[attr-defined]
    x = np.random.default_rng(0).standard_normal((3, 2, 4, 4))
    y, factor = layer.linearize(x)
    assert y.shape == (3, 5, 4, 4)
    assert factor.out_shape == (5, 4, 4)
    v, w = np.random.default_rng(1).standard_normal((2, *x.shape)), np.random.default_rng(2).standard_normal((2, *y.shape))
    assert abs((factor.apply(v) * w).sum() - (factor.transpose(w) * v).sum()) <= 1e-12
    step = 1e-6 * v[0]
    assert np.abs((layer(x + step) - layer(x - step)) / 2e-6 - factor.apply(v[0])).max() <= 1e-8
    assert Branch((layer,), (2, 4, 4)).certificate.proved


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ir.ShapeError, match=r"densenet: expected d, depth and growth ≥ 1 and growth a multiple of 2 for clipswish"):
        densenet(2, growth=5)
    with pytest.raises(ir.NotContractiveError, match="expected 0 < Lip"):
        densenet(2, lipschitz=1.0)
    broken = densenet(2, depth=1, growth=4)
    certificate = broken.with_parameters({**broken.parameters(), "0.raw": np.asarray([np.nan, 0.0])}).certificate
    assert not certificate.proved
