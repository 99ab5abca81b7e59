"""The laws of inversion: what every method keeps on every family of contractive branches, in both precisions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import partialmethod
from typing import Any, get_args

import mpmath
import numpy as np
import pytest
from contractive_families import FAMILIES, LARGE, MEAN_EVALUATIONS, Family, ortho, rotation
from tables import BACKENDS, each_backend

import iresnet_backends
import iresnet_ref as ir
from iresnet_ref.arrays import host_norms, row_norm, to_host
from iresnet_ref.branches.branch import Branch
from iresnet_ref.inversion import fixed_point as banach
from iresnet_ref.inversion import iteration, newton, safeguard
from iresnet_ref.inversion.anderson import Secants
from iresnet_ref.inversion.backoff import no_backoff
from iresnet_ref.inversion.hidden import hidden_space
from iresnet_ref.inversion.last_step import last_step
from iresnet_ref.inversion.methods import Name
from iresnet_ref.inversion.rows import Rows
from iresnet_ref.inversion.safeguard import Goal, Point, step_bound
from iresnet_ref.jacobian.chain import Chain
from iresnet_ref.layers.activations import leaky_relu
from iresnet_ref.layers.linear import Affine
from iresnet_ref.layers.pointwise import Pointwise
from iresnet_ref.layers.sorting import GroupSort
from iresnet_ref.rounding import gamma, unit_roundoff

TOLERANCE = {"float64": 1e-12, "float32": 1e-6}
KINKED = [name for name, family in FAMILIES.items() if family.activation == "relu"]


def host(dtype: str = "float64") -> iresnet_backends.Backend:
    return iresnet_backends.get("numpy", dtype=dtype)


def scale(block: ir.ResidualBlock, x: Any, y: Any) -> Any:
    """max(‖x‖, ‖y‖, ‖g(x)‖), what rtol is relative to."""
    return np.max([np.linalg.norm(v.astype(np.float64), axis=1) for v in (x, y, block.branch(x))], axis=0)


def residual(block: ir.ResidualBlock, x: Any, y: Any) -> Any:
    return np.linalg.norm((y - x - block.branch(x)).astype(np.float64), axis=1)


def most_trial(method: str, d: int) -> int:
    """m_max: what one trial costs at most, counting the chain and the value at the trial point."""
    return (d if d <= newton.DENSE else min(newton.INNER, d)) + 2 if method == "newton" else 1


def methods(name: str) -> list[Name]:
    """Plain Banach is left out where it needs thousands of steps; the hidden space needs a proved constant."""
    family = FAMILIES[name]
    return [
        method
        for method in get_args(Name)
        if not (method == "hidden" and family.stated) and not (method == "banach" and family.c > 0.9)
    ]


def reachable(block: ir.ResidualBlock, y: Any, dtype: str) -> float:
    """The tolerance of the dtype, or just above the highest floor of the family if that is higher."""
    x = ir.invert(block, y, rtol=1e-5).x
    return max(TOLERANCE[dtype], 1.01 * float(ir.bounds.rounding_floor(block, x, y).max()))


# ── the table: every method × family × dtype ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_row_above_its_floor_converges_within_the_bound(name: str, dtype: str) -> None:
    block, y = FAMILIES[name].build(host(dtype))
    tol, check_every = reachable(block, y, dtype), 4
    for method in methods(name):
        if method == "banach" and dtype == "float32":
            continue  # may stagnate above its floor: that is why the others exist
        found = ir.invert(block, y, method=method, rtol=tol, check_every=check_every, throw=False)
        size, target = residual(block, found.x, y), tol * scale(block, found.x, y)
        above = ir.bounds.rounding_floor(block, found.x, y) < tol
        assert above.all(), method
        assert found.converged[above].all(), method
        # The residual is what was promised: evaluating it on another batch size moves it by rounding only.
        noise = block.branch.running_error(found.x)[1]
        assert (size[above] <= target[above] + 2 * noise[above]).all(), method
        # DESIGN's bound, from the residual at x₀ = y and the tolerance at the result
        first = residual(block, y, y)
        bound = step_bound(first, target, block.contraction(), most_trial(method, y.shape[1]) + check_every)
        assert (found.evaluations <= bound)[above].all(), method


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", ["ortho d=2 c=.99", "fold d=4 c=.5", "zigzag d=2 c=.9", "rand d=20 c=.9"])
def test_the_ball_contains_the_preimage_of_fifty_digits(
    name: str, dtype: str, fifty_digits: iresnet_backends.Backend
) -> None:
    block, y = FAMILIES[name].build(host(dtype))
    y = y[:3]
    precise = block.branch.with_parameters({k: fifty_digits.asarray(v) for k, v in block.branch.parameters().items()})
    found = ir.invert(block, y, rtol=1e-5)
    exact = ir.invert(
        ir.ResidualBlock(precise, block.contraction()), fifty_digits.asarray(y), method="newton", rtol=1e-40
    )
    distance = np.linalg.norm(to_host(exact.x - fifty_digits.asarray(found.x)), axis=1)
    assert (distance <= found.error_bound).all()
    # (1 − L − β)·radius ≤ ‖r̂‖ + 2(α + β·reach) + 5u(reach + ‖y‖) and no more, reach = size + ‖r̂‖ at the point before the last step,
    # where size was no larger than here and ‖r̂‖/L; with the roundings of these lines
    L, u, (alpha, beta) = block.contraction(), unit_roundoff(y), block.branch.rounding
    residual_norm = found.residual_norm.astype(np.float64)
    reach = scale(block, found.x, y) + 2 * residual_norm / L
    rho = 2 * (alpha + beta * reach) + 5 * u * (reach + row_norm(y, 1))
    on_top = (1 + (2 * y.shape[1] + 80) * u) / (1 - L - beta)
    assert (found.error_bound <= (residual_norm + rho) * on_top).all()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", FAMILIES)
def test_the_last_step_is_taken_only_where_every_computed_residual_gets_smaller_or_is_small_enough(name: str, dtype: str) -> None:
    """‖fl(y − z − g(z))‖ ≤ L‖r̂(x)‖ + ρ ≤ max(‖r̂(x)‖, the tolerance) for z = y − g(x), whoever computes it, in whatever batch.

    The norm returned is no smaller than that bound. Both radii are about the same preimage, and that of z is the smaller one.
    """
    block, y = FAMILIES[name].build(host(dtype))
    goal = Goal(block.contraction(), 1e-6, 4)
    steps = []
    near = ir.invert(block, y, rtol=1e-5).x
    for away in (1.0, 1e-2, 1e-4, 1e-8, 1e-12, 0.0):
        x = (near + away * y[::-1]).astype(dtype)
        point, rows = Point(x, block.branch(x), y), Rows(len(y))
        rows.residual, _, rows.size, _ = rows.measure(point, 1e-6)
        z, norm, radius, covers = last_step(block, point, rows, goal)
        stepped = (z != x).any(axis=1)
        rho = most_of_rounding(block, rows.residual, rows, y)
        stayed = (rows.residual + rho) / max(1 - goal.lipschitz - block.branch.rounding[1], 1e-300)
        assert (norm >= (goal.lipschitz * rows.residual + rho) * (1 - 8 * unit_roundoff(y)))[stepped].all()
        assert (radius <= stayed * (1 + 64 * unit_roundoff(y)))[stepped & covers].all()
        steps.append(stepped.any())
        alone = np.concatenate([residual(block, z[i : i + 1], y[i : i + 1]) for i in range(len(y))])
        for found in (alone, residual(block, z, y)):
            assert (found <= norm)[stepped].all()
        allowed = np.maximum(rows.residual, goal.rtol * np.maximum(rows.size, np.linalg.norm(y.astype(np.float64), axis=1)))
        assert (norm <= allowed * (1 + unit_roundoff(y))).all()  # rounded to the dtype
    assert steps[0]


def most_of_rounding(block: ir.ResidualBlock, residual: Any, rows: Rows, y: Any) -> Any:
    """ρ = 2(α + β(‖x‖ + ‖r̂‖)) + 5u(‖x‖ + ‖y‖ + ‖r̂‖)."""
    u, (alpha, beta) = unit_roundoff(y), block.branch.rounding
    reach = rows.size + residual
    return 2 * (alpha + beta * reach) + 5 * u * (reach + np.linalg.norm(y.astype(np.float64), axis=1))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", ["ortho d=2 c=.99", "fold d=4 c=.5", "zigzag d=2 c=.9", "rand d=20 c=.9"])
def test_the_rounding_constants_of_a_branch_hold_everywhere(
    name: str, dtype: str, fifty_digits: iresnet_backends.Backend
) -> None:
    """‖fl g(x) − g(x)‖ ≤ α + β‖x‖ beside the truth, and beside the running error bound, near 0 and far away."""
    block, y = FAMILIES[name].build(host(dtype))
    alpha, beta = block.branch.rounding
    precise = block.branch.with_parameters({k: fifty_digits.asarray(v) for k, v in block.branch.parameters().items()})
    for far in (0.0, 1e-3, 1.0, 1e6):
        x = (far * y).astype(dtype)
        gap = to_host(fifty_digits.asarray(block.branch(x[:2])) - precise(fifty_digits.asarray(x[:2])))
        bound = alpha + beta * np.linalg.norm(x.astype(np.float64), axis=1)
        assert (np.linalg.norm(gap, axis=1) <= bound[:2]).all()
        running = block.branch.running_error(x)[1].astype(np.float64)
        # each layer widens what it returns by (2m + 32)u for its own rounding, m its entries
        widest = max(math.prod(p.shape[:1]) for p in block.branch.parameters().values())
        assert (running <= bound * (1 + len(block.branch.layers) * 2 * (2 * widest + 32) * unit_roundoff(y))).all()
        assert (bound <= 16 * running).all()


@pytest.fixture
def fifty_digits() -> Iterator[iresnet_backends.Backend]:
    mpmath = pytest.importorskip("mpmath")
    pytest.importorskip("mparray")
    before = mpmath.mp.dps
    yield iresnet_backends.get("precision:50")
    mpmath.mp.dps = before


# ── the mathematics of one step ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", FAMILIES)
def test_residual_shrinks_by_lip_at_every_banach_step(name: str) -> None:
    block, y = FAMILIES[name].build(host())
    L = block.contraction()
    now = Point(y, block.branch(y), y)
    for _ in range(60):
        x = y - now.g
        new = Point(x, block.branch(x), y)
        # r_{k+1} = g(x_k) − g(x_{k+1}), ‖x_{k+1} − x_k‖ = ‖r_k‖, each known to its rounding
        error = sum(block.branch.running_error(p.x)[1] for p in (now, new))
        rounded = 4 * 2.0**-53 * (row_norm(x, 1) + row_norm(y, 1) + row_norm(now.r, 1))
        assert (new.size <= L * now.size + error + rounded).all()
        now = new


@pytest.mark.parametrize("method", ["auto", "newton"])
@pytest.mark.parametrize("name", ["fold d=4 c=.5", "zigzag d=6 c=.97", "sym− d=64 c=.9"])
def test_what_is_accepted_has_paid_for_itself(monkeypatch: pytest.MonkeyPatch, name: str, method: Name) -> None:
    """‖r(z)‖ ≤ Lᵐ‖r(x)‖ for every accepted trial of m evaluations; on kinked branches some trials are rejected."""
    block, y = FAMILIES[name].build(host())
    rejected = [0]
    for module in (banach, newton):
        monkeypatch.setattr(module, "accepts", audited(module.accepts, block.contraction(), rejected))
    ir.invert(block, y, method=method, rtol=1e-12)
    assert (rejected[0] > 0) == (name in KINKED)


def audited(accepts: Any, lipschitz: float, rejected: list[int]) -> Any:
    def accepts_and_tells(now: Point, trial: Point, cost: int, constant: float, target: Any) -> Any:
        accepted: Any = accepts(now, trial, cost, constant, target)
        assert constant == lipschitz
        assert ((trial.size <= lipschitz**cost * now.size) | (trial.size <= target))[accepted].all()
        rejected[0] += int((~accepted).sum())
        return accepted

    return accepts_and_tells


def test_a_rejection_doubles_the_wait_and_an_accepted_trial_halves_it() -> None:
    yes, no = np.asarray([True]), np.asarray([False])
    backoff = no_backoff(np.zeros(1))
    for wait in (1, 2, 4, 8, 16, 16):
        backoff = backoff.after_steps(1).after_trial(yes, yes)
        assert backoff.wait == wait
        for left in range(wait - 1, -1, -1):
            backoff = backoff.after_steps(1).after_trial(no, no)
            assert backoff.wait == left
    assert backoff.after_trial(yes, no).factor == backoff.factor / 2
    assert no_backoff(np.ones(1)).after_trial(yes, no).factor == 1.0, "never below one"
    backoff = no_backoff(np.zeros(1))
    for factor in (1, 2, 4):
        backoff = backoff.after_trial(yes, yes, 5)
        assert backoff.wait == 5 * factor
    assert backoff.after_steps(19).wait == 1.0
    assert backoff.after_steps(64).wait == 0.0


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_secants_are_orthonormal_and_describe_the_jacobian(dtype: str) -> None:
    """For an affine g every stored pair has w = (I + J)p, and the w are orthonormal."""
    rng, n = np.random.default_rng(0), 9
    matrix = (np.eye(n) + 0.9 * np.linalg.qr(rng.standard_normal((n, n)))[0]).astype(dtype)
    u = float(np.finfo(dtype).eps)
    memory = Secants(4)
    for k in range(7):
        p = rng.standard_normal((5, n)).astype(dtype)
        memory = memory.add(p, p @ matrix.T, dependent=0.0)
        assert [pair.shape for pair in memory.pairs] == [(5, 2 * n)] * min(k + 1, 4)
        steps, images = np.split(np.stack(memory.pairs, axis=1), 2, axis=2)
        gram = images @ images.transpose(0, 2, 1)
        growth = np.abs(steps).max()  # the steps grow as the images are orthogonalised
        assert np.abs(gram - np.eye(gram.shape[1])).max() <= 100 * n * u * growth
        assert np.abs(steps @ matrix.T - images).max() <= 100 * n * u * growth


def test_secants_survive_what_is_not_finite() -> None:
    memory = Secants(3).add(np.ones((2, 3)), np.ones((2, 3)))
    bad = np.asarray([[np.inf, 0.0, 0.0], [0.0, 1.0, 0.0]])
    moved, rest = memory.add(bad, bad).project(np.asarray([[1.0, 2.0, 3.0]] * 2))
    assert np.isfinite(moved).all()
    assert np.isfinite(rest).all()


def affine(d: int) -> tuple[ir.ResidualBlock, Any]:
    rng = np.random.default_rng(0)
    layer = Affine(0.9 * rotation(d, rng), rng.standard_normal(d))
    return ir.ResidualBlock(Branch((layer,), (d,))), rng.standard_normal((5, d))


def test_an_affine_branch_is_inverted_by_linear_algebra() -> None:
    """Newton needs one trial; the Anderson trials are GCR, which ends after d pairs, or one more after a restart."""
    for d in (3, 8):
        block, y = affine(d)
        assert (ir.invert(block, y, method="anderson", rtol=1e-9, check_every=1).evaluations <= d + 3).all()
        first_value, products, trial_value = 1, d, 1
        assert (
            ir.invert(block, y, method="newton", rtol=1e-13).evaluations == first_value + products + trial_value
        ).all()


def test_the_hidden_iteration_is_the_full_iteration_in_other_coordinates() -> None:
    """u_k = W₁x_k + b₁ step by step, and ‖y − x − g(x)‖ ≤ ‖W_L‖Lip(ψ)‖s‖ for x = y − W_L ψ(u) − b_L."""
    block, y = FAMILIES["rand d=20 c=.9"].build(host())
    space = hidden_space(block)
    assert space is not None
    x, u, v = y, space.lift(y), space.lift(y)
    # a step is two layers, sums of 20 terms and 8 roundings besides, of size 1 + |u|; what one adds shrinks by L = .9 in the next
    slack = 2 * gamma(2 * (20 + 8), 2.0**-53) / (1 - 0.9)
    for _ in range(12):
        s = v - u - space.block.branch(u)
        back = y - space.value(u)
        assert (residual(block, back, y) <= space.gain * np.linalg.norm(s, axis=1) + slack).all()
        x, u = y - block.branch(x), u + s
        assert np.abs(space.lift(x) - u).max() <= slack * (1 + np.abs(u).max())


# ── what the result says ──────────────────────────────────────────────────────────────────────────────────────────────


def count_evaluations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count calls of g and products with J of single rows, whoever makes them."""
    spent = [0]
    value, linearize, matvec = Branch.__call__, Branch.linearize, Chain.matvec

    def counted_value(self: Branch, x: Any) -> Any:
        spent[0] += 1
        return value(self, x)

    def counted_linearize(self: Branch, x: Any) -> Any:
        spent[0] += 1
        return linearize(self, x)

    def counted_matvec(self: Chain, v: Any) -> Any:
        spent[0] += v.shape[0] if v.ndim > 2 else 1  # probes
        return matvec(self, v)

    monkeypatch.setattr(Branch, "__call__", counted_value)
    monkeypatch.setattr(Branch, "linearize", counted_linearize)
    monkeypatch.setattr(Chain, "matvec", counted_matvec)
    return spent


