"""Laws of a flow: its density integrates to one, its samples follow it, its errors add up."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tables import backend

import iresnet_ref as ir
from iresnet_ref import training
from iresnet_ref.arrays import from_host, namespace, to_host
from iresnet_ref.jacobian.factors import Dense
from iresnet_ref.layers.linear import Affine
from iresnet_ref.layers.pointwise import Pointwise

ALPHA = 1e-6


def flow2d(like: Any, base: bool = False) -> ir.Flow:
    """Two blocks, an ActNorm and a mixing in the plane."""
    steps = [
        ir.bijections.ActNorm(from_host([0.3, -0.2], like), from_host([0.5, 0.1], like), (2,)),
        ir.ResidualBlock(ir.mlp((2, 16, 16, 2), lipschitz=0.9, seed=1, like=like)),
        ir.bijections.PLULinear.rotation((2,), seed=2, like=like),
        ir.ResidualBlock(ir.mlp((2, 16, 2), activation="tanh", lipschitz=0.8, seed=3, like=like)),
    ]
    own = ir.densities.DiagonalGaussian(from_host([0.2, -0.1], like), from_host([-0.3, 0.2], like)) if base else None
    return ir.Flow(steps, own)


def grid(half: float, n: int) -> tuple[Any, float]:
    """Midpoints of n × n squares of [−half, half]², and the area of one."""
    side = 2.0 * half / n
    line = -half + side * (np.arange(n) + 0.5)
    return np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2), side * side


# ∫ p(x) dx = 1: the midpoint rule is accurate far beyond this for a smooth density that vanishes at the border.
@pytest.mark.parametrize("base", [False, True])
def test_density_integrates_to_one(base: bool) -> None:
    flow = flow2d(np.zeros(1), base)
    points, area = grid(12.0, 240)
    density = np.exp(flow.log_prob(points).value)
    edge = np.abs(points).max(axis=1) > 11.0
    assert density[edge].max() * 24.0**2 < 1e-9
    assert abs(density.sum() * area - 1.0) < 1e-6
    coarse, coarse_area = grid(12.0, 120)
    assert abs(np.exp(flow.log_prob(coarse).value).sum() * coarse_area - 1.0) < 1e-4


# P(x in square) of n samples against ∫_square p: chi-square over 16 regions, false alarm ALPHA.
def test_samples_follow_log_prob() -> None:
    flow = flow2d(np.zeros(1), True)
    points, area = grid(12.0, 240)
    mass = np.exp(flow.log_prob(points).value) * area
    x = flow.sample(4000, seed=4)
    cuts = [np.quantile(x[:2000, k], [0.25, 0.5, 0.75]).round(1) for k in (0, 1)]  # on the grid's lines

    def region(p: Any) -> Any:
        return 4 * np.searchsorted(cuts[0], p[:, 0]) + np.searchsorted(cuts[1], p[:, 1])

    expected = np.bincount(region(points), mass, minlength=16)
    counts = np.bincount(region(x[2000:]), minlength=16)
    keep = expected * 2000 > 5
    statistic = float((((counts - 2000 * expected) ** 2) / (2000 * expected))[keep].sum())
    k = int(keep.sum())
    # Laurent & Massart: P(χ²_k > k + 2√(kt) + 2t) ≤ e^{−t}.
    t = math.log(1.0 / ALPHA)
    assert k >= 10
    assert statistic < k + 2.0 * math.sqrt(k * t) + 2.0 * t
    wrong = np.bincount(region(x[2000:] * 1.15), minlength=16)  # the test sees samples that are 15 % too wide
    assert float((((wrong - 2000 * expected) ** 2) / (2000 * expected))[keep].sum()) > statistic


@pytest.mark.parametrize("key", ["numpy-f32", "numpy-f64", "torch-f64", "strict-device1-f32", "strict-device2-f64"])
def test_a_flow_is_the_same_on_every_backend(key: str) -> None:
    b, tolerance = backend(key), 1e-4 if "f32" in key else 1e-10
    truth = flow2d(np.zeros(1), True)
    ours = flow2d(b.asarray(np.zeros(1)), True)
    x = np.random.default_rng(5).standard_normal((6, 2))
    assert np.allclose(to_host(ours.log_prob(b.asarray(x)).value), truth.log_prob(x).value, rtol=tolerance, atol=tolerance)
    options = ir.Options(rtol=1e-5 if "f32" in key else 1e-12)
    samples = ours.sample(6, seed=6, options=options)
    assert samples.dtype == b.dtype
    assert np.allclose(to_host(samples), truth.sample(6, seed=6, options=ir.Options(rtol=1e-12)), rtol=1e-3, atol=1e-3)


def test_a_sample_depends_on_its_row_alone() -> None:
    flow = flow2d(np.zeros(1))
    options = ir.Options(inverse="banach", rtol=1e-12)
    few, many = (flow.sample(n, seed=7, options=options) for n in (3, 8))
    assert np.abs(few - many[:3]).max() < 1e-10


def test_inverse_of_the_flow_carries_a_propagated_bound() -> None:
    flow = flow2d(np.zeros(1))
    x = np.random.default_rng(8).standard_normal((50, 2))
    z = flow(x)
    for rtol in (1e-3, 1e-9):
        found = flow.inverse(z, options=ir.Options(rtol=rtol))
        off = np.linalg.norm(found.x - x, axis=1)
        assert np.all(off <= found.error_bound + 1e-12)
        assert np.allclose(found.residual_norm, np.linalg.norm(z - flow(found.x), axis=1))
    product = 1.0
    for step in flow.steps.steps:
        product *= step.inverse_lipschitz
    assert math.isclose(flow.steps.inverse_lipschitz, product, rel_tol=1e-12)


# To first order a small error at z arrives at x multiplied by at most the estimate; it is no more than the bound.
def test_amplification_is_estimated_along_the_path() -> None:
    flow = flow2d(np.zeros(1))
    x = np.random.default_rng(13).standard_normal((20, 2))
    found = flow.inverse(flow(x), estimate=True, options=ir.Options(rtol=1e-13))
    assert np.all(found.amplification_estimate <= found.inverse_lipschitz * (1.0 + 1e-9))
    assert not found.vacuous.any()
    assert flow.inverse(flow(x)).amplification_estimate is None
    jacobians = np.stack([(flow(x + h) - flow(x - h)) / 2e-5 for h in 1e-5 * np.eye(2)], axis=-1)
    truth = 1.0 / np.linalg.svd(jacobians, compute_uv=False)[:, -1]
    assert np.all(truth <= found.amplification_estimate * (1.0 + 1e-6))


def test_a_long_flow_calls_its_bound_vacuous() -> None:
    blocks = [ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.99, seed=s)) for s in range(10)]
    flow = ir.Flow([ir.ResidualBlock(b.branch, 0.99) for b in blocks])
    found = flow.inverse(np.ones((3, 2)), estimate=True)
    assert found.vacuous.all()
    assert found.inverse_lipschitz > 1e19
    assert found.amplification_estimate.max() < 1e4


# Independent blocks: biases add, variances add; a flow's standard error covers its error.
def test_errors_of_log_prob_are_those_of_the_blocks() -> None:
    flow = flow2d(np.zeros(1))
    x = np.random.default_rng(9).standard_normal((40, 2))
    exact = flow.log_prob(x)
    assert not exact.standard_error.any()
    assert not exact.bias_bound.any()
    series = flow.log_prob(x, options=ir.Options(logdet=ir.Series(6, probes=ir.Probes(count=64))))
    assert np.all(np.abs(series.value - exact.value) <= series.bias_bound + 6.0 * series.standard_error)
    first, second = (s.block for s in flow.steps.steps if hasattr(s, "block"))
    bias = sum(ir.bounds.truncation_bound(2, b.contraction(), 6) for b in (first, second))
    assert np.allclose(series.bias_bound, bias, rtol=1e-12)
    roulette = flow.log_prob(x, options=ir.Options(logdet=ir.Roulette(probes=ir.Probes(count=256))))
    scores = (roulette.value - exact.value) / roulette.standard_error
    assert not roulette.bias_bound.max() > 1e-6
    assert np.abs(scores.mean()) < 5.0 / math.sqrt(scores.size)
    assert np.sqrt((scores**2).mean()) < 2.0
    own = [ir.logdet(b, at, method=ir.Roulette(probes=ir.Probes(stream=i, count=256))).standard_error
           for i, (b, at) in enumerate(((first, flow.steps.steps[0].value(x)), (second, _before_last(flow, x))))]
    assert np.allclose(roulette.standard_error, np.hypot(*own), rtol=1e-12)


# The interval of a sum of two estimates: nominal 95 %, and the requested standard error is met by the whole flow.
def test_intervals_and_requested_errors_are_those_of_the_whole_flow() -> None:
    flow = flow2d(np.zeros(1))
    x = np.random.default_rng(14).standard_normal((300, 2))
    exact = flow.log_prob(x).value
    found = flow.log_prob(x, options=ir.Options(logdet=ir.Roulette(probes=ir.Probes(seed=15, count=16), exact_traces=0)))
    low, high = found.interval(0.95)
    hits = int(((low <= exact) & (exact <= high)).sum())
    assert hits >= 0.88 * 300  # P(fewer | coverage .95) < 1e-6
    certain = flow.log_prob(x).interval()
    assert np.array_equal(certain[0], exact)
    assert np.array_equal(certain[1], exact)
    asked = flow.log_prob(x[:20], options=ir.Options(logdet=ir.Roulette(standard_error=0.05, exact_traces=0)))
    assert asked.standard_error.max() < 2.0 * 0.05
    assert asked.standard_error.max() > 0.01


def _before_last(flow: ir.Flow, x: Any) -> Any:
    for step in flow.steps.steps[:-1]:
        x = step.value(x)
    return x


def test_gradient_of_log_prob_agrees_with_autograd() -> None:
    torch = pytest.importorskip("torch")
    flow = flow2d(backend("torch-f64").asarray(np.zeros(1)), True)
    p = {k: v.detach().clone().requires_grad_(True) for k, v in flow.parameters().items()}
    flow = flow.with_parameters(p)
    x = torch.tensor(np.random.default_rng(10).standard_normal((5, 2)), requires_grad=True)
    weights = torch.tensor([1.0, 0.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    truth = torch.autograd.grad((weights * flow.log_prob(x).value).sum(), [x, *p.values()])
    with torch.no_grad():
        x_bar, gradients = flow.log_prob_gradient(x, weights=weights)
    for key, a, b in zip(["x", *p], [x_bar, *(gradients[k] for k in p)], truth, strict=True):
        assert float((a - b).norm()) <= 1e-10 * float(b.norm()), key


# One forward pass serves value and gradient: they are those of the two calls, estimated with the same draws, bit for bit.
EVERY_METHOD = (
    "auto",
    ir.Exact(),
    ir.Series(1),
    ir.Series(4, exact_traces=0),
    ir.Series(3, probes=ir.Probes(seed=3, count=9, block=2, kind="hadamard")),
    ir.Series(3, probes=ir.Probes(seed=3, count=9), standard_error=0.5),
    ir.Arnoldi(2, probes=ir.Probes(seed=4, count=8)),
    ir.Roulette(probes=ir.Probes(seed=4, count=8)),
    ir.Auto(ir.Roulette(3.0, probes=ir.Probes(kind="gaussian"))),
)


@pytest.mark.parametrize("options", [None, *(ir.Options(logdet=method) for method in EVERY_METHOD)], ids=repr)
def test_log_prob_and_gradient_are_those_of_the_two_calls(options: ir.Options | None) -> None:
    flow = flow2d(np.zeros(1), True)
    x, weights = np.random.default_rng(10).standard_normal((5, 2)), np.asarray([1.0, 0.0, -2.0, 0.5, 3.0])
    log_prob, x_bar, gradients = flow.log_prob_and_gradient(x, weights=weights, options=options)
    value, apart = flow.log_prob(x, options=options), flow.log_prob_gradient(x, weights=weights, options=options)
    assert np.array_equal(log_prob.value, value.value)
    assert np.array_equal(log_prob.standard_error, value.standard_error, equal_nan=True)
    assert np.array_equal(log_prob.bias_bound, value.bias_bound)
    assert (log_prob.log_det.method, log_prob.log_det.replicates) == (value.log_det.method, value.log_det.replicates)
    assert np.array_equal(log_prob.log_det.evaluations, value.log_det.evaluations)
    assert np.array_equal(x_bar, apart[0])
    assert gradients.keys() == apart[1].keys() == flow.parameters().keys()
    assert all(np.array_equal(g, apart[1][k]) for k, g in gradients.items())
    with pytest.raises(ir.ShapeError, match="weights"):
        flow.log_prob_and_gradient(x, weights=np.ones((5, 1)))


@pytest.mark.parametrize(("d", "method"), [(4, "exact"), (9, "exact"), (4, ir.Roulette()), (4, ir.Series(4))])
def test_a_training_step_evaluates_every_layer_once_and_factorises_every_jacobian_once(
    d: int, method: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three blocks 4-64-64-4: 9 affine maps, 6 activations, 1 elimination of all; beyond order 8 one slogdet and one inv of each matrix.

    An estimate sweeps once over the powers of each J, for value and gradient.
    """
    flow = ir.Flow([ir.ResidualBlock(ir.mlp((d, 64, 64, d), lipschitz=0.9, seed=seed)) for seed in range(3)])
    x = np.random.default_rng(0).normal(size=(32, d))
    flow.log_prob_and_gradient(x)  # certificates are proved once
    done: Counter[str] = Counter()

    def count(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            done[name] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    count(Affine, "__call__")
    for name in ("record", "linearize", "__call__"):
        count(Pointwise, name)
    for name in ("slogdet", "inv", "det", "solve", "qr", "svd", "cholesky"):
        count(np.linalg, name)
        monkeypatch.setattr(namespace(x).linalg, name, getattr(np.linalg, name))
    count(sys.modules["iresnet_ref.gradient.exact"], "logdet_and_inverse")
    count(sys.modules["iresnet_ref.log_determinant.elimination"], "logdet")
    for module in ("log_determinant.series", "gradient.neumann"):
        count(sys.modules[f"iresnet_ref.{module}"], "ragged_series")
    training.maximum_likelihood(flow, x, options=ir.Options(logdet=method))
    jacobians = {"ragged_series": 3} if method != "exact" else {"logdet_and_inverse": 1} if d == 4 else {"slogdet": 3, "inv": 3}
    assert done == {"__call__": 9, "record": 6, **jacobians}


@pytest.mark.parametrize(("method", "products"), [(ir.Series(4), (5, 17)), (ir.Exact(), (6, 5))])
def test_a_training_step_makes_no_product_that_nobody_reads(
    method: Any, products: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three layers Ax: 3 for the value, 2 to push the probe, 3 the matrix; Aᵀu: 3 for each term, 3 for x̄, 2 for t̄ behind the first."""
    flow, done = ir.Flow([ir.ResidualBlock(ir.mlp((4, 64, 64, 4), lipschitz=0.9))]), Counter[str]()

    def count(name: str) -> None:
        original = getattr(Dense, name)

        def counted(self: Dense, v: Any) -> Any:
            done[name] += 1
            return original(self, v)

        monkeypatch.setattr(Dense, name, counted)

    count("apply")
    count("transpose")
    training.maximum_likelihood(flow, np.random.default_rng(0).normal(size=(32, 4)), options=ir.Options(logdet=method))
    assert (done["apply"], done["transpose"]) == products


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_value_and_gradient_of_a_batch_in_pieces_are_those_of_the_whole(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond one piece the tangents are pushed again in the reverse pass."""
    flow = flow2d(np.zeros(1))
    x, weights = np.random.default_rng(5).normal(size=(5, 2)), np.random.default_rng(6).normal(size=5)
    log_prob, x_bar, gradients = flow.log_prob_and_gradient(x, weights=weights)
    monkeypatch.setattr(sys.modules["iresnet_ref.gradient.exact"], "CHUNK", rows * 2 * 16)
    in_pieces, x_bar_of_pieces, gradients_of_pieces = flow.log_prob_and_gradient(x, weights=weights)
    assert_same(in_pieces.value, log_prob.value)
    assert_same(x_bar_of_pieces, x_bar)
    for name, gradient in gradients.items():
        assert_same(gradients_of_pieces[name], gradient)


def test_matrices_that_are_eliminated_together_have_the_log_determinants_and_gradients_of_their_own() -> None:
    """Blocks of orders 2, 1 and 2, one of them factored out, an estimated one between: bit for bit what each block says alone."""
    sizes = [(2, 8, 2), (2, 3, 1, 3, 2), (2, 6, 6, 2)]
    blocks = [ir.ResidualBlock(ir.mlp(size, lipschitz=0.8, seed=seed)) for seed, size in enumerate(sizes)]
    flow = ir.Flow([ir.bijections.FactorOut((4,), [blocks[0], ir.bijections.Composition((blocks[1],)), blocks[2]])])
    x, weights = np.random.default_rng(5).normal(size=(5, 4)), np.random.default_rng(6).normal(size=5)
    log_prob, _, gradients = flow.log_prob_and_gradient(x, weights=weights)
    half, total, inputs = x[:, :2], np.zeros(5), []
    for block in blocks:
        inputs.append(half)
        total = total + ir.Flow([block]).log_prob_and_gradient(half)[0].log_det.value
        half = block(half)
    assert np.array_equal(log_prob.log_det.value, total)
    bar = -half * weights[:, None]
    for key, block, at in zip(("0.2", "0.1.0", "0.0"), reversed(blocks), reversed(inputs), strict=True):
        found = ir.logdet_gradient(block, at, "exact", weights=weights, y_bar=bar)
        bar = found.x_bar
        assert all(np.array_equal(gradients[f"{key}.{name}"], gradient) for name, gradient in found.parameters.items())


def assert_same(a: Any, b: Any) -> None:
    """The same sums in another order: a few hundred terms."""
    assert np.abs(a - b).max() <= 1024 * 2.0**-53 * max(1.0, np.abs(b).max())


def test_initialise_sets_every_actnorm_once() -> None:
    rng = np.random.default_rng(11)
    x = rng.standard_normal((128, 2)) * [3.0, 0.1] + [10.0, -2.0]
    blocks = [ir.ResidualBlock(ir.mlp((2, 8, 2), seed=s)) for s in (1, 2)]
    flow = ir.Flow([ir.bijections.ActNorm.uninitialised((2,)), blocks[0], ir.bijections.ActNorm.uninitialised((2,)), blocks[1]])
    with pytest.raises(ValueError, match="expected initialised scales"):
        flow.log_prob(x)
    ready = flow.initialise(x)
    middle = ready.steps.steps[2].value(ready.steps.steps[1].value(ready.steps.steps[0].value(x)))
    assert np.abs(middle.mean(axis=0)).max() < 1e-13
    assert np.abs(middle.std(axis=0) - 1.0).max() < 1e-13
    again = ready.initialise(rng.standard_normal((8, 2)))
    assert np.array_equal(again.log_prob(x).value, ready.log_prob(x).value)


# Uniform bytes have 8 bits: by hand for a flow of density 256^{-d} on [0, 256]^d, written as logit and its own density.
def test_bits_per_dimension_are_those_computed_by_hand() -> None:
    d, rows = 5, 7
    rng = np.random.default_rng(12)
    x = rng.uniform(0.0, 256.0, (rows, d))
    flow = ir.Flow([ir.bijections.Logit((d,), alpha=0.05)], ir.densities.StandardGaussian((d,), x))
    s = 0.05 + 0.9 * x / 256.0
    y = np.log(s / (1.0 - s))
    log_p = -0.5 * (y * y).sum(1) - 0.5 * d * math.log(2 * math.pi) + np.log(0.9 / 256.0 / (s * (1 - s))).sum(1)
    assert np.allclose(flow.bits_per_dimension(x).value, -log_p / (d * math.log(2.0)), rtol=1e-13)
    unit = ir.Flow([ir.bijections.Logit((d,), alpha=0.05, levels=1)], ir.densities.StandardGaussian((d,), x))
    assert np.allclose(unit.bits_per_dimension(x / 256.0, levels=256).value, flow.bits_per_dimension(x).value, rtol=1e-13)
    gaussian = ir.Flow([ir.bijections.Permutation((d,), (4, 3, 2, 1, 0))], ir.densities.StandardGaussian((d,), x))
    z = rng.standard_normal((40000, d))
    entropy = 0.5 * math.log2(2 * math.pi * math.e)  # bits of N(0, 1)
    assert abs(gaussian.bits_per_dimension(z).value.mean() - entropy) < 5.0 * math.sqrt(0.5 / z.size) / math.log(2.0)


def test_bits_count_the_dimensions_of_the_data_not_the_padding() -> None:
    like = np.zeros(1)
    flow = ir.Flow([ir.bijections.ZeroPad((2,), 3), ir.ResidualBlock(ir.mlp((5, 8, 5), like=like))])
    x = np.ones((1, 2))
    assert flow.dimensions == 2
    assert np.allclose(flow.bits_per_dimension(x).value, -flow.log_prob(x).value / (2 * math.log(2.0)), rtol=1e-14)


# The docs say that padding gives no density on the data: here it integrates to something else than 1.
def test_a_padded_flow_is_no_density_on_its_data() -> None:
    flow = ir.Flow([ir.bijections.ZeroPad((1,), 1), ir.ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.9, seed=3))])
    line = np.linspace(-15.0, 15.0, 3001)[:, None]
    total = np.exp(flow.log_prob(line).value).sum() * 0.01
    assert abs(total - 1.0) > 0.1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ir.Flow([ir.bijections.Permutation((2,), (1, 0))]), ir.ShapeError, "expected base="),
        (lambda: ir.Flow(flow2d(np.zeros(1)).steps, ir.densities.StandardGaussian((3,), np.zeros(1))), ir.ShapeError, "base on events"),
        (lambda: ir.Flow([]), ir.ShapeError, "at least one step"),
        (lambda: flow2d(np.zeros(1)).log_prob(np.ones((2, 3))), ir.ShapeError, r"shape \(batch, 2\)"),
        (lambda: flow2d(np.zeros(1)).log_prob(np.ones((2, 2), dtype=np.float32)), ir.DTypeError, "expected dtype float64"),
        (lambda: flow2d(np.zeros(1)).log_prob(np.full((2, 2), math.nan)), ir.NonFiniteError, "finite"),
        (lambda: flow2d(np.zeros(1)).inverse(np.ones((2, 3))), ir.ShapeError, r"shape \(batch, 2\)"),
        (lambda: flow2d(np.zeros(1)).with_parameters({}), ir.ShapeError, "expected exactly the keys"),
        (lambda: flow2d(np.zeros(1)).with_parameters({1: np.zeros(1)}), ir.ShapeError, "on one side only"),
        (lambda: flow2d(np.zeros(1), True).with_parameters({}), ir.ShapeError, "of the base"),
        (lambda: flow2d(np.zeros(1)).bits_per_dimension(np.ones((1, 2)), levels=0), ValueError, "levels ≥ 1"),
        (lambda: ir.densities.DiagonalGaussian(np.zeros(2), np.zeros(3)), ir.ShapeError, "of one event shape"),
        (
            lambda: ir.Flow([
                ir.bijections.ActNorm.uninitialised((2,)), ir.ResidualBlock(ir.mlp((2, 4, 2), like=np.zeros(1, dtype=np.float32))),
            ]),
            ir.DTypeError,
            "flow parameter",
        ),
    ],
)
def test_bad_input_is_refused(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_options_of_the_flow_are_its_defaults() -> None:
    flow = flow2d(np.zeros(1))
    x = np.ones((2, 2))
    series = replace(flow, options=ir.Options(logdet=ir.Series(2)))
    assert series.log_prob(x).bias_bound.min() > 0.1
    assert not series.log_prob(x, options=ir.Options()).bias_bound.any()
