"""The convolution operator and its layer: torch's conv2d, the matrix, the adjoint, autograd; what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tables import backend, each_backend

import iresnet_ref as ir
from iresnet_ref.arrays import to_host
from iresnet_ref.jacobian import convolution
from iresnet_ref.jacobian.convolution import Convolution
from iresnet_ref.rounding import gamma, unit_roundoff

torch = pytest.importorskip("torch")

# out, in, kh, kw, h, w: few → many, many → few, equal, rectangular, 1×1, kernels as large as the image, one pixel
SHAPES = [
    (5, 2, 3, 3, 6, 7),
    (2, 5, 3, 3, 6, 7),
    (3, 3, 5, 1, 5, 4),
    (2, 4, 1, 3, 4, 3),
    (4, 3, 1, 1, 3, 2),
    (1, 1, 1, 1, 1, 1),
]
PADDINGS: tuple[convolution.Padding, ...] = ("zero", "circular")
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
each_padding = pytest.mark.parametrize("padding", PADDINGS)


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def make(shape: tuple[int, ...], padding: convolution.Padding) -> Convolution:
    return Convolution(normal(*shape[:4]), (shape[4], shape[5]), padding)


def by_torch(x: Any, kernel: Any, padding: str) -> Any:
    p, q = kernel.shape[2] // 2, kernel.shape[3] // 2
    mode = {"zero": "constant", "circular": "circular"}[padding]
    return torch.nn.functional.conv2d(torch.nn.functional.pad(x, (q, q, p, p), mode=mode), kernel)


def close(a: Any, b: Any, terms: int, scale: Any, u: float = 2.0**-53) -> None:
    """|a − b| ≤ 2γ_terms Σ|a_i||b_i| of the inner products, which `scale` bounds."""
    assert a.shape == b.shape
    assert (np.abs(a - b) <= 2 * gamma(terms + 2, u) * scale).all()


@pytest.mark.parametrize("piece", [2**19, 1])
@pytest.mark.parametrize("formulation", ["_gather", "_scatter"])
@each_padding
@each_shape
def test_every_formulation_is_the_matrix_and_torch(
    shape: tuple[int, ...], padding: Any, formulation: str, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = make(shape, padding)
    x = normal(2, 3, *a.in_shape, seed=1)
    monkeypatch.setattr(convolution, "PIECE", piece)
    for other in ("_gather", "_scatter"):
        monkeypatch.setattr(Convolution, other, getattr(Convolution, formulation))
    y = a.apply(x)
    size = np.abs(a.absolute().apply(np.abs(x)))
    flat = torch.tensor(x.reshape(6, *a.in_shape))
    close(
        y.reshape(6, *a.out_shape),
        by_torch(flat, torch.tensor(a.weight), padding).numpy(),
        a.terms,
        size.reshape(6, *a.out_shape),
    )
    matrix = a.matrix()
    assert np.isin(matrix, np.append(a.weight, 0.0)).all()  # entries of K, exactly
    close(y.reshape(6, -1), x.reshape(6, -1) @ matrix.T, a.terms, size.reshape(6, -1))


@each_padding
@each_shape
def test_transpose_is_the_adjoint(shape: tuple[int, ...], padding: Any) -> None:
    a = make(shape, padding)
    # the matrix of Kᵀ is the transposed matrix of K, exactly
    assert (a.adjoint().matrix() == a.matrix().T).all()
    v, u = normal(3, *a.in_shape, seed=1), normal(3, *a.out_shape, seed=2)
    left, right = (u * a.apply(v)).sum((1, 2, 3)), (v * a.transpose(u)).sum((1, 2, 3))
    scale = (np.abs(u) * a.absolute().apply(np.abs(v))).sum((1, 2, 3))
    close(left, right, a.terms + u[0].size + v[0].size, scale)


@each_backend
@each_padding
@pytest.mark.parametrize("shape", SHAPES[:2], ids=str)
def test_every_backend_agrees_and_keeps_dtype_and_device(shape: tuple[int, ...], padding: Any, key: str) -> None:
    b, host = backend(key), make(shape, padding)
    x = normal(2, 3, *host.in_shape, seed=1)
    a, v = Convolution(b.asarray(host.weight), host.image, padding), b.asarray(x)
    y, u = a.apply(v), unit_roundoff(v)
    assert y.dtype == v.dtype
    assert ir.arrays.device(y) == ir.arrays.device(v)
    close(to_host(y), host.apply(x), a.terms + 2, host.absolute().apply(np.abs(x)), u)
    gradient = to_host(a.weight_gradient(y, v))
    truth = host.weight_gradient(to_host(y).astype(np.float64), x)
    scale = host.weight_gradient(np.abs(to_host(y)).astype(np.float64), np.abs(x))
    close(gradient, truth, 6 * shape[4] * shape[5] + 2, scale, u)


def test_an_empty_batch_has_the_right_shape() -> None:
    a = make(SHAPES[0], "zero")
    assert a.apply(np.zeros((0, *a.in_shape))).shape == (0, *a.out_shape)
    assert (a.weight_gradient(np.zeros((0, *a.out_shape)), np.zeros((0, *a.in_shape))) == 0).all()


@pytest.mark.parametrize("tangent_rows", [1, 4])
@each_padding
@each_shape
def test_pullback_agrees_with_autograd(shape: tuple[int, ...], padding: Any, tangent_rows: int) -> None:
    a = make(shape, padding)
    layer = ir.layers.Conv(a.weight, normal(shape[0], seed=9), a.image, padding)
    x, y_bar = normal(4, *a.in_shape, seed=1), normal(4, *a.out_shape, seed=2) * np.arange(4)[:, None, None, None]
    v, t_bar = normal(2, tangent_rows, *a.in_shape, seed=3), normal(2, 4, *a.out_shape, seed=4)
    tx, tv, tk, tb = (torch.tensor(p, requires_grad=True) for p in (x, v, layer.weight, layer.bias))
    total = (torch.tensor(y_bar) * (by_torch(tx, tk, padding) + tb[:, None, None])).sum()
    for probe, cotangent in zip(tv, torch.tensor(t_bar), strict=True):
        total = total + (cotangent * by_torch(probe, tk, padding)).sum()
    truth = [g.numpy() for g in torch.autograd.grad(total, [tx, tv, tk, tb])]
    x_bar, v_bar, grads = layer.pullback(x, v, y_bar, t_bar)
    if v_bar.shape != v.shape:
        v_bar = v_bar.sum(axis=1, keepdims=True)
    for ours, theirs in zip((x_bar, v_bar, grads["weight"], grads["bias"]), truth, strict=True):
        assert np.abs(ours - theirs).max() <= 1e-13 * max(np.abs(theirs).max(), 1.0)
    assert (layer.linearize(x)[0] == layer(x)).all()
    assert np.abs(layer(x) - (by_torch(tx, tk, padding) + tb[:, None, None]).detach().numpy()).max() <= 1e-13


@pytest.mark.parametrize(
    ("weight", "bias", "image", "message"),
    [
        ((2, 2, 2, 3), (2,), (4, 4), r"odd sides.*got \(2, 3\)"),
        ((2, 2, 3, 5), (2,), (4, 4), r"no larger than the image \(4, 4\), got \(3, 5\)"),
        ((2, 2, 3), (2,), (4, 4), r"shape \(out, in, kh, kw\), got \(2, 2, 3\)"),
        ((2, 2, 3, 3), (3,), (4, 4), r"bias: expected one number for each output \(2,\), got shape \(3,\)"),
        ((2, 2, 3, 3), (2,), (0, 4), r"positive integers, got \(0, 4\)"),
    ],
)
def test_what_no_convolution_is_defined_for_is_refused(weight: Any, bias: Any, image: Any, message: str) -> None:
    with pytest.raises(ir.ShapeError, match=message):
        ir.layers.Conv(np.ones(weight), np.ones(bias), image)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"kernels": (3, 2, 3)}, ir.ShapeError, "odd sides"),
        ({"kernels": (3, 1, 9)}, ir.ShapeError, "no larger than the image"),
        ({"stride": 2}, ir.ShapeError, "expected stride 1.*got 2.*try a squeeze"),
        ({"channels": (4,)}, ir.ShapeError, r"got 3 kernels and channels \(4,\)"),
        ({"channels": 0}, ir.ShapeError, "positive number of channels"),
        ({"kernels": (), "channels": ()}, ir.ShapeError, "got 0 kernels"),
        ({"padding": "reflect"}, ValueError, "expected 'zero' or 'circular', got 'reflect'"),
        ({"lipschitz": 1.0}, ir.NotContractiveError, "0 < Lip"),
    ],
)
def test_what_no_branch_can_be_made_of_is_refused(arguments: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        ir.convnet((2, 8, 8), **arguments)
    with pytest.raises(ir.ShapeError, match=r"event shape \(channels, height, width\), got \(3, 3\)"):
        ir.convnet((3, 3))


def test_wrong_channel_counts_and_wrong_images_are_refused() -> None:
    F = ir.ResidualBlock(ir.convnet((2, 4, 4), channels=3))
    for shape in ((1, 3, 4, 4), (1, 2, 4, 5), (2, 4, 4)):
        with pytest.raises(ir.ShapeError, match=r"expected shape \(batch, 2, 4, 4\)"):
            F(np.zeros(shape))


def test_convnet_is_the_same_network_on_every_backend_with_the_bound_it_was_asked_for() -> None:
    for padding in PADDINGS:
        g = ir.convnet((2, 5, 4), channels=(3, 4), kernels=((3, 1), 1, 3), padding=padding, lipschitz=0.5, seed=4)
        assert 0.49 < g.product.bound <= 0.5
        t = ir.convnet(
            (2, 5, 4),
            channels=(3, 4),
            kernels=((3, 1), 1, 3),
            padding=padding,
            lipschitz=0.5,
            seed=4,
            like=torch.zeros(1, dtype=torch.float64),
        )
        for ours, theirs in zip(g.parameters().values(), t.parameters().values(), strict=True):
            assert np.abs(ours - theirs.numpy()).max() <= 2.0**-51


def test_a_layer_keeps_nothing_of_a_call_without_gradients() -> None:
    branch = ir.convnet((2, 4, 4), channels=3, like=torch.zeros(1, dtype=torch.float64))
    weights = {k: p.clone().requires_grad_() for k, p in branch.parameters().items()}
    x = torch.as_tensor(normal(2, 2, 4, 4))

    def slopes(*contexts: Any) -> list[Any]:
        g = branch.with_parameters(weights)
        for context in contexts:
            with context():
                g.jacobian(x).rmatvec(x)
        total = g.jacobian(x).rmatvec(x).square().sum()
        return [*torch.autograd.grad(total, [p for k, p in weights.items() if k.endswith("weight")]), total.detach()]

    fresh = slopes()
    assert all(float(s.abs().max()) > 0.0 for s in fresh)
    for context in (torch.no_grad, torch.inference_mode):
        assert all(torch.equal(a, b) for a, b in zip(slopes(context), fresh, strict=True))


def test_a_layer_keeps_no_tracer_of_jax() -> None:
    jax = pytest.importorskip("jax")
    branch = ir.convnet((2, 4, 4), channels=3, like=jax.numpy.zeros(1))
    x = jax.numpy.ones((2, 2, 4, 4))
    traced = jax.jit(lambda v: branch.jacobian(v).rmatvec(v))(x)
    assert traced.shape == branch.jacobian(x).rmatvec(x).shape