@pytest.mark.parametrize("name", ["zigzag d=6 c=.97", "fold d=24 c=.9", "rand d=20 c=.9"])
def test_evaluations_are_counted_exactly(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    block, y = FAMILIES[name].build(host())
    assert block.branch.affine_model is not None, "what is derived from the weights is derived once"
    spent = count_evaluations(monkeypatch)
    for method in [m for m in get_args(Name) if m != "hidden" or not FAMILIES[name].stated]:
        spent[0] = 0
        found = ir.invert(block, y[:1], method=method, rtol=1e-9)
        outside = 1 if method == "hidden" else 0  # x = y − W_L ψ(u) − b_L is one more evaluation, counted by hand
        assert found.evaluations[0] == spent[0] + outside, method


def test_auto_says_what_it_used() -> None:
    fast, slow = (ir.ResidualBlock(ir.mlp((6, 9, 6), activation="elu", lipschitz=L)) for L in (0.1, 0.99))
    y = np.random.default_rng(0).standard_normal((400, 6))
    assert ir.invert(fast, y, rtol=1e-12).method == "chord"
    assert ir.invert(ir.ResidualBlock(fast.branch, 0.1), y, rtol=1e-12).method == "banach"
    block, z = FAMILIES["relu ortho d=8 c=.9"].build(host())
    assert ir.invert(block, z, rtol=1e-12).method == "anderson"
    wide = ir.ResidualBlock(ir.mlp((300, 20, 300), lipschitz=0.9))
    assert ir.invert(wide, np.random.default_rng(0).standard_normal((40, 300))).method.startswith("hidden")
    assert ir.invert(slow, y, method="newton").method == "newton"


def test_when_to_look_takes_no_time_however_seldom_it_may_be() -> None:
    def cost(rows: Any, least: int, every: int, steps: int) -> float:
        beyond = rows[rows > steps] - steps
        return steps * rows.size + float(np.maximum(beyond, max(least + every - steps, 1)).sum())

    assert banach.cheapest(np.array([50.0, np.inf]), 1, 10**12) == 10**12
    rng = np.random.default_rng(0)
    for least, every in itertools.product((-9, 0, 1, 5, 20), (1, 4, 13)):
        for rows in (rng.integers(0, 40, 6) / 2.0, np.full(3, 7.5), np.append(rng.integers(0, 9, 3) / 2.0, np.nan)):
            places = range(max(every, least), max(least, 1) - 1, -1)
            assert banach.cheapest(rows, least, every) == min(places, key=lambda s: cost(rows, least, every, s))


@pytest.mark.parametrize("method", ["anderson", "auto"])
def test_the_host_is_asked_once_per_check_every_evaluations(monkeypatch: pytest.MonkeyPatch, method: Name) -> None:
    block, y = FAMILIES["sym− d=64 c=.97"].build(host())
    asked, measure = [0], Rows.measure

    def counted(*args: Any) -> Any:
        asked[0] += 1
        return measure(*args)

    monkeypatch.setattr(Rows, "measure", counted)
    for check_every in (1, 2, 3, 5):
        asked[0] = 0
        found = ir.invert(block, y, method=method, rtol=1e-12, check_every=check_every)
        assert found.method == ("chord" if method == "auto" and check_every > 2 else "anderson")
        assert asked[0] <= 1 + int(found.evaluations.max()) // check_every


def test_norms_on_the_host_keep_what_squares_lose() -> None:
    """But for what vanishes beside a larger norm of its row, whose true value is below that one's rounding."""
    for dtype in ("float32", "float64"):
        tiny = float(np.finfo(dtype).smallest_normal)
        rows = np.asarray([[3.0, 4.0], [3.0 * tiny, 4.0 * tiny], [0.0, 0.0], [1.0, 0.0]]).astype(dtype)
        other = np.asarray([[0.0, tiny], [tiny, 0.0], [0.0, 0.0], [0.0, 1.0]]).astype(dtype)
        found = host_norms(rows, other)
        assert np.allclose(found[0], [5.0, 5.0 * tiny, 0.0, 1.0], rtol=1e-6, atol=0.0)
        assert np.allclose(found[1], [tiny, tiny, 0.0, 1.0], rtol=1e-6, atol=0.0)
        assert host_norms(rows[:1], other[:1]).tolist() == [[5.0], [0.0]]
        # what comes along does not decide which norms vanish
        assert np.allclose(
            host_norms(rows[1:2], other[3:], leading=1), [[5.0 * tiny], [1.0]], rtol=1e-6, atol=0.0
        )
        huge = np.asarray([[3.0, 4.0]], dtype) * np.asarray(np.finfo(dtype).max / 8, dtype)
        assert np.allclose(host_norms(huge), float(np.finfo(dtype).max) / 8 * 5, rtol=1e-6)


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
def test_a_norm_beyond_the_range_is_inf_and_that_of_nothing_known_is_nan(p: float) -> None:
    rows = np.asarray([[1.0, -np.inf], [np.inf, np.inf], [0.0, np.nan], [np.inf, np.nan], [1e308, 1e308], [0.0, 0.0]])
    with np.errstate(over="ignore", invalid="raise"):
        found = row_norm(rows, 1, p)
    assert found[:2].tolist() == [np.inf] * 2
    assert np.isnan(found[2:4]).all()
    assert found[4] >= 1e308
    assert found[5] == 0.0


@pytest.mark.parametrize("method", ["auto", "banach"])
@pytest.mark.filterwarnings("ignore:overflow")
def test_where_the_bound_on_rounding_overflows_the_radius_is_inf_and_the_residual_is_known(method: Name) -> None:
    """A bias near the largest number: values are finite, |W||h| + |b| is not."""
    g = ir.mlp((2, 8, 2), lipschitz=0.8, seed=1)
    block = ir.ResidualBlock(g.with_parameters({k: p + 1e308 * k.endswith("bias") for k, p in g.parameters().items()}))
    found = ir.invert(block, np.eye(2), method, rtol=1e-6)
    assert np.isinf(found.error_bound).all()
    left = row_norm(np.eye(2) - found.x - block.branch(found.x), 1)
    assert np.allclose(found.residual_norm, left, rtol=1e-6, atol=0.0)


def test_rows_do_not_disturb_each_other() -> None:
    """A row alone takes the same path as in the batch, up to rounding: its count may differ by one check."""
    block, y = FAMILIES["ortho d=8 c=.97"].build(host())
    together = ir.invert(block, y, method="anderson", rtol=1e-9)
    for i in range(0, 32, 8):
        alone = ir.invert(block, y[i : i + 1], method="anderson", rtol=1e-9)
        assert np.linalg.norm(alone.x[0] - together.x[i]) <= alone.error_bound[0] + together.error_bound[i]
        assert abs(int(alone.evaluations[0]) - int(together.evaluations[i])) <= 4


@pytest.mark.parametrize("name", [name for name in MEAN_EVALUATIONS if name in FAMILIES | LARGE])
def test_mean_evaluations_are_those_published(name: str) -> None:
    block, y = (FAMILIES | LARGE)[name].build(host())
    assert ir.invert(block, y, rtol=1e-12).evaluations.mean() <= MEAN_EVALUATIONS[name]


def test_in_few_dimensions_secants_pay_even_where_banach_is_fast() -> None:
    block, y = Family(lambda rng: ortho(2, 0.2, rng), "elu", 0.2, 256).build(host())
    assert ir.invert(block, y, method="banach", rtol=1e-12).evaluations.mean() > 12
    stated = ir.ResidualBlock(block.branch, block.contraction())  # no chord steps
    found = ir.invert(stated, y, rtol=1e-12)
    assert found.method == "anderson"
    assert found.evaluations.mean() <= 8
    assert ir.invert(stated, y, rtol=1e-3).method == "banach"  # not worth it


def test_a_tolerance_above_the_floor_is_reached_where_banach_stagnates() -> None:
    """float32, d = 2, c = .99: plain Banach walks around above 1e-6 for ever; the floor is half of that."""
    block, y = FAMILIES["ortho d=2 c=.99"].build(host("float32"))
    plain = ir.invert(block, y, method="banach", rtol=1e-6, throw=False)
    assert plain.converged.mean() < 0.5
    assert ir.invert(block, y, rtol=1e-6).converged.all()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", ["ortho d=2 c=.9", "ortho d=8 c=.97", "rand d=20 c=.9", "fold d=24 c=.9"])
def test_the_floor_is_neither_vacuous_nor_optimistic(name: str, dtype: str) -> None:
    """Every row reaches its floor; a twentieth of it is out of reach for some rows of every family."""
    block, y = FAMILIES[name].build(host(dtype))
    x = ir.invert(block, y, rtol=1e-5).x
    floor = ir.bounds.rounding_floor(block, x, y).astype(np.float64) * scale(block, x, y)

    def reached(share: float) -> float:
        goal = Goal(block.contraction(), 1.0, 4, 400)
        _, rows = iteration.iterate(block, banach.FixedPoint(block, y, goal, "observed"), goal, share * floor)
        return float(rows.converged.mean())

    assert reached(1.0) == 1.0
    assert reached(0.05) < 1.0


# ── backends ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", get_args(Name))
@each_backend
def test_every_method_runs_on_every_backend(key: str, method: Name) -> None:
    backend = iresnet_backends.get(*BACKENDS[key])
    block, y = FAMILIES["rand d=20 c=.9"].build(backend)
    found = ir.invert(block, y, method=method, rtol=TOLERANCE[BACKENDS[key][1]])
    assert found.x.dtype == y.dtype
    assert (found.x.device, found.converged.device) == (y.device, y.device)
    assert to_host(found.converged).all()
    assert to_host(row_norm(block(found.x) - y, 1) <= 8 * TOLERANCE[BACKENDS[key][1]] * row_norm(y, 1)).all()


# ── bad input and hard rows ───────────────────────────────────────────────────────────────────────────────────────────


def test_options_that_mean_nothing_are_refused() -> None:
    block, y = affine(3)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"method": "broyden"}, r"expected method auto, .* got 'broyden'; try 'auto'"),
        ({"rtol": 0.0}, r"expected rtol > 0"),
        ({"rtol": math.nan}, r"expected rtol > 0"),
        ({"check_every": 0}, r"check_every ≥ 1"),
        ({"max_evaluations": 0}, r"expected max_evaluations ≥ 1"),
        ({"method": "hidden"}, r"begins and ends with dense layers"),
    ]
    for arguments, words in cases:
        with pytest.raises(ValueError, match=words):
            ir.invert(block, y, **arguments)
    with pytest.raises(ir.NonFiniteError, match="NaN"):
        ir.invert(block, y * math.nan)
    with pytest.raises(ir.ShapeError, match="put the batch first"):
        ir.invert(block, y[0])
    with pytest.raises(ir.DTypeError, match="expected dtype float64 like the weights, got float32"):
        ir.invert(block, y.astype(np.float32))
    with pytest.raises(ir.DTypeError, match="expected a real floating dtype, got int64"):
        ir.invert(block, y.astype(np.int64))
    with pytest.raises(ir.DTypeError, match="expected an array of the Python Array API"):
        ir.invert(block, y.tolist())


