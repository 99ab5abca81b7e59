"""Certificates on a box: no pair of points and no Jacobian exceeds them, in balls and by sampling; they are close; inverses in balls."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from ball_arithmetic import SLOPES, columns, entrywise, evaluate
from flint import arb, arb_mat

import iresnet_ref as ir
from iresnet_ref.branches.certificates.box import CELLS
from iresnet_ref.branches.certificates.enclosure import Enclosure
from iresnet_ref.errors import DTypeError, NonFiniteError, NotContractiveError, ShapeError
from iresnet_ref.layers.by_name import LAYERS  # noqa: F401 - registers all activations
from iresnet_ref.layers.diagonal import DiagonalAffine
from iresnet_ref.layers.linear import Affine, Conv
from iresnet_ref.layers.lipswish import CLipSwish, LipSwish
from iresnet_ref.layers.pointwise import Pointwise
from iresnet_ref.layers.rearrangement import Rearrangement
from iresnet_ref.layers.sorting import GroupSort
from iresnet_ref.norms.stacks import nonnegative_norm_bounds, stack_norm_bounds
from iresnet_verify.golden.balls import bits

Host = np.ndarray[Any, Any]
MORE = [ir.activations.leaky_relu(-2.0), ir.activations.leaky_relu(3.0), ir.activations.elu(2.0), ir.activations.elu(0.3),
        ir.activations.silu(3.0), ir.activations.softplus(3.0), ir.activations.celu(2.0), ir.activations.hardtanh(0.0, 6.0),
        ir.activations.softshrink(0.0)]  # fmt: skip
EVERY = {phi.name: phi for phi in (*ir.activations.ACTIVATIONS.values(), *MORE)}


def affine(rng: np.random.Generator, outputs: int, inputs: int, gain: float, dtype: Any = np.float64) -> Affine:
    weight = gain * rng.standard_normal((outputs, inputs)) / math.sqrt(inputs)
    return Affine(weight.astype(dtype), rng.standard_normal(outputs).astype(dtype))


def random_branch(rng: np.random.Generator, d: int | None = None, norm: float = 2.0) -> ir.Branch:
    """A branch of every kind of layer that is read, wild enough for slopes to change within a box."""
    names = sorted(EVERY)
    d = int(rng.integers(1, 5)) if d is None else d
    dtype = np.float32 if rng.random() < 0.3 else np.float64
    layers: list[Any] = []
    width = d
    for _ in range(int(rng.integers(1, 4))):
        n = int(rng.integers(1, 17))
        layers.append(affine(rng, n, width, math.exp(0.5 * rng.standard_normal()), dtype))
        kind, width = rng.integers(8), n
        if kind == 0:
            layers.append(CLipSwish())
            width = 2 * n
        elif kind == 1:
            layers += [LipSwish(rng.standard_normal(1).astype(dtype)), Rearrangement((n,), (0,), (n,))]
        elif kind == 2:
            phi = Pointwise(EVERY[names[int(rng.integers(len(names)))]])
            layers += [DiagonalAffine(*rng.standard_normal((2, n)).astype(dtype)), phi, phi]
        else:
            layers.append(Pointwise(EVERY[names[int(rng.integers(len(names)))]]))
    layers.append(affine(rng, d, width, 1.0, dtype))
    return ir.Branch(tuple(layers), (d,), norm)


def cells(rng: np.random.Generator, count: int, d: int) -> tuple[Host, Host]:
    """Boxes of all sizes, anisotropic ones and points too, in various places."""
    centre = rng.standard_normal((count, d)) * rng.choice([0.1, 1.0, 10.0], (count, 1))
    radius = np.exp(rng.uniform(-12, 1.5, (count, d))) * (rng.random((count, d)) < 0.9)
    return centre - radius, centre + radius


def within(rng: np.random.Generator, low: Host, high: Host, points: int) -> Host:
    """Points (points, cells, d) of boxes: uniform, and corners."""
    t = rng.random((points, *low.shape))
    t[: points // 3] = np.round(t[: points // 3])
    return np.clip(low + t * (high - low), low, high)


def sampled(rng: np.random.Generator, branch: ir.Branch, count: int, points: int = 12) -> tuple[int, float]:
    """Check J at points and Δg of pairs of `count` boxes; return how many entries, and the largest share of Q that was met."""
    d, p = branch.event_shape[0], branch.norm
    enclosure, (low, high) = Enclosure(branch.layers, (d,), p), cells(rng, count, d)
    bound, (middle, spread, margin) = enclosure.over(low, high), enclosure.enclosed(low, high)
    x = within(rng, low, high, points)
    flat = x.reshape(-1, d)
    wide = branch.with_parameters({name: np.asarray(a, dtype=np.float64) for name, a in branch.parameters().items()})
    y, chain = wide.linearize(flat)
    j = np.asarray(chain.dense()).reshape(points, count, d, d)
    size = 1e-12 * (1.0 + np.abs(j).max(axis=(0, 2, 3)))  # far above the rounding of what is compared with, far below Q of all but points
    off = np.abs(j - middle) - margin
    assert (off <= spread + size[:, None, None]).all()
    seen = np.linalg.norm(j, p, axis=(2, 3)).max(axis=0)
    assert (seen <= bound + size).all()
    y = np.asarray(y).reshape(points, count, d)
    step, change = (np.linalg.norm(a[1:] - a[:-1], p, axis=2) for a in (x, y))
    noise = 1e-12 * (1.0 + np.abs(y).max(axis=(0, 2)))
    assert (change <= bound * step + noise).all()
    return off.size, float((np.maximum(off, 0.0) / (spread + 1e-9)).max())


@pytest.mark.parametrize("seed", range(24))
def test_no_jacobian_and_no_pair_of_points_exceeds_what_is_proved_of_its_box(seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert sampled(rng, random_branch(rng, norm=(2.0, 2.0, 1.0, math.inf)[seed % 4]), 40)[0] > 0


@pytest.mark.thorough
@pytest.mark.parametrize("block", range(10))
def test_ten_thousand_boxes_against_sampling(block: int) -> None:
    share = 0.0
    for seed in range(40):
        rng = np.random.default_rng(10_000 + 40 * block + seed)
        share = max(share, sampled(rng, random_branch(rng, norm=(2.0, 2.0, 1.0, math.inf)[seed % 4]), 60, 40)[1])
    assert share > 0.9  # Q is reached: nothing much smaller would hold


@pytest.mark.parametrize("name", sorted(EVERY))
def test_slopes_between_two_points_hold_and_are_sharp(name: str) -> None:
    """Of 2,000 intervals: φ′ at 64 points lies within, and where turns are known what is claimed is the range of φ′ up to its jumps."""
    rng, phi = np.random.default_rng(0), EVERY[name]
    middle = rng.uniform(-6, 6, 2000) * rng.choice([0.3, 1.0, 20.0], 2000)
    half = np.exp(rng.uniform(-9, 2, 2000))
    low, high = middle - half, middle + half
    least, largest = phi.slopes_between(low, high)
    z = np.linspace(low, high, 64)
    slope = phi.both(z)[1]
    assert (slope >= least - 1e-14).all()
    assert (slope <= largest + 1e-14).all()
    quotient = np.diff(phi.value(z), axis=0) / np.diff(z, axis=0)
    noise = 1e-14 * (1.0 + np.abs(z).max(axis=0)) / half * 64
    assert (quotient >= least - noise).all()
    assert (quotient <= largest + noise).all()
    excess = (largest - least) - (slope.max(axis=0) - slope.min(axis=0))
    assert np.median(excess) < 1e-2
    assert phi.slopes_between(np.asarray([-math.inf]), np.asarray([math.nan])) == tuple(np.asarray([e]) for e in phi.slope_interval)


def test_an_extremum_is_never_missed_for_rounding() -> None:
    """cos at multiples of π however far out: the interval around kπ holds it although no float is there."""
    sine = ir.activations.get("sine")
    k = np.concatenate([np.arange(-2000.0, 2000.0), 10.0 ** np.arange(4, 15), 2.0 ** np.arange(5, 50)])
    with bits(256):
        exact = [arb(int(n)) * arb.pi() for n in k]
        near = np.asarray([float(p.mid()) for p in exact])
        beyond = np.asarray([bool(f > p) for f, p in zip(near.tolist(), exact, strict=True)])
    low = np.where(beyond, np.nextafter(near, -math.inf), near)
    high = np.where(beyond, near, np.nextafter(near, math.inf))
    least, largest = sine.slopes_between(low, high)
    odd = np.mod(k, 2.0) == 1.0
    held = np.where(odd, least == -1.0, largest == 1.0)
    assert held.all()
    least, largest = sine.slopes_between(near + 0.3, near + 3.0)
    inside = (np.abs(k) < 1e6) & odd
    assert (least[inside] > -1.0).all()


@pytest.mark.parametrize("name", sorted(SLOPES))
def test_the_slope_at_a_point_is_enclosed_in_balls(name: str) -> None:
    z = np.concatenate([np.random.default_rng(0).uniform(-30, 30, 200), np.logspace(-12, 1, 30), -np.logspace(-12, 1, 30)])
    least, largest = ir.activations.get(name).slopes_between(z, z)
    with bits(256):
        for point, low, high in zip(z.tolist(), least.tolist(), largest.tolist(), strict=True):
            exact = SLOPES[name](arb(point))
            assert bool(exact >= low)
            assert bool(exact <= high)


def test_every_activation_of_the_package_states_its_turns() -> None:
    assert not [name for name, phi in EVERY.items() if phi.turns is None]


def test_user_activations_without_turns_have_their_global_slopes() -> None:
    plain = ir.activations.Activation("cube root of nothing", np.tanh, lambda z: (np.tanh(z), 1 - np.tanh(z) ** 2), np.cos, 1.0)
    least, largest = plain.slopes_between(np.asarray([5.0]), np.asarray([6.0]))
    assert (float(least[0]), float(largest[0])) == (-1.0, 1.0)


@pytest.mark.parametrize("offset", [0.0, 1e8])
@pytest.mark.parametrize("seed", range(8))
def test_jacobians_in_balls_lie_in_the_enclosure_of_their_point(seed: int, offset: float) -> None:
    """A box of one point leaves only rounding: |J − P| ≤ Q + ε entry by entry, J exact in 256 bits, and Q + ε is that small."""
    rng = np.random.default_rng(seed)
    name, d, n = sorted(SLOPES)[seed % len(SLOPES)], int(rng.integers(1, 4)), int(rng.integers(2, 24))
    layers = [affine(rng, n, d, 2.0), Pointwise(ir.activations.get(name)), affine(rng, n, n, 1.5), Pointwise(ir.activations.get(name))]
    first = layers[0].weight  # type: ignore[union-attr]  # a dense layer
    layers[0] = Affine(first, -offset * first.sum(axis=1))  # far out W x + b cancels: its rounding turns the slope
    branch = ir.Branch((*layers, affine(rng, d, n, 1.0)), (d,))
    x = offset + rng.standard_normal((3, d))
    middle, spread, margin = Enclosure(branch.layers, (d,), 2.0).enclosed(x, x)
    with bits(256):
        inputs = evaluate(branch, columns(x))[1]
        for row in range(len(x)):
            j = columns(branch.layers[0].weight.T)  # type: ignore[attr-defined]  # a dense layer
            for v, layer in zip(inputs, branch.layers[2::2], strict=True):
                slopes = entrywise(SLOPES[name], arb_mat([[v[i, row]] for i in range(n)]))
                j = columns(layer.weight.T) * arb_mat([[slopes[i, 0] * j[i, k] for k in range(d)] for i in range(n)])  # type: ignore[attr-defined]
            for i in range(d):
                for k in range(d):
                    allowed = float(np.broadcast_to(spread, (3, d, d))[row, i, k]) + margin
                    centre = float(np.broadcast_to(middle, (3, d, d))[row, i, k])
                    assert bool(abs(j[i, k] - centre) <= allowed)
                    assert allowed < 1e-10 * (1 + offset) or name == "relu"


@pytest.mark.parametrize("seed", range(12))
def test_what_each_activation_may_change_is_enclosed_layer_by_layer(seed: int) -> None:
    """|(S_i − D_i)T_i| ≤ δ_i(|P_i| + Q_i) at points of the box, at every activation of a deep branch; some of it is reached."""
    rng = np.random.default_rng(seed)
    phi, d, n = EVERY[("sine", "silu", "leaky relu -2", "tanh")[seed % 4]], 2, 8
    linear = [affine(rng, n, d, 1.0), *(affine(rng, n, n, 1.0) for _ in range(3)), affine(rng, d, n, 1.0)]
    layers: list[Any] = [linear[0]]
    for layer in linear[1:]:
        layers += [Pointwise(phi), layer]
    centre, radius = rng.standard_normal((16, d)), np.exp(rng.uniform(-4, 0.5, (16, d)))
    spreads = Enclosure(tuple(layers), (d,), 2.0)._forward(centre, radius)[2]
    assert len(spreads) == 4
    v = within(rng, centre - radius, centre + radius, 60)
    v, t = linear[0](v.reshape(-1, d)).reshape(60, 16, n), np.broadcast_to(linear[0].weight.T[:, None, None, :], (d, 60, 16, n))
    for (middle, spread), layer in zip(spreads, linear[1:], strict=True):
        slope = phi.both(v)[1]
        off = np.abs((slope - middle) * t)
        assert (off <= spread[:, None] * (1 + 1e-12) + 1e-12).all()
        t, v = (slope * t) @ layer.weight.T, phi.value(v) @ layer.weight.T + layer.bias


def test_the_constant_of_a_sine_is_found_on_every_interval() -> None:
    """g = sin has Lip = max |cos|, by formula: at the ends, or 1 where a multiple of π lies between."""
    rng = np.random.default_rng(3)
    branch = ir.Branch((Affine(np.eye(1), np.zeros(1)), Pointwise(ir.activations.get("sine"))), (1,))
    for low, high in np.sort(rng.uniform(-9, 9, (40, 2)) * rng.choice([0.05, 1.0], (40, 1)), axis=1):
        exact = 1.0 if math.floor(high / math.pi) >= math.ceil(low / math.pi) else max(abs(math.cos(low)), abs(math.cos(high)))
        found = ir.certify(branch, within=(np.asarray([low]), np.asarray([high])), slack=0.01)
        assert exact <= found.bound <= 1.011 * exact
        assert found.met <= exact * (1 + 1e-15)


def search(branch: ir.Branch, box: float, rng: np.random.Generator, starts: int = 4096, rounds: int = 60) -> float:
    """Return the largest ‖J‖ that random ascent from many starts finds in [−box, box]ᵈ."""
    d = branch.event_shape[0]
    x = rng.uniform(-box, box, (starts, d))
    norm = lambda z: np.linalg.norm(np.asarray(branch.jacobian(z).dense()), 2, axis=(1, 2))  # noqa: E731
    best = norm(x)
    top = np.argsort(-best)[:256]
    x, best, step = x[top], best[top], np.full((256, 1), 0.1 * box)
    for _ in range(rounds):
        trial = np.clip(x + step * rng.standard_normal(x.shape), -box, box)
        value = norm(trial)
        better = (value > best)[:, None]
        x, best, step = np.where(better, trial, x), np.maximum(best, value), np.where(better, 1.2 * step, 0.8 * step)
    return float(best.max())


def test_a_planar_sine_block_is_within_five_percent_of_search() -> None:
    branch = ir.mlp((2, 32, 32, 2), activation="sine", lipschitz=0.97, seed=0)
    found = ir.certify(branch, within=(-10 * np.ones(2), 10 * np.ones(2)))
    assert found.bound <= 1.05 * found.met
    assert search(branch, 10.0, np.random.default_rng(0), 1024, 30) * (1 - 1e-12) <= found.bound < 0.5 * branch.product.bound


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["sine", "elu", "lipswish", "gelu"])
def test_planar_blocks_on_a_wide_box_within_five_percent_of_search(name: str, seed: int) -> None:
    branch = ir.mlp((2, 64, 64, 2), activation=name, lipschitz=0.97, seed=seed)
    start = time.process_time()
    found = ir.certify(branch, within=(-30 * np.ones(2), 30 * np.ones(2)))
    assert time.process_time() - start < 10.0
    seen = search(branch, 30.0, np.random.default_rng(seed))
    assert seen * (1 - 1e-12) <= found.bound <= 1.05 * max(seen, found.met)


def test_where_all_kinks_meet_in_a_point_the_search_ends_and_says_so() -> None:
    """ReLU without biases: every box around 0 has all slopes in [0, 1], however small it is."""
    branch = ir.mlp((2, 16, 16, 2), activation="relu", seed=0)
    parameters = {name: 0 * p if name.endswith("bias") else p for name, p in branch.parameters().items()}
    found = ir.certify(branch.with_parameters(parameters), within=(-np.ones(2), np.ones(2)))
    assert 1.05 * found.met < found.bound
    assert found.cells < CELLS - 1  # without a finest box all of them
    assert "no halving helps where kinks meet" in found.reason


def test_no_product_of_one_sided_slopes_at_a_kink_is_met() -> None:
    """relu(x + 1) − relu(x) + relu(−x) is 1 on [−½, ½]; with relu′(0) = 0 the chain has slope 1 at 0, which no pair of points has."""
    inner = Affine(np.asarray([[1.0], [1.0], [-1.0]]), np.asarray([1.0, 0.0, 0.0]))
    outer = Affine(np.asarray([[1.0, -1.0, 1.0]]), np.zeros(1))
    branch = ir.Branch((inner, Pointwise(ir.activations.get("relu")), outer), (1,))
    found = ir.certify(branch, within=(-0.5 * np.ones(1), 0.5 * np.ones(1)), cells=64)
    assert float(branch(np.asarray([[0.5]]))[0, 0]) == float(branch(np.asarray([[-0.5]]))[0, 0])
    assert found.met == 0.0 < found.bound


def test_the_budget_always_ends_and_more_of_it_never_proves_less() -> None:
    branch = ir.mlp((3, 16, 3), activation="sine", lipschitz=0.9, seed=1)
    box = (-5 * np.ones(3), 5 * np.ones(3))
    bounds = []
    for budget in (1, 2, 7, 64, 1000):
        found = ir.certify(branch, within=box, slack=0.0, cells=budget)
        assert found.cells <= budget
        assert "budget" in found.reason or "evaluation" in found.reason or "no less" in found.reason
        bounds.append(found.bound)
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] <= branch.certificate.bound
    assert bounds[-1] < bounds[0]


def test_one_evaluation_in_many_dimensions() -> None:
    """A ball of radius .01 around a point: the constant there, from one box, where everywhere it is .9."""
    branch = ir.mlp((64, 128, 64), activation="sine", lipschitz=0.9)
    x = np.random.default_rng(0).standard_normal(64)
    found = ir.certify(branch, within=(x - 0.01, x + 0.01))
    assert found.cells == 1
    assert found.met <= found.bound < 0.8


@pytest.mark.parametrize("padding", ["zero", "circular"])
def test_convolutions_are_read_too(padding: Any) -> None:
    rng = np.random.default_rng(0)
    branch = ir.convnet((2, 4, 4), channels=3, activation="sine", padding=padding)
    x = rng.standard_normal((2, 4, 4))
    found = ir.certify(branch, within=(x - 0.05, x + 0.05))
    assert found.met <= found.bound < branch.certificate.bound
    inside = np.clip(x + rng.uniform(-0.05, 0.05, (50, 2, 4, 4)), x - 0.05, x + 0.05)
    assert np.linalg.norm(np.asarray(branch.jacobian(inside).dense()), 2, axis=(1, 2)).max() <= found.bound
    assert isinstance(branch.layers[0], Conv)


@pytest.mark.parametrize("make", [lambda: ir.densenet(2, depth=2, growth=4), lambda: ir.mlp((2, 8, 2), activation="maxmin")])
def test_what_is_not_read_keeps_the_bound_that_holds_everywhere_and_says_why(make: Any) -> None:
    branch = make()
    found = ir.certify(branch, within=(-np.ones(2), np.ones(2)))
    assert found.bound == branch.certificate.bound
    assert any(f"none is known of {layer.name}" in found.reason for layer in branch.layers)
    assert isinstance(branch.layers[1], GroupSort) or branch.layers[0].name.startswith("concatenation")


def test_huge_weights_and_boxes_are_refused_and_never_wrong() -> None:
    rng = np.random.default_rng(0)
    branch = ir.Branch((affine(rng, 4, 2, 1e200), Pointwise(ir.activations.get("sine")), affine(rng, 2, 4, 1e200)), (2,))
    assert not ir.certify(branch, within=(-np.ones(2), np.ones(2))).proved
    branch = ir.mlp((2, 8, 2), activation="sine")
    far = 1e308 * np.ones(2)
    assert ir.certify(branch, within=(-far, far), cells=64).bound == branch.certificate.bound
    tiny = ir.certify(branch, within=(np.zeros(2), 5e-324 * np.ones(2)))
    assert tiny.met <= tiny.bound <= 1.001 * tiny.met


@pytest.mark.parametrize(
    ("box", "error", "told"),
    [
        ((np.zeros(2), -np.ones(2)), ValueError, r"expected lower ≤ upper, got 0 > -1 at \(0,\); try"),
        ((np.zeros(2), np.asarray([1.0, np.nan])), NonFiniteError, "expected a bounded box, got NaN or infinity; try"),
        ((-np.full(2, np.inf), np.zeros(2)), NonFiniteError, "expected a bounded box"),
        ((np.zeros(3), np.ones(3)), ShapeError, r"expected the shape \(2,\) of an event, got \(3,\); try"),
        ((np.zeros((1, 2)), np.ones((1, 2))), ShapeError, "expected the shape"),
        ((np.zeros(2, dtype=np.float32), np.ones(2, dtype=np.float32)), DTypeError, "float32"),
        ((0.0, 1.0), DTypeError, "expected an array"),
        (np.zeros(2), ShapeError, r"within\[0\]: expected the shape"),
        (np.zeros(3), DTypeError, "within: expected 2 entries, got 3"),
    ],
)
def test_boxes_that_make_no_sense_are_refused(box: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        ir.certify(ir.mlp((2, 8, 2)), within=box)


@pytest.mark.parametrize("options", [{"slack": -0.1}, {"slack": math.nan}, {"cells": 0}])
def test_options_that_make_no_sense_are_refused(options: Any) -> None:
    with pytest.raises(ValueError, match="expected 0 ≤ slack < inf and cells ≥ 1"):
        ir.certify(ir.mlp((2, 8, 2)), within=(np.zeros(2), np.ones(2)), **options)


def loud(seed: int = 0) -> ir.ResidualBlock:
    """A block of product 1.8, so that nothing is proved everywhere, contractive around 0 and not far from it."""
    g = ir.mlp((2, 16, 2), activation="sine", lipschitz=0.9, seed=seed)
    parameters = g.parameters()
    names = [name for name in parameters if name.endswith("weight")]
    return ir.ResidualBlock(g.with_parameters({**parameters, names[-1]: 2.0 * parameters[names[-1]]}))


def test_an_inverse_on_a_box_has_a_proved_ball_where_nothing_holds_everywhere() -> None:
    block, rng = loud(), np.random.default_rng(0)
    with pytest.raises(NotContractiveError):
        ir.invert(block, np.zeros((1, 2)))
    box = ir.certify(block, within=(-3 * np.ones(2), 3 * np.ones(2)))
    assert box.bound < 1.0 < block.certificate.bound
    x = rng.uniform(-2.5, 2.5, (200, 2))
    y = block(x)
    found = ir.invert(ir.ResidualBlock(block.branch, box.bound), y, rtol=1e-12).x
    ball = ir.bounds.inverse_ball(block, found, y, within=box)
    assert ball.inside is not None
    assert ball.inside.all()
    assert np.max(ball.radius) < 1e-11
    # x was rounded to y: F(x) is off by half a unit of y, which moves the preimage by that over 1 − K
    assert (np.linalg.norm(found - x, axis=1) <= ball.radius + 4 * 2.0**-53 * 6 / (1 - box.bound)).all()
    assert "in which all balls lie" in ball.reason
    moved = found + rng.uniform(-0.1, 0.1, found.shape)
    wide = ir.bounds.inverse_ball(block, moved, y, within=box)
    held = np.isfinite(wide.radius)
    assert (np.linalg.norm(moved - x, axis=1)[held] <= wide.radius[held] + 1e-12).all()
    assert held.mean() > 0.8


def test_a_ball_that_leaves_the_box_proves_nothing_and_says_so() -> None:
    block = loud()
    box = ir.certify(block, within=(-np.ones(2), np.ones(2)))
    x = np.asarray([[0.0, 0.0], [1.0, 0.0], [0.999, 0.2], [5.0, 5.0]])
    ball = ir.bounds.inverse_ball(block, x, block(x) + 1e-2, within=box)
    assert ball.inside is not None
    assert ball.inside.tolist() == [True, False, False, False]
    assert np.isfinite(ball.radius).tolist() == [True, False, False, False]
    assert "3 rows, the first of them 1," in ball.reason
    assert "not proved everywhere" in ball.reason


def test_outside_of_the_box_the_constant_of_the_whole_space_is_used() -> None:
    block = ir.ResidualBlock(ir.mlp((2, 16, 2), activation="sine", lipschitz=0.97))
    box = ir.certify(block, within=(-np.ones(2), np.ones(2)))
    x = np.asarray([[0.1, 0.2], [4.0, 0.0]])
    y = block(x) + 1e-3
    plain, local = ir.bounds.inverse_ball(block, x, y), ir.bounds.inverse_ball(block, x, y, within=box)
    assert float(local.radius[0]) < 0.5 * float(plain.radius[0])
    assert float(local.radius[1]) == float(plain.radius[1])


def test_a_constant_of_one_or_more_on_the_box_gives_no_ball() -> None:
    block = loud()
    scaled = {name: 3.0 * p if name.endswith("weight") else p for name, p in block.branch.parameters().items()}
    steep = ir.ResidualBlock(block.branch.with_parameters(scaled))
    box = ir.certify(steep, within=(-3 * np.ones(2), 3 * np.ones(2)), cells=64)
    assert box.bound >= 1.0
    ball = ir.bounds.inverse_ball(steep, np.zeros((1, 2)), steep(np.zeros((1, 2))), within=box)
    assert np.isinf(ball.radius).all()
    assert "nothing below 1" in ball.reason


def test_a_certificate_of_another_branch_is_refused() -> None:
    block, other = loud(0), loud(1)
    sides = (-np.ones(2), np.ones(2))
    zero = np.zeros((1, 2))
    twin = ir.ResidualBlock(block.branch.with_parameters(block.branch.parameters()))
    in_another_norm = ir.ResidualBlock(ir.Branch(block.branch.layers, (2,), 1.0))
    for stranger in (other, twin, in_another_norm):
        with pytest.raises(ValueError, match="expected a certificate of this very branch"):
            ir.bounds.inverse_ball(block, zero, zero, within=ir.certify(stranger, within=sides))


def test_other_frameworks_and_dtypes_are_read_exactly() -> None:
    torch = pytest.importorskip("torch")
    wide = ir.mlp((2, 16, 2), activation="sine", like=np.zeros(1, dtype=np.float32))
    ours = ir.certify(wide, within=(-np.ones(2, dtype=np.float32), np.ones(2, dtype=np.float32)))
    moved = ir.mlp((2, 16, 2), activation="sine", like=torch.zeros(1))
    theirs = ir.certify(moved, within=(-torch.ones(2), torch.ones(2)))
    assert (ours.bound, ours.cells) == (theirs.bound, theirs.cells)
    x = torch.zeros((1, 2))
    ball = ir.bounds.inverse_ball(ir.ResidualBlock(moved), x, moved(x) + x, within=theirs)
    assert float(ball.radius[0]) < 1e-6


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
def test_norms_of_stacks_are_above_and_close(p: float) -> None:
    rng = np.random.default_rng(0)
    for m, n in ((2, 2), (3, 3), (1, 4), (5, 2), (16, 16)):
        stack = rng.standard_normal((64, m, n)) * np.exp(rng.uniform(-300, 300, (64, 1, 1)))
        stack[::7] = stack[::7, :, :1] * stack[::7, :1, :] / np.abs(stack[::7]).max(axis=(1, 2), keepdims=True)  # rank one
        exact = np.linalg.norm(stack, p, axis=(1, 2))
        for found, true in ((stack_norm_bounds(stack, p), exact),
                            (nonnegative_norm_bounds(np.abs(stack), p), np.linalg.norm(np.abs(stack), p, axis=(1, 2)))):  # fmt: skip
            assert (found >= true * (1 - 1e-14)).all()
        assert (stack_norm_bounds(stack, p) <= exact * 1.002 + 2.0**-999).all()
    assert np.isinf(stack_norm_bounds(np.full((1, 2, 2), np.nan), p)).all()
    assert np.isinf(stack_norm_bounds(np.full((1, 2, 2), np.inf), p)).all()
