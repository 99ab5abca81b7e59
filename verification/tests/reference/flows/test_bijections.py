"""Laws of the bijections between residual blocks: a table of constructors × laws × backends."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bijection_cases import SHAPE, TABLE, actnorm, batch, mixing
from tables import backend, distance, each_backend, exact

import iresnet_ref as ir
from iresnet_ref.arrays import namespace, to_host
from iresnet_ref.rounding import unit_roundoff

TIGHT = ir.Options(rtol=1e-13)


def at_50_digits(f: Any) -> Any:
    p = {k: exact(v) for k, v in f.parameters().items()}
    return f.with_parameters(p)


def flat(x: Any) -> Any:
    return namespace(x).reshape(x, (x.shape[0], -1))


# F(F⁻¹(y)) = y: the computed preimage lies within its bound of the preimage in 50 digits of the same parameters.
@pytest.mark.parametrize("key", ["numpy-f64", "numpy-f32", "torch-f64", "strict-device1-f32"])
@pytest.mark.parametrize("name", TABLE)
def test_preimage_is_within_its_bound(name: str, key: str) -> None:
    f = TABLE[name](backend(key).asarray(np.zeros(1)))
    y = f(batch(f, key))
    options = ir.Options(rtol=1e-5 if "f32" in key else 1e-12)
    found = f.inverse(y, options=options)
    truth = at_50_digits(f).inverse(exact(y), options=ir.Options(rtol=1e-25)).x
    off = distance(flat(found.x), flat(truth))
    bound = to_host(found.error_bound)
    assert np.all(off <= bound), (off, bound)
    assert np.all(np.isfinite(bound))
    assert found.x.dtype == y.dtype


@pytest.mark.parametrize("name", TABLE)
def test_forward_and_inverse_are_each_other(name: str) -> None:
    f = TABLE[name](np.zeros(1))
    x = batch(f, "numpy-f64")
    y, log_det = f.forward(x)
    back = f.inverse(y, options=TIGHT)
    assert tuple(y.shape[1:]) == tuple(f.out_shape)
    slack = to_host(back.error_bound) + f.inverse_lipschitz * 2e-14 * (1.0 + np.linalg.norm(flat(y), axis=1))
    assert np.all(np.linalg.norm(flat(back.x - x), axis=1) <= slack)
    assert np.allclose(f.forward(back.x)[1].value, log_det.value, rtol=1e-10, atol=1e-10)
    assert log_det.value.shape == (x.shape[0],)


# log|det dy/dx| is that of the Jacobian by automatic differentiation; the pullback is its gradient.
@pytest.mark.parametrize("name", TABLE)
def test_log_det_and_pullback_agree_with_autograd(name: str) -> None:
    torch = pytest.importorskip("torch")
    f = TABLE[name](backend("torch-f64").asarray(np.zeros(1)))
    x = batch(f, "torch-f64", rows=3).requires_grad_(True)
    p = {k: v.detach().clone().requires_grad_(True) for k, v in f.parameters().items()}
    f = f.with_parameters(p)
    y, log_det = f.forward(x)
    for i in range(x.shape[0]):
        jacobian = torch.autograd.functional.jacobian(lambda v: f.value(v[None])[0], x[i].detach())
        truth = torch.linalg.slogdet(jacobian.reshape(y[i].numel(), -1))[1]
        assert abs(float(truth - log_det.value[i].detach())) <= 1e-12 * (1.0 + abs(float(truth)))
    rng = np.random.default_rng(8)
    y_bar, weights = torch.tensor(rng.standard_normal(y.shape)), torch.tensor([2.0, 0.0, -1.0], dtype=torch.float64)
    for w in (weights, None):
        y, log_det = f.forward(x)
        total = (y_bar * y).sum() + (0.0 if w is None else (w * log_det.value).sum())
        truth = torch.autograd.grad(total, [x, *p.values()], allow_unused=True)
        with torch.no_grad():
            x_bar, gradients = f.pullback(x, y_bar, w, ir.Options())
        assert list(gradients) == list(p)
        for key, a, b in zip(["x", *p], [x_bar, *gradients.values()], truth, strict=True):
            assert float((a - b).norm()) <= 1e-12 * float(b.norm()) + 1e-13, key


# ‖F⁻¹(y) − F⁻¹(y′)‖ ≤ Λ‖y − y′‖, near and far.
@pytest.mark.parametrize("name", TABLE)
def test_inverse_lipschitz_is_a_bound(name: str) -> None:
    f = TABLE[name](np.zeros(1))
    x = batch(f, "numpy-f64", rows=16)
    for step in (1e-3, 1.0):
        other = x + step * np.random.default_rng(9).standard_normal(x.shape)
        if isinstance(f, ir.bijections.Logit):
            other = np.clip(other, 0.0, f.levels)
        near, far = flat(x - other), flat(f(x) - f(other))
        assert np.all(np.linalg.norm(near, axis=1) <= f.inverse_lipschitz * np.linalg.norm(far, axis=1) * (1 + 1e-9))


def test_inverse_lipschitz_is_sharp_where_it_can_be() -> None:
    m = mixing((5,), np.zeros(1))
    norm = np.linalg.norm(np.linalg.inv(m(np.eye(5)).T), 2)
    lower, upper = m._factors
    assert norm * (1 - 1e-12) <= m.inverse_lipschitz
    bound = np.linalg.norm(np.linalg.inv(lower), 2) * np.linalg.norm(np.linalg.inv(upper), 2)
    assert bound <= m.inverse_lipschitz <= bound * (1 + 1e-5)
    a = actnorm((5,), np.zeros(1))
    assert math.isclose(a.inverse_lipschitz, np.exp(-a.log_scale).max(), rel_tol=1e-13)


@each_backend
@pytest.mark.parametrize("name", TABLE)
def test_backends_agree(name: str, key: str) -> None:
    ours, numpys = TABLE[name](backend(key).asarray(np.zeros(1))), TABLE[name](np.zeros(1))
    y, log_det = ours.forward(batch(ours, key))
    y0, log_det0 = numpys.forward(batch(numpys, "numpy-f64"))
    # each side rounds at most five steps, sums of d terms and eight roundings besides; the values are of size 1 + |y|
    allowed = 2 * 5 * (math.prod(ours.in_shape) + 8) * unit_roundoff(y)
    assert (np.abs(to_host(y) - y0) <= allowed * (1 + np.abs(y0))).all()
    assert (np.abs(to_host(log_det.value) - log_det0.value) <= allowed * (1 + np.abs(log_det0.value))).all()


def test_actnorm_normalises_its_first_batch_and_no_other() -> None:
    rng = np.random.default_rng(10)
    x = rng.standard_normal((64, *SHAPE)) * 5.0 + 3.0
    a = ir.bijections.ActNorm.uninitialised(SHAPE).initialise(x)
    y = a(x)
    assert np.abs(y.mean(axis=(0, 2, 3))).max() < 1e-14 * 64
    assert np.abs(y.std(axis=(0, 2, 3)) - 1.0).max() < 1e-13
    again = a.initialise(rng.standard_normal((8, *SHAPE)))
    assert again is a


def test_actnorm_keeps_the_scale_of_a_constant_channel() -> None:
    x = np.stack([np.full(6, 0.1), np.arange(6.0)], axis=1)
    a = ir.bijections.ActNorm.uninitialised((2,)).initialise(x)
    assert a.log_scale[0] == 0.0
    assert np.isfinite(a(x)).all()


def test_actnorm_refuses_to_run_before_it_is_initialised() -> None:
    with pytest.raises(ValueError, match="actnorm: expected initialised scales, got none; call flow"):
        ir.bijections.ActNorm.uninitialised((2,))(np.ones((1, 2)))


def test_squeeze_is_pixel_unshuffle() -> None:
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(11).standard_normal((2, 3, 4, 6))
    assert np.array_equal(ir.bijections.Squeeze((3, 4, 6))(x), torch.nn.functional.pixel_unshuffle(torch.tensor(x), 2).numpy())


def test_padding_appends_zeros_and_projects_back() -> None:
    pad = ir.bijections.ZeroPad((2, 3), 2)
    x = np.random.default_rng(12).standard_normal((4, 2, 3))
    y, log_det = pad.forward(x)
    assert np.array_equal(y[:, :2], x)
    assert not y[:, 2:].any()
    assert not log_det.value.any()
    found = pad.inverse(y + 1.0)
    assert np.array_equal(found.x, x + 1.0)
    assert np.allclose(found.residual_norm, math.sqrt(6.0))  # how far y + 1 was from the image


def test_the_density_of_bytes_follows_the_logit() -> None:
    f = ir.bijections.Logit((1,), alpha=0.05)
    # Σ over the line of density 1/256 of v, moved through the logit: ∫ |dx/dy| dy over the image of [0, 256] is 256.
    x = np.linspace(0.0, 256.0, 4001)[:, None]
    y, log_det = f.forward(x)
    widths = np.diff(y[:, 0])
    middle = 0.5 * (np.exp(-log_det.value)[1:] + np.exp(-log_det.value)[:-1])
    assert abs((middle * widths).sum() - 256.0) < 1e-3


@pytest.mark.parametrize("key", ["numpy-f32", "numpy-f64", "torch-f32", "strict-device1-f32"])
def test_dequantised_bytes_are_given_back_by_floor(key: str) -> None:
    x = np.resize(np.arange(256), (32, 3, 8, 8))
    noisy = ir.bijections.dequantise(x, seed=13, like=backend(key).asarray(np.zeros(1)))
    host = to_host(noisy).astype(np.float64)
    assert np.array_equal(np.floor(host), x)
    assert np.array_equal(host, ir.bijections.dequantise(x, seed=13))
    u = host - x
    assert 0.0 < u.min() < u.max() < 1.0
    assert abs(u.mean() - 0.5) < 5.0 / math.sqrt(12.0 * u.size)  # false alarm 6e-7


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ir.bijections.Squeeze((3, 5, 4)), ir.ShapeError, "even height and width"),
        (lambda: ir.bijections.Permutation((3,), (0, 0, 1)), ir.ShapeError, "expected an order of the"),
        (lambda: ir.bijections.ZeroPad((3,), 0), ir.ShapeError, "at least one channel"),
        (lambda: ir.bijections.Logit((3,), alpha=0.5), ValueError, "0 < alpha < 0.5"),
        (lambda: ir.bijections.Logit((1,))(np.asarray([[257.0]])), ir.NonFiniteError, r"expected values in \[0, 256\]"),
        (lambda: ir.bijections.PLULinear.rotation((3,)).with_parameters({}), ir.ShapeError, "expected exactly the keys"),
        (lambda: ir.bijections.ActNorm(np.zeros(2), np.zeros(2), (3,)), ir.ShapeError, "log_scale and shift of shape"),
        (lambda: ir.bijections.FactorOut((4, 2), [ir.bijections.Permutation((3, 2), (0, 1, 2))]), ir.ShapeError, "half the channels"),
        (lambda: ir.bijections.FactorOut((1, 2), [ir.bijections.Permutation((1, 2), (0,))]), ir.ShapeError, "at least two channels"),
        (lambda: ir.bijections.Composition(()), ir.ShapeError, "at least one step"),
        (lambda: ir.bijections.Composition((lambda x: x,)), ir.DTypeError, "residual blocks or bijections, got function"),
        (lambda: ir.bijections.Composition((ir.bijections.ZeroPad((2,), 1),) * 2), ir.ShapeError, "step 1 to take events"),
        (lambda: ir.bijections.ActNorm.uninitialised((2,)).initialise(np.zeros((0, 2))), ir.ShapeError, "a batch with rows"),
    ],
)
def test_bad_input_is_refused(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_singular_mixing_claims_nothing() -> None:
    m = mixing((3,), np.zeros(1))
    p = m.parameters()
    p["log_scale"] = np.asarray([0.0, -2000.0, 0.0])
    assert m.with_parameters(p).inverse_lipschitz == math.inf