def test_arrays_of_another_device_or_namespace_are_refused() -> None:
    one, two = (iresnet_backends.get(f"array-api-strict:device{i}", dtype="float64") for i in (1, 2))
    block, y = FAMILIES["rand d=20 c=.9"].build(one)
    with pytest.raises(ir.DTypeError, match=r"expected device .*device1.* like the weights, got .*device2"):
        ir.invert(block, two.asarray(to_host(y)))
    with pytest.raises(ir.DTypeError, match=r"expected an array of .*strict.* like the weights"):
        ir.invert(block, to_host(y))


def test_without_dimensions_there_is_nothing_to_invert() -> None:
    block = ir.ResidualBlock(Branch((Affine(np.zeros((0, 0)), np.zeros(0)),), (0,)))
    found = ir.invert(block, np.zeros((3, 0)))
    assert found.x.shape == (3, 0)
    assert found.converged.tolist() == [True] * 3
    assert found.error_bound.tolist() == [0.0] * 3


def failure(error: ir.ConvergenceError) -> tuple[ir.Inverse, Any]:
    assert isinstance(error.result, ir.Inverse)
    return error.result, error.floor


@pytest.mark.parametrize("method", ["auto", "anderson", "banach", "newton"])
def test_a_tolerance_below_the_floor_is_an_error_that_keeps_the_result(method: Name) -> None:
    block, y = FAMILIES["ortho d=2 c=.9"].build(host("float32"))
    with pytest.raises(
        ir.ConvergenceError, match=r"rounding floor is about .*e-07: try a larger rtol, float64"
    ) as caught:
        ir.invert(block, y, method=method, rtol=1e-11)
    result, floor = failure(caught.value)
    assert not result.converged.all()
    assert (result.residual_norm <= 100 * floor * scale(block, result.x, y)).all()  # nothing is lost
    assert (floor > 1e-11).all()


