"""The gradient through spectral normalisation: against autodiff of W·min(1, c/σ), with σ by their own SVD."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from autodiff_oracles import assert_close, assert_gradients, jax_gradients, jax_logdets, torch_gradients, torch_logdets
from tables import backend, inputs

import iresnet_ref as ir
from iresnet_ref.arrays import to_host
from iresnet_ref.errors import NotContractiveError
from iresnet_ref.layers.linear import Affine
from iresnet_ref.normalisation.shares import lipschitz_shares
from iresnet_ref.norms.convolution import DENSE_UP_TO
from iresnet_ref.rounding import gamma, unit_roundoff

torch = pytest.importorskip("torch")
WEIGHTS = np.asarray([-1.5, 0.0, 0.25, 2.0, 1.0])
CASES = {
    "all divided": ((3, 8, 3), "elu", (3.0, 2.0)),
    "first raw": ((4, 9, 5, 4), "softplus", (0.3, 2.0, 5.0)),
    "none divided": ((3, 6, 3), "tanh", (0.5, 0.5)),
    "linear": ((5, 5), "elu", (2.0,)),
}


def raw_branch(name: str, like: Any) -> ir.Branch:
    sizes, activation, scales = CASES[name]
    g = ir.mlp(sizes, activation=activation, lipschitz=0.999, seed=3, like=like)
    p = g.parameters()
    return g.with_parameters({k: v * scales[int(k.split(".")[0]) // 2] for k, v in p.items()})


def dividing(share: float, largest: Any) -> Any:
    """The parameters as the oracle sees them: W·min(1, c/σ) with its own σ."""

    def transform(parameters: dict[str, Any]) -> dict[str, Any]:
        used = {}
        for key, value in parameters.items():
            sigma = largest(value) if key.endswith("weight") else 0.0
            used[key] = value * (share / sigma) if sigma > share else value
        return used

    return transform


@pytest.mark.parametrize("name", CASES)
def test_gradient_agrees_with_torch_autograd(name: str) -> None:
    raw = raw_branch(name, np.zeros(1))
    normalised = ir.NormalisedBranch(raw, lipschitz=0.9)
    x = inputs(backend("numpy-f64"), raw.event_shape[0], 5)
    y_bar = np.random.default_rng(1).standard_normal(x.shape)
    share = lipschitz_shares(0.9, (len(raw.layers) + 1) // 2)
    transform = dividing(share, lambda w: torch.linalg.svdvals(w)[0])

    def loss(g: Any, x: Any) -> Any:
        """Σ ȳᵀF(x) + Σ w log det(I + J) of the normalised branch."""
        return (torch.tensor(y_bar) * (x + g(x))).sum() + (torch.tensor(WEIGHTS) * torch_logdets(g, x)).sum()

    truth = torch_gradients(raw, x, loss, transform=transform)
    found = ir.logdet_gradient(ir.ResidualBlock(normalised.branch), x, weights=WEIGHTS, y_bar=y_bar)
    assert_gradients((found.x_bar, normalised.pullback(found.parameters)), truth)


def test_gradient_agrees_with_jax_grad() -> None:
    jax = pytest.importorskip("jax")
    raw = raw_branch("all divided", np.zeros(1))
    normalised = ir.NormalisedBranch(raw, lipschitz=0.9)
    x = inputs(backend("numpy-f64"), 3, 5)
    share = lipschitz_shares(0.9, 2)

    def transform(parameters: dict[str, Any]) -> dict[str, Any]:
        def scale(w: Any) -> Any:
            return jax.numpy.minimum(1.0, share / jax.numpy.linalg.svd(w, full_matrices=False)[1][0])

        return {k: v * scale(v) if k.endswith("weight") else v for k, v in parameters.items()}

    truth = jax_gradients(raw, x, lambda g, x: (WEIGHTS * jax_logdets(g, x)).sum(), transform=transform)
    found = ir.logdet_gradient(ir.ResidualBlock(normalised.branch), x, weights=WEIGHTS)
    assert_gradients((found.x_bar, normalised.pullback(found.parameters)), truth)


@pytest.mark.parametrize("key", ["numpy-f32", "numpy-f64", "torch-f32", "strict-device1-f32", "strict-device2-f64"])
@pytest.mark.parametrize("name", CASES)
def test_what_is_stored_is_certified_and_hardly_shrunk(name: str, key: str) -> None:
    b = backend(key)
    raw = raw_branch(name, b.asarray(np.zeros(1)))
    branch = ir.NormalisedBranch(raw, lipschitz=0.9).branch
    assert branch.certificate.bound <= 0.9
    share = lipschitz_shares(0.9, (len(raw.layers) + 1) // 2)
    u, exact = unit_roundoff(b.asarray(np.zeros(1))), 2.0**-53
    for parameter, weight in branch.parameters().items():
        if parameter.endswith("weight"):
            sigma, own = (
                np.linalg.norm(to_host(w).astype(np.float64), 2) for w in (weight, raw.parameters()[parameter])
            )
            n = min(weight.shape)
            # c/(σ(1 + margin)): a margin is refused once at most, and then twice what was missing, the slack of the proof, (n² + 32)u
            # of float64, and √n u of the rounded weights; these round once more, and the quotient four times in float64.
            missing = math.sqrt(n) * u + (n * n + 32) * exact
            assert min(share, own) * (1.0 - 2 * missing - math.sqrt(n) * u - 4 * exact) <= sigma <= share
        else:
            assert (to_host(weight) == to_host(raw.parameters()[parameter])).all()
    gradient = ir.NormalisedBranch(raw, lipschitz=0.9).pullback(branch.parameters())
    assert all(v.dtype == b.dtype for v in gradient.values())


CONVOLUTIONS = {
    "zero, small": ((3, 2, 3, 3), (5, 4), "zero"),
    "zero, in a circle": ((6, 5, 3, 3), (12, 11), "zero"),
    "zero, wide kernel": ((5, 6, 5, 1), (13, 11), "zero"),
    "circular": ((3, 4, 3, 5), (6, 7), "circular"),
    "nearly tied": ((1, 1, 3, 3), (5, 4), "circular"),
    "1×1": ((4, 3, 1, 1), (6, 6), "zero"),
}


def torch_norm(kernel: Any, image: tuple[int, int], padding: str) -> Any:
    """σ of the operator by its matrix (small zero padding), else of the tightest grid that wraps, by the Fourier transform."""
    outputs, inputs, kh, kw = kernel.shape
    if (kh, kw) == (1, 1):
        return torch.linalg.svdvals(kernel[:, :, 0, 0])[0]
    if padding == "zero" and image[0] * image[1] * min(outputs, inputs) <= DENSE_UP_TO:
        basis = torch.eye(inputs * image[0] * image[1], dtype=kernel.dtype).reshape(-1, inputs, *image)
        matrix = torch.nn.functional.conv2d(basis, kernel, padding=(kh // 2, kw // 2)).reshape(len(basis), -1)
        return torch.linalg.svdvals(matrix)[0]
    heights, widths = (
        [(n, 0)] if padding == "circular" else [(n + k // 2, twist) for twist in range(1 + (k > 1))]
        for n, k in zip(image, (kh, kw), strict=True)
    )
    norms = []
    for (h, down), (w, across) in [(height, width) for height in heights for width in widths]:
        rows, columns = (torch.arange(k, dtype=torch.float64) for k in (kh, kw))
        shift = torch.exp(-1j * np.pi * (down / h * rows[:, None] + across / w * columns))
        blocks = torch.fft.fft2(kernel * shift, s=(h, w)).permute(2, 3, 0, 1).reshape(-1, outputs, inputs)
        norms.append(torch.linalg.svdvals(blocks).max())
    return torch.stack(norms).min()


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_gradient_of_a_divided_kernel_agrees_with_torch_autograd(name: str) -> None:
    shape, image, padding = CONVOLUTIONS[name]
    rng = np.random.default_rng(0)
    kernel, bias, cotangent = rng.standard_normal(shape), rng.standard_normal(shape[0]), rng.standard_normal(shape)
    if name == "nearly tied":  # every frequency within 1e-3 of the largest
        kernel = 1e-4 * kernel
        kernel[0, 0, 1, 1] += 2.0
    back = ir.layers.Conv(rng.standard_normal((shape[1], shape[0], 1, 1)), np.zeros(shape[1]), image)
    raw = ir.Branch((ir.layers.Conv(kernel, bias, image, padding), back), (shape[1], *image))  # type: ignore[arg-type]
    normalised = ir.NormalisedBranch(raw, lipschitz=0.9)
    share = lipschitz_shares(0.9, 2)
    k = torch.tensor(kernel, requires_grad=True)
    used = k * share / torch_norm(k, image, padding)
    (truth,) = torch.autograd.grad((torch.tensor(cotangent) * used).sum(), k)
    assert normalised.branch.certificate.bound <= 0.9
    assert_close(normalised.branch.parameters()["0.weight"], used.detach().numpy(), "Ŵ")
    assert_close(normalised.pullback({"0.weight": cotangent})["0.weight"], truth.numpy(), "W̄")


@pytest.mark.parametrize("norm", [1.0, np.inf])
@pytest.mark.parametrize("shape", [(4, 6), (3, 4, 3, 1)])
def test_gradient_of_a_division_in_other_norms_agrees_with_torch_autograd(norm: float, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    weight, cotangent, back = (
        rng.standard_normal(s) for s in (shape, shape, (shape[1], shape[0], *(1,) * (len(shape) - 2)))
    )
    event = (shape[1], 5, 4) if len(shape) == 4 else (shape[1],)

    def layer(w: Any) -> Any:
        return ir.layers.Conv(w, np.zeros(len(w)), (5, 4)) if w.ndim == 4 else Affine(w, np.zeros(len(w)))

    normalised = ir.NormalisedBranch(ir.Branch((layer(weight), layer(back)), event, norm), lipschitz=0.9)
    w = torch.tensor(weight, requires_grad=True)
    sums = w.abs().flatten(2).sum(-1) if w.ndim == 4 else w.abs()
    used = w * lipschitz_shares(0.9, 2) / sums.sum(0 if norm == 1.0 else 1).max()
    (truth,) = torch.autograd.grad((torch.tensor(cotangent) * used).sum(), w)
    assert normalised.branch.norm == norm
    assert normalised.branch.certificate.bound <= 0.9
    assert_close(normalised.branch.parameters()["0.weight"], used.detach().numpy(), "Ŵ")
    assert_close(normalised.pullback({"0.weight": cotangent})["0.weight"], truth.numpy(), "W̄")


def test_gradient_is_orthogonal_to_the_divided_weight() -> None:
    """Ŵ does not change along W: ⟨W̄, W⟩ = 0 where the layer is divided."""
    raw = raw_branch("all divided", np.zeros(1))
    normalised = ir.NormalisedBranch(raw)
    rng = np.random.default_rng(0)
    cotangents = {k: rng.standard_normal(v.shape) for k, v in raw.parameters().items()}
    gradient = normalised.pullback(cotangents)
    for key in ("0.weight", "2.weight"):
        w, scale = raw.parameters()[key], normalised.scalings[f"{key[0]}."].scale
        # s(G − (⟨G, W⟩/σ)uvᵀ), and uᵀWv = σ whatever v is: two sums over W's entries, ‖Wv‖ and uᵀ(Wv) of its sides, eight single ones
        allowed = gamma(2 * w.size + 2 * sum(w.shape) + 8, 2.0**-53) * scale * np.linalg.norm(cotangents[key])
        assert abs(np.sum(gradient[key] * w)) <= allowed * np.linalg.norm(w)


def test_raw_weights_within_their_share_are_used_as_they_are() -> None:
    raw = raw_branch("none divided", np.zeros(1))
    normalised = ir.NormalisedBranch(raw, lipschitz=0.9)
    gradient = {k: np.ones_like(v) for k, v in raw.parameters().items()}
    assert all((normalised.branch.parameters()[k] == v).all() for k, v in raw.parameters().items())
    assert all((normalised.pullback(gradient)[k] == v).all() for k, v in gradient.items())


def test_frozen_parameters_are_left_out_and_scaled_ones_divided_anew() -> None:
    raw = raw_branch("all divided", np.zeros(1))
    normalised = ir.NormalisedBranch(raw, lipschitz=0.5)
    whole = normalised.pullback({k: np.ones_like(v) for k, v in raw.parameters().items()})
    some = normalised.pullback({"2.weight": np.ones((3, 8))})
    assert list(some) == ["2.weight"]
    assert np.array_equal(some["2.weight"], whole["2.weight"])
    twice = normalised.with_parameters({k: 2.0 * v for k, v in raw.parameters().items()})
    assert twice.lipschitz == 0.5
    # A divided weight does not change under doubling, and its gradient halves: powers of two pass through every rounding.
    assert np.array_equal(twice.branch.parameters()["0.weight"], normalised.branch.parameters()["0.weight"])
    again = twice.pullback({"2.weight": np.ones((3, 8))})
    assert np.array_equal(2.0 * again["2.weight"], whole["2.weight"])


def test_a_branch_with_nothing_to_divide_is_refused() -> None:
    paths = (ir.mlp((2, 3, 2), lipschitz=0.4).layers, (ir.layers.DiagonalAffine(np.full(2, 0.3), np.zeros(2)),))
    with pytest.raises(ir.DTypeError, match=r"expected a linear layer in the sequence, or .*, got sum of .*; try"):
        _ = ir.NormalisedBranch(ir.Branch((ir.layers.Parallel(paths),), (2,))).branch


def test_constants_of_one_and_weights_of_nan_are_refused() -> None:
    raw = raw_branch("all divided", np.zeros(1))
    with pytest.raises(NotContractiveError, match=r"expected 0 < Lip\(g\) < 1"):
        _ = ir.NormalisedBranch(raw, lipschitz=1.0).branch
    broken = raw.with_parameters({**raw.parameters(), "2.weight": np.full((3, 8), np.nan)})
    with pytest.raises(ValueError, match="expected a finite norm of dense 8→3, got inf"):
        _ = ir.NormalisedBranch(broken).branch


@pytest.mark.parametrize("learnable", [True, False])
def test_gradient_through_dense_connections_agrees_with_differences(learnable: bool) -> None:
    """Weights inside a concatenation above their share are divided too: their norm would move every other share else.

    Central differences at h and h/2, extrapolated: off by h⁴ and u/h, each below 1e-9 of the sums at h = 1e-3.
    """
    raw = ir.densenet(3, depth=2, growth=4, learnable=learnable, lipschitz=0.8, seed=1)
    raw = raw.with_parameters({k: 1.5 * p for k, p in raw.parameters().items()})
    rng = np.random.default_rng(0)
    x, y_bar, w = rng.standard_normal((5, 3)), rng.standard_normal((5, 3)), rng.standard_normal(5)
    v = {k: rng.standard_normal(p.shape) for k, p in raw.parameters().items()}

    def loss(t: float) -> float:
        branch = ir.NormalisedBranch(raw.with_parameters({k: p + t * v[k] for k, p in raw.parameters().items()}), 0.8).branch
        F = ir.ResidualBlock(branch)
        return float(np.sum(y_bar * F(x)) + np.sum(w * ir.logdet(F, x, "exact").value))

    normalised = ir.NormalisedBranch(raw, 0.8)
    assert normalised.branch.certificate.bound <= 0.8
    divided = {k for k, p in normalised.branch.parameters().items() if p is not raw.parameters()[k]}
    assert divided == {"0.0.weight", "1.0.weight", "2.weight"}
    gradient = normalised.pullback(ir.logdet_gradient(ir.ResidualBlock(normalised.branch), x, weights=w, y_bar=y_bar).parameters)
    found = sum(float(np.sum(gradient[k] * v[k])) for k in v)
    h = 1e-3
    coarse, fine = ((loss(s) - loss(-s)) / (2 * s) for s in (h, h / 2))
    assert found == pytest.approx((4 * fine - coarse) / 3, rel=1e-8)
