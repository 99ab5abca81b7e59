"""The laws of the reference: constructors × laws × backends. Truth is the same code at 50 digits."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seeds import SEEDS, for_seeds
from tables import (
    CONSTRUCTORS,
    IMAGES,
    at_50_digits,
    backend,
    digits50,
    distance,
    each_arithmetic,
    each_backend,
    exact,
    exact_preimage,
    inputs,
    product_rounding,
)

import iresnet_ref as ir
from iresnet_ref.arrays import flatten_events, from_host, to_host
from iresnet_ref.jacobian.factors import Dense, Diagonal, StackedDiagonal
from iresnet_ref.layers.concatenation import Concatenation
from iresnet_ref.log_determinant import length_distributions
from iresnet_ref.log_determinant.exact import exact_logdet
from iresnet_ref.log_determinant.length_distributions import geometric, near_optimal
from iresnet_ref.log_determinant.roulette import roulette_logdet
from iresnet_ref.log_determinant.series import series_logdet
from iresnet_ref.rounding import ELEMENTARY, logdet_rounding, unit_roundoff

each_constructor = pytest.mark.parametrize("name", CONSTRUCTORS | IMAGES)
U = 2.0**-53


def make(name: str, key: str, seed: int) -> tuple[ir.ResidualBlock, Any]:
    b = backend(key)
    g = (CONSTRUCTORS | IMAGES)[name](b.asarray(np.zeros(1)), seed)
    return ir.ResidualBlock(g), inputs(b, g.event_shape, seed, 2 if name in IMAGES else 5)


def flat(x: Any) -> Any:
    """Return x on the host in float64, events flattened."""
    host = to_host(x).astype(np.float64)
    return host.reshape(host.shape[0], -1)


def tolerance(key: str) -> float:
    return 1e-6 if key.endswith("f32") else 1e-12


@each_backend
@each_constructor
@for_seeds
def test_inverse_undoes_forward_within_its_bound(name: str, key: str, seed: int) -> None:
    block, x = make(name, key, seed)
    y = block(x)
    inverse = ir.invert(block, y, rtol=tolerance(key), throw=False)
    floor = to_host(ir.bounds.rounding_floor(block, inverse.x, y))
    # every row above its floor converges …
    assert to_host(inverse.converged)[floor < tolerance(key)].all()
    # … and a bound that covers computed images contains the planted x, whose computed F(x) is y
    error, bound = np.linalg.norm(flat(inverse.x) - flat(x), axis=-1), to_host(inverse.error_bound)
    covers = np.broadcast_to(to_host(inverse.covers_computed), bound.shape)
    assert (error <= bound)[covers].all()
    assert covers.any()


@each_backend
@each_constructor
@for_seeds
def test_forward_undoes_inverse_to_the_tolerance(name: str, key: str, seed: int) -> None:
    block, y = make(name, key, seed)
    inverse = ir.invert(block, y, rtol=tolerance(key), throw=False)
    size = np.maximum(np.linalg.norm(flat(inverse.x), axis=-1), np.linalg.norm(flat(y), axis=-1))
    g = np.linalg.norm(flat(block.branch(inverse.x)), axis=-1)
    again = np.linalg.norm(flat(block(inverse.x)) - flat(y), axis=-1)
    # ‖F(x) − y‖ ≤ ‖r̂‖ + three roundings of size u·max(‖x‖, ‖y‖, ‖g‖)
    u = unit_roundoff(y)
    assert (again <= (tolerance(key) + 4 * u) * np.maximum(size, g))[to_host(inverse.converged)].all()


@pytest.mark.parametrize("key", ["numpy-f32", "numpy-f64", "torch-f64"])
@pytest.mark.parametrize("name", CONSTRUCTORS)
@for_seeds
def test_error_bound_contains_the_50_digit_preimage(name: str, key: str, seed: int) -> None:
    assert_error_bound_contains_the_preimage(name, key, seed)


@pytest.mark.parametrize("key", ["numpy-f32", "torch-f64"])
@pytest.mark.parametrize("name", IMAGES)
def test_error_bound_contains_the_50_digit_preimage_of_an_image(name: str, key: str) -> None:
    assert_error_bound_contains_the_preimage(name, key, 0)


def assert_error_bound_contains_the_preimage(name: str, key: str, seed: int) -> None:
    block, y = make(name, key, seed)
    inverse = ir.invert(block, y, rtol=tolerance(key), throw=False)
    truth = exact_preimage(block.branch, y)
    assert (distance(inverse.x, truth) <= to_host(inverse.error_bound)).all()


@each_constructor
@given(seed=SEEDS)
def test_banach_residual_shrinks_by_lip_at_every_step(name: str, seed: int) -> None:
    block, y = make(name, "numpy-f64", seed)
    high, target = at_50_digits(block.branch), exact(y)
    lipschitz, x = block.contraction(), target
    xp = ir.arrays.namespace(target)
    previous = None
    for _ in range(6):
        r = target - x - high(x)
        size = xp.sum(flatten_events(r * r, r.ndim - 1), axis=-1)
        if previous is not None:
            # ‖r_{k+1}‖ ≤ L‖r_k‖, squared, with room for 50-digit rounding
            assert bool(xp.all(size <= lipschitz**2 * previous * (1 + 1e-40) + 1e-90))
        previous, x = size, x + r


@each_arithmetic
@each_constructor
@for_seeds
def test_certificate_bounds_every_pair_and_every_jacobian(name: str, key: str, seed: int) -> None:
    block, x = make(name, key, seed)
    bound = block.certificate.bound
    assert block.certificate.proved
    high = at_50_digits(block.branch)
    a, b = (
        exact(x),
        exact(ir.arrays.namespace(x).flip(x, axis=0)) + 1,
    )
    assert (distance(high(a), high(b)) <= bound * distance(a, b) * (1 + 1e-15)).all()
    jacobian = to_host(high.linearize(a)[1].dense())
    assert (np.linalg.norm(jacobian, ord=2, axis=(1, 2)) <= bound * (1 + 1e-14)).all()


@pytest.mark.parametrize("key", ["numpy-f32", "numpy-f64", "torch-f32"])
@each_constructor
@for_seeds
def test_running_error_contains_the_error(name: str, key: str, seed: int) -> None:
    block, x = make(name, key, seed)
    value, error, _, _ = block.branch.running_error(x)
    assert (distance(value, at_50_digits(block.branch)(exact(x))) <= to_host(error)).all()


def layers(branch: Any) -> int:
    """The layers of a branch, and those inside of its concatenations."""
    return sum(1 + (len(layer.inner) if isinstance(layer, Concatenation) else 0) for layer in branch.layers)


def widest(branch: Any, x: Any) -> int:
    """The most numbers of an event between two layers."""
    sizes = [math.prod(x.shape[1:])]
    for layer in branch.layers:
        x = layer(x)
        sizes.append(math.prod(x.shape[1:]))
    return max(sizes)


@each_backend
@each_constructor
@for_seeds
def test_running_error_elsewhere_is_bounded_by_growth_and_drift(name: str, key: str, seed: int) -> None:
    assert_running_error_moves_within_growth_and_drift(name, key, seed)


def test_running_error_that_is_all_but_constant_moves_by_its_rounding() -> None:
    assert_running_error_moves_within_growth_and_drift("tiny J d=4", "numpy-f32", 415626)


def assert_running_error_moves_within_growth_and_drift(name: str, key: str, seed: int) -> None:
    block, x = make(name, key, seed)
    other = x * 1.5 - 0.25
    _, e0, growth, drift = block.branch.running_error(x)
    _, e1, _, _ = block.branch.running_error(other)
    moved = np.linalg.norm(flat(x) - flat(other), axis=-1)
    e0, e1 = (to_host(e).astype(np.float64) for e in (e0, e1))
    # s itself is rounded: each layer widens it by 1 + (2n + 2m + 32)u, n and m no more than the widest event, so that it lies that
    # far above the formula or up to twice as far
    allowed = 2 * layers(block.branch) * (4 * widest(block.branch, x) + 32) * unit_roundoff(x) * np.maximum(e0, e1)
    most = growth * moved + to_host(drift) + allowed
    assert (e1 <= e0 + most).all()  # of a layer of one's own nothing is proved: ∞ ≤ ∞
    assert (e0 <= e1 + most).all()


@each_arithmetic
@each_constructor
@for_seeds
def test_exact_logdet_is_the_50_digit_logdet(name: str, key: str, seed: int) -> None:
    block, x = make(name, key, seed)
    d, lipschitz, u = math.prod(x.shape[1:]), block.contraction(), unit_roundoff(x)
    value = ir.logdet(block, x, method="exact").value
    truth_chain = at_50_digits(block.branch).linearize(exact(x))[1].narrowest()
    truth = exact_logdet(truth_chain)
    chain = block.branch.linearize(x)[1].narrowest()
    error_of_j = np.linalg.norm(to_host(exact(chain.dense()) - truth_chain.dense()), axis=(1, 2))
    # |δ log det| ≤ 8du/(1−L) + the propagated error of J, d‖δJ‖/(1−L) to first order
    allowed = logdet_rounding(d, u, lipschitz) + 2 * d * error_of_j / (1 - lipschitz)
    assert (np.abs(to_host(exact(value) - truth)) <= allowed).all()


def absolute_norm(weight: Any) -> float:
    """‖|W|‖₂, and for a kernel on any image √(‖A‖₁‖A‖_∞), which is no less."""
    channels = weight.sum(axis=tuple(range(2, weight.ndim)))
    return float(np.linalg.norm(weight, 2) if weight.ndim == 2 else np.sqrt(channels.sum(0).max() * channels.sum(1).max()))


# where φ′ jumps, J may be of the other side of the kink: its error is then that of test_logdet_error, the whole jump
@pytest.mark.parametrize("name", [n for n in CONSTRUCTORS | IMAGES if not n.startswith(("relu", "sort"))])
@given(seed=SEEDS)
def test_error_of_the_jacobian_is_rounding(name: str, seed: int) -> None:
    block, x = make(name, "numpy-f64", seed)
    chain, truth = block.branch.linearize(x)[1], at_50_digits(block.branch).linearize(exact(x))[1]
    weights = [np.abs(to_host(p)) for k, p in block.branch.parameters().items() if k.endswith("weight")]
    sizes = [math.prod(w.shape[1:]) for w in weights]
    growth = math.prod(absolute_norm(w) for w in weights)
    # each factor adds γ_n or 8u(|φ′| + 1), and φ′ moves with the error of its argument at the rate |φ″| ≤ 1
    argument = to_host(block.branch.running_error(x)[1]) + np.linalg.norm(flat(x), axis=-1) * 2**-50
    allowed = growth * (2.0**-53 * (sum(sizes) + 20 * len(sizes)) + 4 * len(sizes) ** 2 * argument * max(sizes))
    gap = to_host(exact(chain.dense()) - truth.dense())
    assert (np.linalg.norm(gap, axis=(1, 2)) <= allowed).all()


@each_backend
@each_constructor
@for_seeds
def test_logdet_lies_within_its_bounds(name: str, key: str, seed: int) -> None:
    block, x = make(name, key, seed)
    d, lipschitz = math.prod(x.shape[1:]), block.contraction()
    low, high = ir.bounds.logdet_bounds(d, lipschitz)
    slack = logdet_rounding(d, unit_roundoff(x), lipschitz)
    value = to_host(ir.logdet(block, x, method="exact").value)
    assert ((value >= low - slack) & (value <= high + slack)).all()


def all_signs(d: int) -> np.ndarray[Any, Any]:
    """Sign vectors over which the mean of every quadratic form is its expectation: all of them, or beyond 2⁶ Hadamard columns."""
    if d <= 6:
        return np.array(list(itertools.product((1.0, -1.0), repeat=d)))
    columns = np.ones((1, 1))
    while len(columns) < d:
        columns = np.block([[columns, columns], [columns, -columns]])
    return columns[:, :d]


def repeated_signs(d: int, x: Any) -> Any:
    """Return all_signs for each row of x, in the shape of its events."""
    signs = all_signs(d)
    return np.broadcast_to(signs[:, None, :], (len(signs), x.shape[0], d)).reshape(len(signs), *x.shape)


@each_constructor
@given(seed=SEEDS)
def test_truncated_series_identity_and_bound_at_every_n(name: str, seed: int) -> None:
    block, x = make(name, "numpy-f64", seed)
    d, lipschitz = math.prod(x.shape[1:]), block.contraction()
    chain = block.branch.linearize(x)[1]
    jacobian = chain.dense()
    signs = repeated_signs(d, x)
    exact_value = np.linalg.slogdet(np.eye(d) + jacobian)[1]
    power, partial = np.eye(d), np.zeros(x.shape[0])
    for n in range(1, 9):
        power = power @ jacobian
        partial = partial + (-1) ** (n + 1) / n * np.trace(power, axis1=1, axis2=2)
        estimate = series_logdet(chain, signs, n).mean(axis=0)
        # E over all sign vectors of Σ_{k≤n} (−1)^{k+1} vᵀJᵏv/k = Σ_{k≤n} (−1)^{k+1} tr(Jᵏ)/k: an off-by-one in n fails
        size = d * sum(lipschitz**k / k for k in range(1, n + 1))
        assert np.abs(estimate - partial).max() <= 2 * product_rounding(block.branch, n, d, U) * size + 2.0**-1000  # both sides round
        # |Σ_{k≤n} − log det| ≤ −d(log(1 − L) + Σ_{k≤n} Lᵏ/k)
        slack = logdet_rounding(d, 2.0**-53, lipschitz)
        assert (np.abs(partial - exact_value) <= ir.bounds.truncation_bound(d, lipschitz, n) + slack).all()


def test_truncation_bound_is_the_formula_and_is_attained() -> None:
    for d, lipschitz, n in itertools.product((1, 3), (0.1, 0.5, 0.9, 0.99), (0, 1, 2, 5, 20)):
        direct = -d * (math.log1p(-lipschitz) + math.fsum(lipschitz**k / k for k in range(1, n + 1)))
        cancellation = 2.0**-50 * d * -math.log1p(-lipschitz)
        assert abs(ir.bounds.truncation_bound(d, lipschitz, n) - direct) <= cancellation
        # attained by J = −L·I: all terms have the same sign
        assert ir.bounds.truncation_bound(d, lipschitz, n) >= direct - cancellation


@each_constructor
@given(seed=SEEDS, q=st.sampled_from([None, 0.985, 0.999]))
def test_roulette_is_unbiased_by_enumeration(name: str, seed: int, q: float | None) -> None:
    block, x = make(name, "numpy-f64", seed)
    x = x[:2]
    d, lipschitz = math.prod(x.shape[1:]), block.contraction()
    chain = block.branch.linearize(x)[1]
    table = length_distributions.table(near_optimal(lipschitz) if q is None else geometric(q), lipschitz)
    signs = repeated_signs(d, x)
    # E over signs and N: Σ_n P(N = n) est(n) by the law of total expectation, n in steps that share a prefix; the estimate
    # is linear in the indicators of {N ≥ k}, so E = Σ_k P(N ≥ k)·(est(N = k) − est(N = k − 1))
    expected, previous, last = np.zeros(2), np.zeros(2), min(30, table.last)
    for n in range(1, last + 1):
        lengths = np.full((len(signs), 2), n)
        value = roulette_logdet(chain, signs, lengths, table).mean(axis=0)
        expected = expected + table.survival(n) * (value - previous)
        previous = value
    jacobian = chain.dense()
    exact_value = np.linalg.slogdet(np.eye(d) + jacobian)[1]
    terms = d * sum(lipschitz**k / k / table.survival(k) for k in range(1, last + 1))
    rounding = product_rounding(block.branch, last, d, U) * terms
    slack = rounding + logdet_rounding(d, U, lipschitz) + ir.bounds.truncation_bound(d, lipschitz, last)
    assert (np.abs(expected - exact_value) <= slack).all()
    # and to rounding against the same number of terms of the series
    partial = series_logdet(chain, signs, last).mean(axis=0)
    assert (np.abs(expected - partial) <= 2 * rounding).all()


def test_roulette_gives_each_sample_its_own_length() -> None:
    block, x = make("elu 3-8-8-3 L=.5", "numpy-f64", 0)
    chain = block.branch.linearize(x)[1]
    table = length_distributions.table(near_optimal(0.5), 0.5)
    signs = ir.Probes(seed=3, count=4).draw(x)
    lengths = np.array([[1, 5, 2, 9, 3], [4, 4, 1, 1, 7], [2, 2, 2, 2, 2], [9, 8, 7, 6, 5]])
    got = roulette_logdet(chain, signs, lengths, table)
    for (c, b), n in np.ndenumerate(lengths):
        alone = roulette_logdet(chain.take(slice(b, b + 1)), signs[c : c + 1, b : b + 1], np.array([[n]]), table)
        terms = x.shape[1] * sum(0.5**k / k / table.survival(k) for k in range(1, n + 1))
        assert abs(got[c, b] - alone[0, 0]) <= 2 * product_rounding(block.branch, int(n), x.shape[1], U) * terms


@each_backend
@for_seeds
def test_the_bits_are_the_same_on_every_backend(key: str, seed: int) -> None:
    b, reference = backend(key), backend("numpy-f64")
    for kind in ("rademacher", "gaussian", "hadamard"):
        probes = ir.Probes(seed=seed, stream=3, kind=kind, count=2, block=3)  # type: ignore[arg-type]
        here = to_host(probes.draw(b.asarray(np.zeros((4, 7)))))
        there = probes.draw(reference.asarray(np.zeros((9, 7))))[:, :4].astype(
            here.dtype
        )  # another batch: the same rows
        assert (here == there).all()


@each_backend
@each_constructor
@for_seeds
def test_products_with_the_chain_are_adjoint_and_equal_the_matrix(name: str, key: str, seed: int) -> None:
    block, x = make(name, key, seed)
    _, chain = block.branch.linearize(x)
    v, w = (ir.Probes(seed=seed, stream=s, count=3).draw(x) for s in (0, 1))
    forward, backward = to_host(chain.matvec(v)).astype(np.float64), to_host(chain.rmatvec(w)).astype(np.float64)
    forward, backward, hv, hw = (a.reshape(3, x.shape[0], -1) for a in (forward, backward, to_host(v), to_host(w)))
    u, d, dense = unit_roundoff(x), hv.shape[-1], to_host(chain.dense()).astype(np.float64)
    widths = sum(math.prod(p.shape) for p in block.branch.parameters().values())
    allowed = widths * u * d * max(1.0, float(np.abs(dense).max()))  # every product sums at most `widths` terms
    assert np.abs((forward * hw).sum(-1) - (backward * hv).sum(-1)).max() <= allowed
    assert np.abs(forward - np.einsum("bij,pbj->pbi", dense, hv)).max() <= allowed


@each_constructor
@given(seed=SEEDS)
def test_traces_and_rotations_agree_with_the_matrix(name: str, seed: int) -> None:
    block, x = make(name, "numpy-f64", seed)
    _, chain = block.branch.linearize(x)
    dense = chain.dense()
    d = dense.shape[-1]
    # |tr J| ≤ d and |tr J²| ≤ d for L < 1, from products on both sides: one for J, one more for its square
    allowed = 2 * product_rounding(block.branch, 2, d, U) * d
    trace, square = chain.trace(), chain.trace_of_square()
    layers = len([k for k in block.branch.parameters() if k.endswith("weight")])
    diagonal = all(isinstance(f, Dense | Diagonal | StackedDiagonal) for f in chain.factors)
    assert (trace is None) == (layers > 3 or not diagonal)
    assert (square is None) == (layers > 2 or not diagonal)
    if trace is not None:
        assert np.abs(trace - np.trace(dense, axis1=1, axis2=2)).max() <= allowed
    if square is not None:
        assert np.abs(square - np.trace(dense @ dense, axis1=1, axis2=2)).max() <= allowed
    truth = np.linalg.slogdet(np.eye(dense.shape[-1]) + dense)[1]
    # tr((I + J)⁻¹δJ) of what either product is off by, and the elimination
    off = d * product_rounding(block.branch, 1, d, U) / (1.0 - block.contraction())
    for k in range(len(chain.factors)):
        rotated = chain.rotated(k).dense()
        value = np.linalg.slogdet(np.eye(rotated.shape[-1]) + rotated)[1]
        assert np.abs(value - truth).max() <= 2 * (off + logdet_rounding(max(d, rotated.shape[-1]), U, block.contraction()))


@pytest.mark.parametrize("key", ["torch-f64", "torch-f32"])
@each_constructor
@for_seeds
def test_jacobian_is_that_of_autograd(name: str, key: str, seed: int) -> None:
    import torch

    block, x = make(name, key, seed)
    dense = block.branch.linearize(x)[1].dense()
    by_rows = torch.stack(
        [torch.autograd.functional.jacobian(lambda row: block.branch(row[None])[0], x[i]) for i in range(x.shape[0])]
    )
    numbers = sum(math.prod(p.shape) for p in block.branch.parameters().values())
    by_rows = by_rows.reshape(dense.shape)
    # no sum has more terms than the branch has numbers; each may carry a slope that is accurate to 8u(|φ′| + 1), on either side
    assert float((dense - by_rows).abs().max()) <= ELEMENTARY * numbers * unit_roundoff(x) * max(1.0, float(dense.abs().max()))


@each_backend
@each_constructor
def test_nothing_is_mutated_and_dtype_and_device_are_kept(name: str, key: str) -> None:
    block, x = make(name, key, 1)
    assert block.certificate.proved
    kept = to_host(x).copy()
    y = block(x)
    results = [y, ir.invert(block, y, rtol=1e-5, throw=False).x, ir.logdet(block, x, method="exact").value]
    results += [ir.logdet(block, x, method=ir.Series(3)).value, ir.logdet(block, x, method="roulette").value]
    for result in results:
        assert result.dtype == x.dtype
        assert ir.arrays.device(result) == ir.arrays.device(x)
    assert (to_host(x) == kept).all()
    assert from_host(kept, x).dtype == x.dtype


def test_the_oracle_has_fifty_digits() -> None:
    assert unit_roundoff(digits50().asarray([1.0])) < 1e-50