@pytest.mark.parametrize("name", ["torch:cpu", "jax:cpu"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1e-2, 1.0, 1e3])
def test_bounds_hold_where_subnormal_weights_are_flushed(name: str, dtype: str, size: float) -> None:
    """g(x) = HSx, S subnormal and H huge, ‖HS‖ = .9: flushed, g is 0 and every y its own preimage. JAX always flushes on the CPU."""
    framework = pytest.importorskip(name.partition(":")[0])
    b = iresnet_backends.get(name, dtype)
    small, huge = (2e-309, 5e307) if dtype == "float64" else (1.5e-39, 6.7e37)
    layers = tuple(Affine(b.asarray(np.full((3, 3), w)), b.asarray(np.zeros(3))) for w in (small, huge))
    block = ir.ResidualBlock(Branch(layers, (3,)))
    assert 0.8 < block.contraction() < 1.0  # proved before anything is flushed
    y = size * np.ones((2, 3))
    exact = y / (1.0 + 9.0 * small * huge)
    if name == "torch:cpu":
        framework.set_flush_denormal(True)
    try:
        found = ir.invert(block, b.asarray(y))
        ball = ir.bounds.inverse_ball(block, found.x, b.asarray(y))
    finally:
        if name == "torch:cpu":
            framework.set_flush_denormal(False)
    distance = np.linalg.norm(to_host(found.x).astype(np.float64) - exact, axis=1)
    assert (distance <= to_host(found.error_bound)).all()
    assert (distance <= to_host(ball.radius)).all()


