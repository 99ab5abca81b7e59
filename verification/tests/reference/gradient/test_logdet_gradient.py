"""The log-determinant's gradient: exact against torch.autograd, jax.grad and 50-digit differences; Neumann by enumeration."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from autodiff_oracles import (
    assert_close,
    assert_gradients,
    jax_gradients,
    jax_logdets,
    torch_gradients,
    torch_jacobians,
    torch_logdets,
)
from tables import CONSTRUCTORS, at_50_digits, backend, digits50, inputs, own_gradients

import iresnet_ref as ir
from iresnet_ref.arrays import to_host
from iresnet_ref.errors import DTypeError, InfiniteVarianceError, NonFiniteError, ShapeError
from iresnet_ref.gradient import exact
from iresnet_ref.gradient.neumann import neumann_cotangent, truncation_factor
from iresnet_ref.layers.linear import Affine
from iresnet_ref.log_determinant import length_distributions
from iresnet_ref.log_determinant.exact import exact_logdet
from iresnet_ref.log_determinant.length_distributions import near_optimal

torch = pytest.importorskip("torch")
each_constructor = pytest.mark.parametrize("name", CONSTRUCTORS)
WEIGHTS = np.asarray([-1.5, 0.0, 0.25, 2.0, 1.0])


def case(name: str, key: str = "numpy-f64") -> tuple[ir.ResidualBlock, Any, Any]:
    b = backend(key)
    g = CONSTRUCTORS[name](b.asarray(np.zeros(1)), 3)
    return ir.ResidualBlock(g), inputs(b, g.event_shape[0], 5), b.asarray(WEIGHTS)


def both(r: Any) -> tuple[Any, dict[str, Any]]:
    return r.x_bar, r.parameters


@each_constructor
def test_exact_gradient_agrees_with_torch_autograd(name: str) -> None:
    block, x, w = case(name)
    truth = torch_gradients(block.branch, x, lambda g, x: (torch.tensor(w) * torch_logdets(g, x)).sum())
    assert_gradients(both(ir.logdet_gradient(block, x, weights=w, method="exact")), truth)


def test_what_the_longest_series_leaves_out_is_reported() -> None:
    """J = −L at L = 1 − 1e-5: the series is cut at 199,999 terms, the expectation 13.5 % short; it used to say 0."""
    lipschitz = 1.0 - 1e-5
    block = ir.ResidualBlock(ir.Branch((Affine(np.asarray([[-lipschitz]]), np.zeros(1)),), (1,)), lipschitz)
    lengths = near_optimal(lipschitz, 3.0)
    found = ir.logdet_gradient(block, np.zeros((2, 1)), method=ir.Roulette(lengths))
    last = length_distributions.table(lengths, lipschitz).last
    assert found.truncation == truncation_factor(lipschitz, last) > 0.13 / (1.0 - lipschitz)


@pytest.mark.parametrize("name", ["lipswish 2-16-2 L=.9", "elu 3-8-8-3 L=.5"])
def test_exact_gradient_agrees_with_jax_grad(name: str) -> None:
    block, x, w = case(name)
    truth = jax_gradients(block.branch, x, lambda g, x: (w * jax_logdets(g, x)).sum())
    assert_gradients(both(ir.logdet_gradient(block, x, weights=w, method="exact")), truth)


@pytest.mark.parametrize("padding", ["zero", "circular"])
def test_exact_gradient_of_a_convolutional_branch_agrees_with_torch_autograd(padding: str) -> None:
    g = ir.convnet((2, 3, 4), channels=3, kernels=(3, 1, 3), activation="elu", padding=padding, seed=1)
    rng = np.random.default_rng(0)
    x, y_bar, w = rng.standard_normal((3, 2, 3, 4)), rng.standard_normal((3, 2, 3, 4)), WEIGHTS[:3]
    parameters = {k: torch.tensor(p, requires_grad=True) for k, p in g.parameters().items()}
    leaf = torch.tensor(x, requires_grad=True)

    def value(h: Any) -> Any:
        for i in (0, 2, 4):
            kernel = parameters[f"{i}.weight"]
            side = kernel.shape[-1] // 2
            h = torch.nn.functional.pad(h, (side,) * 4, mode="constant" if padding == "zero" else "circular")
            h = torch.nn.functional.conv2d(h, kernel, parameters[f"{i}.bias"])
            h = torch.nn.functional.elu(h) if i < 4 else h
        return h

    y = value(leaf)
    flat = y.reshape(3, 24)
    rows = [torch.autograd.grad(flat[:, i].sum(), leaf, create_graph=True)[0].reshape(3, 24) for i in range(24)]
    log_det = torch.linalg.slogdet(torch.eye(24, dtype=torch.float64) + torch.stack(rows, dim=1))[1]
    total = (torch.tensor(w) * log_det).sum() + (torch.tensor(y_bar) * (leaf + y)).sum()
    x_bar, *theta = (a.numpy() for a in torch.autograd.grad(total, [leaf, *parameters.values()]))
    ours = ir.logdet_gradient(ir.ResidualBlock(g), x, weights=w, y_bar=y_bar)
    assert_gradients(both(ours), (x_bar, dict(zip(parameters, theta, strict=True))))


@each_constructor
def test_a_training_step_is_one_reverse_pass(name: str) -> None:
    block, x, w = case(name)
    y_bar = np.random.default_rng(2).standard_normal(x.shape)

    def loss(g: Any, x: Any) -> Any:
        """Σ ȳᵀF(x) + Σ w log det."""
        return (torch.tensor(y_bar) * (x + g(x))).sum() + (torch.tensor(w) * torch_logdets(g, x)).sum()

    truth = torch_gradients(block.branch, x, loss)
    assert_gradients(both(ir.logdet_gradient(block, x, weights=w, y_bar=y_bar, method="exact")), truth)


@pytest.mark.parametrize("key", ["numpy-f32", "torch-f64", "torch-f32", "strict-device1-f32", "strict-device2-f64"])
@each_constructor
def test_exact_gradient_agrees_with_50_digits(name: str, key: str) -> None:
    block, x, w = case(name, key)
    p = digits50()
    high = ir.ResidualBlock(at_50_digits(block.branch))
    truth = ir.logdet_gradient(high, *(p.asarray(to_host(x).astype(np.float64)),), weights=p.asarray(WEIGHTS))
    ours = ir.logdet_gradient(block, x, weights=w, method="exact")
    assert ours.x_bar.dtype == x.dtype
    # (I + J)⁻¹ multiplies the rounding of J by at most 1/(1 − L) ≤ 100, of the sums of ≤ 9 terms by γ_9
    tol = 2**12 * float(backend(key).xp.finfo(backend(key).dtype).eps)
    assert_gradients(
        (ours.x_bar, ours.parameters), (to_host(truth.x_bar), own_gradients(block.branch, truth.parameters)), tol
    )


@each_constructor
def test_exact_gradient_is_the_slope_of_the_log_determinant_at_50_digits(name: str) -> None:
    block, x, _ = case(name)
    p = digits50()
    g, x = at_50_digits(block.branch), p.asarray(x)
    if "relu" in name:
        x = x + 0.5  # no row at a kink
    rng = np.random.default_rng(4)
    move = {k: p.asarray(rng.standard_normal(v.shape)) for k, v in g.parameters().items()}
    aside, h, weights = p.asarray(rng.standard_normal(tuple(x.shape))), 1e-18, p.asarray(WEIGHTS)

    def value(t: float) -> Any:
        moved = g.with_parameters({k: v + t * move[k] for k, v in g.parameters().items()})
        return p.xp.sum(weights * exact_logdet(moved.linearize(x + t * aside)[1]))

    # (f(h) − f(−h))/2h has an error of O(h²) = 1e-36
    slope = (value(h) - value(-h)) / (2 * h)
    found = ir.logdet_gradient(ir.ResidualBlock(g), x, weights=weights)
    inner = sum((p.xp.sum(move[k] * v) for k, v in found.parameters.items()), p.xp.sum(aside * found.x_bar))
    assert abs(float(inner - slope)) <= 1e-28 * max(1.0, abs(float(slope)))


@pytest.mark.parametrize("name", ["lipswish 2-16-2 L=.9", "elu 3-8-8-3 L=.5", "linear d=3 L=.9"])
def test_roulette_gradient_is_unbiased_by_enumeration(name: str) -> None:
    """Every sign probe × every series length with its exact probability: the exact gradient, to rounding."""
    block, x, w = case(name)
    x, w, d = x[:3], w[1:4], x.shape[1]
    lipschitz = block.contraction()
    table = length_distributions.table(near_optimal(lipschitz), lipschitz)
    signs = np.asarray(list(itertools.product([1.0, -1.0], repeat=d)))
    n = np.arange(1, table.last + 1)
    probability = np.asarray([table.survival(k) - table.survival(k + 1) for k in n])
    v = np.broadcast_to(np.repeat(signs, n.size, axis=0)[:, None, :], (len(signs) * n.size, 3, d))
    lengths = np.broadcast_to(np.tile(n, len(signs))[:, None], v.shape[:2])
    tape = block.branch.record(x)
    assert tape.chain is not None
    t_bar = neumann_cotangent(tape.chain, v, lengths, table.survival)
    share = np.tile(probability, len(signs))[:, None, None] / len(signs)
    x_bar, _, gradients = tape.pullback(None, tape.push(v), t_bar * share * w[:, None])
    truth = ir.logdet_gradient(block, x, weights=w, method="exact")
    # each of the ≤ 8·last products contributes ≤ Lᵏ/P(N ≥ k)·P(N ≥ k): rounding is that of a sum of this many terms
    assert_gradients((x_bar, gradients), both(truth), 64 * table.last * 2.0**-53)


@pytest.mark.parametrize("terms", [1, 2, 5])
def test_truncated_gradient_is_that_of_the_truncated_power_series(terms: int) -> None:
    """∇Σ_{k≤n+1} (−1)^{k+1} tr(Jᵏ)/k = Σ_{k≤n} (−1)ᵏ tr(Jᵏ∇J), exactly at every n."""
    block, x, w = case("elu 3-8-8-3 L=.5")

    def loss(g: Any, x: Any) -> Any:
        jacobian, total = torch_jacobians(g, x), 0.0
        power = jacobian
        for k in range(1, terms + 2):
            total = total + (-1) ** (k + 1) / k * power.diagonal(dim1=-2, dim2=-1).sum(-1)
            power = power @ jacobian
        return (torch.tensor(w) * total).sum()

    ours = ir.logdet_gradient(block, x, weights=w, method=ir.Series(terms, probes=AllSigns(3)))
    assert_gradients(both(ours), torch_gradients(block.branch, x, loss))
    assert ours.truncation == truncation_factor(block.contraction(), terms)


class AllSigns(ir.Probes):
    """Every sign vector once, as equally likely probes."""

    def __init__(self, d: int) -> None:
        super().__init__(count=2**d)

    def draw(self, like: Any) -> Any:
        signs = np.asarray(list(itertools.product([1.0, -1.0], repeat=like.shape[1])))
        return np.broadcast_to(signs[:, None, :], (self.count, *like.shape))


@pytest.mark.parametrize("lipschitz", [0.3, 0.9])
@pytest.mark.parametrize("terms", [1, 4, 9])
def test_truncation_bounds_the_bias(lipschitz: float, terms: int) -> None:
    """g(x) = −Lx is the worst case: ∂J/∂W_ij has nuclear norm 1, and the tail Σ_{k>n} Lᵏ is attained."""
    weight = -lipschitz * np.eye(3)
    g = ir.mlp((3, 3)).with_parameters({"0.weight": weight, "0.bias": np.zeros(3)})
    block, x = ir.ResidualBlock(g), np.ones((1, 3))
    truth = ir.logdet_gradient(block, x, method="exact").parameters["0.weight"]
    cut = ir.logdet_gradient(block, x, method=ir.Series(terms, probes=AllSigns(3)))
    error = np.abs(cut.parameters["0.weight"] - truth).max()
    assert 0.999 * cut.truncation <= error <= 1.001 * cut.truncation


@pytest.mark.parametrize("key", ["numpy-f64", "torch-f32", "strict-device1-f32"])
def test_the_public_roulette_takes_the_lengths_and_probes_it_was_given(key: str) -> None:
    block, x, w = case("softplus 4-9-5-4 L=.9", key)
    probes = ir.Probes(seed=5, count=7)
    ours = ir.logdet_gradient(block, x, weights=w, method=ir.Roulette(probes=probes))
    table = length_distributions.table(near_optimal(block.contraction()), block.contraction())
    lengths = probes.lengths(5, table.thresholds, table.n_exact_terms)
    tape = block.branch.record(x)
    assert tape.chain is not None
    xp, v = ir.arrays.namespace(x), probes.draw(x)
    t_bar = neumann_cotangent(tape.chain, v, lengths, table.survival)
    x_bar, _, gradients = tape.pullback(None, tape.push(v), t_bar * xp.reshape(w, (5, 1)) / 7.0)
    assert_gradients(both(ours), (to_host(x_bar), {k: to_host(p) for k, p in gradients.items()}), 1e-5)
    assert to_host(ours.evaluations).tolist() == lengths.sum(axis=0).tolist()
    assert len(set(lengths[0].tolist())) > 1, "a length for each row"


def test_each_row_has_its_own_weight_and_its_own_gradient() -> None:
    block, x, w = case("tanh 5-4-5 L=.97 narrow")
    for method in (ir.Exact(), ir.Roulette(probes=ir.Probes(count=3))):
        whole = ir.logdet_gradient(block, x, method, weights=w)
        assert not whole.x_bar[1].any(), "weight 0"
        unit = [ir.logdet_gradient(block, x, method, weights=np.eye(5)[b]) for b in range(5)]
        for key, gradient in whole.parameters.items():
            assert_close(gradient, sum(w[b] * unit[b].parameters[key] for b in range(5)), key, 1e-12)
        for b in range(5):
            assert_close(whole.x_bar[b], w[b] * unit[b].x_bar[b], "x̄", 1e-12, 1e-3)
            assert not np.delete(unit[b].x_bar, b, axis=0).any(), "x̄ of another row"


def test_pieces_of_the_batch_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    block, x, w = case("elu 3-8-8-3 L=.5")
    y_bar = np.ones_like(x)
    whole = ir.logdet_gradient(block, x, weights=w, y_bar=y_bar, method="exact")
    monkeypatch.setattr(exact, "CHUNK", 48)  # two rows of 3·8 numbers at a time
    assert_gradients(both(ir.logdet_gradient(block, x, weights=w, y_bar=y_bar, method="exact")), both(whole), 1e-13)


@pytest.mark.parametrize("method", ["exact", "roulette"])
def test_frozen_parameters_repeated_calls_and_strided_input(method: Any) -> None:
    block, x, w = case("lipswish 2-16-2 L=.9")
    whole = ir.logdet_gradient(block, x, weights=w, method=method)
    again = ir.logdet_gradient(block, x, weights=w, method=method, parameters=["2.weight"])
    assert list(again.parameters) == ["2.weight"]
    assert (again.parameters["2.weight"] == whole.parameters["2.weight"]).all()
    strided = np.repeat(np.repeat(x, 2, axis=0), 3, axis=1)[::2, ::3]
    transposed = np.asfortranarray(x)
    assert not strided.flags.c_contiguous
    for other in (strided, transposed):
        assert_gradients(both(ir.logdet_gradient(block, other, weights=w, method=method)), both(whole), 1e-14)


@pytest.mark.parametrize("method", ["exact", "roulette"])
def test_an_empty_batch_has_zero_gradients(method: Any) -> None:
    block, x, w = case("lipswish 2-16-2 L=.9")
    nothing = ir.logdet_gradient(block, x[:0], weights=w[:0], method=method)
    assert nothing.x_bar.shape == (0, 2)
    assert all(
        not v.any() and v.shape == p.shape
        for v, p in zip(nothing.parameters.values(), block.branch.parameters().values(), strict=True)
    )


def test_auto_is_exact_while_the_determinant_is_small() -> None:
    block, x, _ = case("lipswish 2-16-2 L=.9")
    assert ir.logdet_gradient(block, x).method == "exact"
    wide = ir.ResidualBlock(ir.mlp((300, 300), lipschitz=0.5))
    assert ir.logdet_gradient(wide, np.zeros((1, 300))).method == "neumann"


def test_a_length_distribution_needs_finite_variance_of_the_gradient_not_of_the_value() -> None:
    block, x, _ = case("lipswish 2-16-2 L=.9")
    at_ratio = ir.roulette.geometric(block.contraction() ** 2)
    ir.logdet(block, x, method=ir.Roulette(at_ratio))  # Σ L^{2k}/(k²P) < ∞ …
    with pytest.raises(InfiniteVarianceError, match="finite variance of the gradient is not proved"):
        ir.logdet_gradient(block, x, method=ir.Roulette(at_ratio))  # … but Σ L^{2k}/P = ∞
    allowed = ir.logdet_gradient(block, x, method=ir.Roulette(at_ratio, allow_infinite_variance=True))
    assert allowed.truncation <= 2.0**-64


def test_bad_input_is_refused() -> None:
    block, x, w = case("lipswish 2-16-2 L=.9")
    with pytest.raises(ValueError, match=r"expected 'auto', 'exact', 'roulette', or ir\.Series"):
        ir.logdet_gradient(block, x, "series")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"parameters: expected names among \['0.weight', .*got '1.weight'"):
        ir.logdet_gradient(block, x, parameters=["1.weight"])
    with pytest.raises(ShapeError, match="weights: expected one row for each of the 5 of the batch, got 1"):
        ir.logdet_gradient(block, x, weights=w[:1])
    with pytest.raises(ShapeError, match=r"weights: expected shape \(batch, \), got \(5, 1\)"):
        ir.logdet_gradient(block, x, weights=w[:, None])
    with pytest.raises(NonFiniteError, match="weights: expected finite values"):
        ir.logdet_gradient(block, x, weights=np.full(5, np.inf))
    with pytest.raises(DTypeError, match="weights: expected dtype"):
        ir.logdet_gradient(block, x, weights=w.astype(np.float32))
    with pytest.raises(ShapeError, match="y_bar: expected one row for each of the 5"):
        ir.logdet_gradient(block, x, y_bar=x[:2])
