"""A flow given a context h: the first layer of each block sees W₁x + Vh + b with V = W₁U; nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tables import backend

import iresnet_ref as ir
from iresnet_ref.arrays import from_host, to_host
from iresnet_ref.rounding import gamma, logdet_rounding, unit_roundoff

ROWS, D, K = 6, 3, 2


def block(seed: int, like: Any) -> ir.ResidualBlock:
    return ir.ResidualBlock(ir.mlp((D, 8, D), activation="elu", lipschitz=0.9, seed=seed, like=like))


def conditional(like: Any) -> ir.Flow:
    shifts = [ir.bijections.ContextShift.random((D,), K, seed=seed, like=like) for seed in (3, 4)]
    return ir.Flow([shifts[0], block(1, like), shifts[1], block(2, like)], options=ir.Options(logdet="exact", rtol=1e-5))


def draws(like: Any) -> tuple[Any, Any]:
    """Points and contexts of very different sizes, so that rows converge at different times."""
    rng = np.random.default_rng(5)
    scale = np.geomspace(1e-3, 30.0, ROWS)[:, None]
    return from_host(rng.standard_normal((ROWS, D)), like), from_host(scale * rng.standard_normal((ROWS, K)), like)


def rounding_of_log_prob(flow: ir.Flow, x: Any, h: Any, u: float = 2.0**-53) -> float:
    """Return how far two evaluations of log p(x | h) may be apart.

    Each of two blocks and shifts has sums of K, D and 8 terms and 8 roundings besides, of numbers below R = ‖x‖ + Σ‖Uh‖ + 4√8, and
    passes what it was given on at most 1.9 times; log p moves by R times that through ‖y‖²/2 and by D/(1 − L) through each log-det.
    """
    shift = max(np.linalg.norm(p, 2) for p in flow.parameters().values() if p.ndim == 2)
    reach = np.linalg.norm(x) + 2.0 * shift * np.linalg.norm(h) + 4 * 8**0.5
    moved = 2 * gamma(K + D + 8 + 8, u) * reach * (1.9 + 1.9**2)
    return float(moved * (1.9**2 * reach + 2 * D / (1 - 0.9)) + 4 * logdet_rounding(D, u, 0.9) + 2 * gamma(D + 8, u) * reach**2)


# x + Uh + g(x + Uh) − Uh = x + g_h(x), g_h the branch of bias b + W₁Uh; and so for the determinant.
def test_it_is_the_block_with_the_context_in_the_bias_of_its_first_layer() -> None:
    x, h = draws(np.zeros(1))
    shift, f = ir.bijections.ContextShift.random((D,), K, seed=3), block(1, np.zeros(1))
    y, log_det = ir.bijections.Composition((shift, f)).condition(h).forward(x, options=ir.Options(logdet="exact"))
    first, *others = f.branch.layers
    for i in range(ROWS):
        s = shift.weight @ h[i]
        moved = replace(first, bias=first.bias + first.weight @ s)
        own = ir.ResidualBlock(replace(f.branch, layers=(moved, *others)))
        # W₁(x + s) + b beside W₁x + (b + W₁s): two sums of D terms and 4 additions, which the last layer and y add up with 8 and 4 more
        size, u = np.linalg.norm(s) + np.linalg.norm(x[i]) + np.linalg.norm(f.branch.parameters()["0.bias"]), unit_roundoff(x)
        argument = gamma(2 * D + 4, u) * size
        assert np.linalg.norm(own(x[i : i + 1])[0] + s - y[i]) <= argument + 2 * gamma(8 + 4, u) * (size + 8**0.5)
        # J = W₂ diag φ′(z) W₁ moves by ‖W₂‖‖W₁‖‖φ″‖ < 1 times that and by its own rounding, log det by d/(1 − L) times as much
        error_of_j = argument + 2 * (gamma(8, u) * 8**0.5 + 8 * u * 2)
        allowed = 2 * logdet_rounding(D, u, 0.9) + D * error_of_j / (1 - 0.9)
        assert abs(ir.logdet(own, x[i : i + 1], method="exact").value[0] - log_det.value[i]) <= allowed
        assert own.certificate == f.certificate


def test_each_row_has_its_own_context() -> None:
    x, h = draws(np.zeros(1))
    flow = conditional(x)
    value, together = flow.condition(h).log_prob(x).value, flow.condition(h).inverse(x)
    for i in range(ROWS):
        alone = flow.condition(h[i : i + 1])
        assert abs(alone.log_prob(x[i : i + 1]).value[0] - value[i]) <= rounding_of_log_prob(flow, x[i], h[i])
        assert np.linalg.norm(alone.inverse(x[i : i + 1]).x[0] - together.x[i]) <= 2.0 * together.error_bound[i]
    assert np.abs(flow.condition(h[:1]).log_prob(x).value - value)[1:].min() > 1e-6  # one context for all rows


JAX = pytest.param("jax-f64", marks=pytest.mark.thorough)  # it compiles every operation for every number of rows


@pytest.mark.parametrize("key", ["numpy-f32", "torch-f64", "strict-device1-f32", "strict-device2-f64", JAX])
def test_backends_agree(key: str) -> None:
    b = backend(key)
    x, h = draws(b.asarray(np.zeros(1)))
    flow = conditional(x).condition(h)
    x0, h0 = to_host(x).astype(np.float64), to_host(h).astype(np.float64)
    weights = {k: to_host(p).astype(np.float64) for k, p in flow.parameters().items()}
    ours = conditional(x0).condition(h0).with_parameters(weights)
    value, truth = flow.log_prob(x).value, ours.log_prob(x0).value
    assert value.dtype == x.dtype
    allowed = [rounding_of_log_prob(ours, row, context, unit_roundoff(x)) for row, context in zip(x0, h0, strict=True)]
    assert (np.abs(to_host(value) - truth) <= allowed).all()
    y = to_host(flow(x)).astype(np.float64)
    back = flow.inverse(from_host(y, x))
    assert (np.linalg.norm(to_host(back.x) - x0, axis=1) <= to_host(back.error_bound)).all()


def test_samples_come_back_to_the_base_given_their_context_alone() -> None:
    _, h = draws(np.zeros(1))
    flow = conditional(h)
    z = flow.base.sample(ROWS, seed=9)
    given = flow.condition(h)
    assert np.abs(given(given.sample(ROWS, seed=9)) - z).max() < 1e-3
    assert np.abs(flow.condition(h[::-1, :].copy())(given.sample(ROWS, seed=9)) - z).max() > 0.1


# ∫ p(x | h) dx = 1 for each h, in one dimension.
@pytest.mark.parametrize("h", [-2.0, 0.0, 5.0])
def test_a_conditional_density_integrates_to_one_in_each_context(h: float) -> None:
    f = ir.ResidualBlock(ir.mlp((1, 16, 1), lipschitz=0.9, seed=1))
    shifts = [ir.bijections.ContextShift(np.asarray([[w]]), (1,)) for w in (1.5, -0.5)]
    x = np.linspace(-40.0, 40.0, 40001)[:, None]
    p = np.exp(ir.Flow([shifts[0], f, shifts[1], f]).condition(np.asarray([[h]])).log_prob(x).value)
    assert abs(np.sum(p) * (x[1, 0] - x[0, 0]) - 1.0) < 1e-6


@pytest.mark.parametrize("rows", [1, ROWS])
def test_gradients_of_the_weights_and_of_the_context_agree_with_autograd(rows: int) -> None:
    torch = pytest.importorskip("torch")
    x, h = draws(backend("torch-f64").asarray(np.zeros(1)))
    flow, w = conditional(x).condition(h[:rows, :]), torch.linspace(-1.0, 2.0, ROWS, dtype=torch.float64)
    _, gradients = flow.log_prob_gradient(x, weights=w)
    p = {k: v.clone().requires_grad_(True) for k, v in flow.parameters().items()}
    total = (w * flow.with_parameters(p).log_prob(x).value).sum()
    truth = dict(zip(p, torch.autograd.grad(total, list(p.values())), strict=True))
    assert gradients.keys() == truth.keys()
    for key, gradient in gradients.items():
        assert float((gradient - truth[key]).norm()) <= 1e-10 * float(truth[key].norm()), key


def test_a_context_moves_no_guarantee_and_is_taken_away_again() -> None:
    x, h = draws(np.zeros(1))
    flow = conditional(x)
    assert flow.condition(1e6 * h).steps.inverse_lipschitz == flow.steps.inverse_lipschitz
    assert flow.condition(h).condition(None).parameters().keys() == flow.parameters().keys()
    nested = ir.bijections.FactorOut((2, 2), [ir.bijections.ContextShift.random((1, 2), K)])
    assert np.array_equal(nested.condition(h)(np.zeros((ROWS, 2, 2)))[:, 0], (h @ nested.rest.steps[0].weight.T)[:, 0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f, x, h: f.log_prob(x), ir.ShapeError, r"one row of context for each of 6 events, got none; try flow.condition"),
        (lambda f, x, h: f.condition(h[:4]).log_prob(x), ir.ShapeError, "for each of 6 events, got 4"),
        (lambda f, x, h: f.condition(h[:4]).sample(6), ir.ShapeError, "for each of 6 events, got 4"),
        (lambda f, x, h: f.condition(h[:, :1]), ir.ShapeError, r"context: expected shape \(batch, 2\), got \(6, 1\)"),
        (lambda f, x, h: f.condition(h.astype(np.float32)), ir.DTypeError, "context: expected dtype"),
        (lambda f, x, h: f.condition(h * np.nan), ir.NonFiniteError, "context"),
        (lambda f, x, h: ir.Flow([block(1, x)]).condition(h), ir.ShapeError, "takes a context, got none; try ir.bijections.ContextShift"),
        (lambda f, x, h: ir.bijections.ContextShift(np.zeros((2, 2)), (3,)), ir.ShapeError, r"weight of shape \(channels, k\)"),
    ],
)
def test_bad_input_is_refused(call: Callable[..., Any], error: type[Exception], message: str) -> None:
    x, h = draws(np.zeros(1))
    with pytest.raises(error, match=message):
        call(conditional(x), x, h)