def test_products_of_fewer_bits_than_the_dtype_has_are_refused() -> None:
    """Autocast broke 46 of 50 error bounds; the look at them is the one that every call takes."""
    torch = pytest.importorskip("torch")
    b = iresnet_backends.get("torch:cpu", "float32")
    block = ir.ResidualBlock(ir.mlp((4, 16, 4), like=b.asarray([0.0])))
    x = b.asarray(np.ones((3, 4)))
    y = block(x)
    calls = [
        lambda: ir.invert(block, y),
        lambda: ir.bounds.inverse_ball(block, x, y),
        lambda: ir.bounds.logdet_error_bound(block, x),
        lambda: ir.logdet_of_inverse(block, y),
        lambda: ir.inverse_gradient(block, x, x_bar=y),
        lambda: ir.sequence_gradient([block], y, y),
    ]
    for call in calls:
        call()
        refused = pytest.raises(ir.DTypeError, match=r"expected matrix products in .*fewer bits; leave autocast")
        with torch.autocast("cpu", dtype=torch.bfloat16), refused:
            call()
    assert ir.invert(block, y).converged.all()


@pytest.mark.parametrize("method", get_args(Name))
@pytest.mark.parametrize("gap", [1e-6, 1e-12])
def test_under_the_floor_it_ends_however_near_to_one(gap: float, method: Name) -> None:
    """The a-priori bound is 1e8 steps at L = 1 − 1e-6 and 1e14 at 1 − 1e-12; what stands still is seen within some windows."""
    block = ir.ResidualBlock(ir.mlp((4, 16, 4), lipschitz=1.0 - gap))
    y = block(np.random.default_rng(0).standard_normal((5, 4)))
    assert ir.invert(block, y, method=method, rtol=1e-12).converged.all()
    with pytest.raises(ir.ConvergenceError, match=r"got \d\S+e-1[67] on row .* rounding floor is about \d\S+e-1[67]") as caught:
        ir.invert(block, y, method=method, rtol=1e-30)
    result: Any = caught.value.result
    assert result.evaluations.max() <= 10 * safeguard.LONGEST


def test_a_row_that_gets_on_slowly_is_not_given_up_before_its_limit() -> None:
    """J = −L·I: every Banach step shrinks ‖r‖ by exactly L, and by next to nothing in a window."""
    block = ir.ResidualBlock(Branch((Affine(-(1.0 - 1e-8) * (1.0 - 1e-15) * np.eye(2), np.zeros(2)),), (2,)), 1.0 - 1e-8)
    for limit in (3000, None):
        found = ir.invert(block, np.ones((1, 2)), method="banach", max_evaluations=limit, throw=False)
        assert found.evaluations.tolist() == [limit or safeguard.MOST_EVALUATIONS]
    assert ir.invert(block, np.ones((1, 2))).converged.all()  # by secants


@pytest.mark.parametrize("method", get_args(Name))
@pytest.mark.parametrize("limit", [1, 2, 5, 11])
def test_the_limit_is_never_exceeded(method: Name, limit: int) -> None:
    block, y = FAMILIES["rand d=20 c=.9"].build(host())
    if method == "hidden" and limit <= 3:
        return
    with pytest.raises(ir.ConvergenceError, match=f"after {limit} evaluations|after .* evaluations") as caught:
        ir.invert(block, y, method=method, rtol=1e-30, max_evaluations=limit)
    result, _ = failure(caught.value)
    assert (result.evaluations <= limit).all()
    assert (result.evaluations >= min(limit, 4)).all()


@pytest.mark.parametrize("method", ["auto", "banach", "anderson", "newton"])
@pytest.mark.parametrize("scale_up", [0.7, 3.0])
def test_a_false_constant_is_refuted(method: Name, scale_up: float) -> None:
    """‖J‖ is about `scale_up` everywhere, .5 is stated: the first step shows it."""
    rng = np.random.default_rng(0)
    layers = (Affine(scale_up * rotation(4, rng), rng.standard_normal(4)),)
    block = ir.ResidualBlock(Branch(layers, (4,)), lipschitz=0.5)
    with pytest.raises(ir.NotContractiveError, match=r"expected Lip\(g\) ≤ 0.5 as stated"):
        ir.invert(block, rng.standard_normal((3, 4)), method=method, rtol=1e-12)


def test_a_rejected_trial_is_evidence_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The constant is tested on what was evaluated, not on what was kept: every row at work has moved."""
    block, y = FAMILIES["zigzag d=6 c=.97"].build(host())
    tested = [0]

    def watched(a: Point, b: Point) -> Any:
        working = a.size > 1e-9
        assert (a.x != b.x).any(axis=1)[working].all()
        tested[0] += int(working.sum())
        return safeguard.between(a, b)

    monkeypatch.setattr(iteration, "between", watched)
    ir.invert(block, y, method="anderson", rtol=1e-12, check_every=1)
    assert tested[0] > 100
    lying = ir.ResidualBlock(block.branch, 0.9)
    with pytest.raises(ir.NotContractiveError, match=r"expected Lip\(g\) ≤ 0.9 as stated"):
        ir.invert(lying, y, method="anderson", rtol=1e-12)


def test_a_true_constant_is_never_refuted_by_rounding() -> None:
    """Iterating far below the floor, where r is nothing but rounding."""
    for dtype in TOLERANCE:
        for name in ("fold d=2 c=.99", "zigzag d=2 c=.9"):
            block, y = FAMILIES[name].build(host(dtype))
            ir.invert(block, y, rtol=1e-30, check_every=1, max_evaluations=120, throw=False)


def test_a_singular_jacobian_says_so() -> None:
    block = ir.ResidualBlock(Branch((Affine(-np.eye(3), np.ones(3)),), (3,)), lipschitz=0.9)
    with pytest.raises(ir.NotContractiveError, match=r"I \+ J is singular"):
        ir.invert(block, 2 * np.ones((2, 3)), method="newton")


def test_an_expansion_is_refused() -> None:
    block = ir.ResidualBlock(Branch((Affine(2.0 * np.eye(3), np.ones(3)),), (3,)))
    with pytest.raises(ir.NotContractiveError, match=r"proved Lip\(g\) < 1, got 2"):
        ir.invert(block, np.ones((2, 3)))


def homogeneous(d: int, dtype: str) -> dict[str, Branch]:
    """Branches without biases, g(2ᵉx) = 2ᵉg(x): affine, kinked and sorting."""
    rng = np.random.default_rng(d)

    def dense(outputs: int, inputs: int, c: float = 0.7) -> Affine:
        weight = ir.spectral.normalise(rng.standard_normal((outputs, inputs)).astype(dtype), c)
        return Affine(weight, np.zeros(outputs, dtype))

    middle = {"leaky relu": Pointwise(leaky_relu(0.25)), "sorted": GroupSort(2)}
    branches = {name: Branch((dense(4 * d, d), layer, dense(d, 4 * d)), (d,)) for name, layer in middle.items()}
    return {"affine": Branch((dense(d, d, 0.49),), (d,)), **branches}


def exact_value(branch: Branch, v: Any) -> Any:
    """g(v) of a homogeneous branch, in exact products and sums of mpmath numbers."""
    for layer in branch.layers:
        if isinstance(layer, Affine):
            v = np.vectorize(mpmath.mpf, otypes=[object])(layer.weight) @ v
        elif isinstance(layer, GroupSort):
            v = np.sort(v.reshape(-1, 2), axis=1)[:, ::-1].reshape(-1)
        else:
            v = np.where(v > 0, v, v / 4)
    return v


@pytest.mark.parametrize("stated", [False, True])
@pytest.mark.parametrize("d", [2, 20])
@pytest.mark.parametrize(
    ("dtype", "exponents"),
    [("float64", (-996, -566, -540, 540, 996)), ("float32", (-119, -80, -70, 70, 119))],
)
def test_converged_and_radius_are_true_at_every_scale(
    dtype: str, exponents: tuple[int, ...], d: int, stated: bool
) -> None:
    """Numbers of size 1e±300 (1e±36 in float32): F(2ᵉx) = 2ᵉF(x), so that one preimage of twenty digits serves them all."""
    rtol = 10 * TOLERANCE[dtype]
    for name, branch in homogeneous(d, dtype).items():
        block = ir.ResidualBlock(branch, branch.certificate.bound if stated else None)
        y = np.random.default_rng(0).standard_normal((1, d)).astype(dtype)
        with mpmath.workdps(30):
            target = np.vectorize(mpmath.mpf, otypes=[object])(y[0])
            truth = np.vectorize(mpmath.mpf, otypes=[object])(ir.invert(block, y, rtol=rtol).x[0])
            for _ in range(30):  # from any start; .49³⁰ < 1e-9 of what is left of it here
                truth = target - exact_value(branch, truth)
            for exponent in exponents:
                for method in get_args(Name):
                    if method == "hidden" and (stated or name == "affine"):
                        continue
                    found = ir.invert(block, np.ldexp(y, exponent), method=method, rtol=rtol)
                    x = np.asarray([mpmath.ldexp(mpmath.mpf(float(v)), -exponent) for v in found.x[0]])
                    bound = mpmath.ldexp(mpmath.mpf(float(found.error_bound[0])), -exponent)
                    lost = mpmath.ldexp(2000 * d * np.finfo(dtype).smallest_normal, -exponent)  # flushing may lose it
                    distance = mpmath.norm(list(x - truth))
                    left = mpmath.norm(list(target - x - exact_value(branch, x)))
                    assert found.converged.all()
                    assert distance <= bound
                    # leaky ReLU declares u(|φ| + 1), which says nothing of smaller numbers
                    assert name == "leaky relu" or bound < 1e-3 * mpmath.norm(list(truth)) + lost
                    assert left <= 2 * rtol * max(
                        mpmath.norm(list(v)) for v in (x, target, x - target)
                    )
                    assert 0.0 < ir.bounds.rounding_floor(block, found.x, np.ldexp(y, exponent))[0] < TOLERANCE[dtype]


@pytest.mark.parametrize("method", get_args(Name))
def test_empty_single_zero_and_far_batches_are_inverted(method: Name) -> None:
    for dtype, far in (("float64", 1e200), ("float32", 1e25)):
        block, y = FAMILIES["rand d=20 c=.9"].build(host(dtype))
        empty = ir.invert(block, y[:0], method=method)
        assert empty.x.shape == (0, 20)
        assert empty.evaluations.shape == empty.converged.shape == empty.error_bound.shape == (0,)
        with np.errstate(under="ignore"):
            for z in (y[:1], 0 * y, far * y, np.concatenate([far * y[:2], 0 * y[:2], y[:2]])):
                found = ir.invert(block, z, method=method, rtol=TOLERANCE[dtype])
                assert found.converged.all()
                assert np.isfinite(found.x).all()


def test_the_tolerance_is_relative_however_small_the_numbers_are() -> None:
    """Without biases F is nearly homogeneous: float32 events of size 1e-25 must not pass for converged at once."""
    rng = np.random.default_rng(0)
    weight = (0.9 * rotation(4, rng)).astype(np.float32)
    block = ir.ResidualBlock(Branch((Affine(weight, np.zeros(4, dtype=np.float32)),), (4,)))
    x = rng.standard_normal((5, 4)).astype(np.float32)
    for size in (1.0, 1e-25, 1e25):
        y = (size * x).astype(np.float32)
        found = ir.invert(block, y, rtol=1e-5)
        exact = np.linalg.solve(np.eye(4) + weight.astype(np.float64), y.T.astype(np.float64)).T
        assert (
            np.linalg.norm(found.x - exact, axis=1) <= 1e-5 / 0.1 * np.linalg.norm(y.astype(np.float64), axis=1) * 2
        ).all()


def test_a_zero_branch_is_the_identity() -> None:
    block = ir.ResidualBlock(ir.mlp((4, 6, 4)))
    zero = ir.ResidualBlock(block.branch.with_parameters({k: 0 * v for k, v in block.branch.parameters().items()}))
    y = np.random.default_rng(0).standard_normal((3, 4))
    for method in get_args(Name):
        assert (ir.invert(zero, y, method=method, rtol=1e-15).x == y).all()


# ── broken variants must be rejected by the laws above ────────────────────────────────────────────────────────────────


MEASURE = Rows.measure


class OnTheStep:
    """Stop on ‖x_k − x_{k−1}‖: zero where a trial was rejected."""

    before: Any = None

    def __call__(self, rows: Rows, point: Point, rtol: float, *others: Any) -> Any:
        residual, target, size, rest = MEASURE(rows, point, rtol, *others)
        if self.before is not None and self.before.shape == point.x.shape:
            residual = np.linalg.norm(point.x - self.before, axis=1)
        self.before = point.x
        return residual, target, size, rest


def on_the_square(rows: Rows, point: Point, rtol: float, *others: Any) -> Any:
    """Stop on the square of the step."""
    residual, target, size, rest = MEASURE(rows, point, rtol, *others)
    return residual**2, target, size, rest


@pytest.mark.parametrize("broken", [OnTheStep(), on_the_square])
def test_stopping_on_the_step_or_its_square_is_rejected(monkeypatch: pytest.MonkeyPatch, broken: Any) -> None:
    monkeypatch.setattr(Rows, "measure", partialmethod(broken))
    with pytest.raises(AssertionError):
        test_every_row_above_its_floor_converges_within_the_bound("fold d=2 c=.99", "float64")


@pytest.mark.parametrize("method", ["auto", "newton"])
def test_acceptance_without_the_price_is_rejected(monkeypatch: pytest.MonkeyPatch, method: Name) -> None:
    for module in (banach, newton):
        monkeypatch.setattr(module, "accepts", lambda now, trial, cost, L, target: trial.size <= now.size)
    with pytest.raises(AssertionError):
        test_what_is_accepted_has_paid_for_itself(monkeypatch, "zigzag d=6 c=.97", method)


@pytest.mark.parametrize("method", ["auto", "newton"])
def test_a_method_without_safeguard_is_rejected(monkeypatch: pytest.MonkeyPatch, method: Name) -> None:
    """Unsafeguarded Newton cycles on kinked branches; the table sees rows that never converge or exceed the bound."""
    for module in (banach, newton):
        monkeypatch.setattr(module, "accepts", lambda now, trial, cost, L, target: trial.size >= 0.0)
    with pytest.raises(AssertionError):
        test_what_is_accepted_has_paid_for_itself(monkeypatch, "zigzag d=6 c=.97", method)
