"""Incremental quadratic constraints: nothing false is proved, no bound is below what slopes or inputs reach, and the solver is good."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from constraint_oracles import exactly_semidefinite, reached, second_solver

import iresnet_ref as ir
from iresnet_ref.branches.certificates import tightest
from iresnet_ref.branches.certificates.barrier import first
from iresnet_ref.branches.certificates.elimination import descend
from iresnet_ref.branches.certificates.multipliers import best_multipliers
from iresnet_ref.branches.certificates.network import UnreadableError, network_of
from iresnet_ref.branches.certificates.quadratic import LIPSCHITZ, Quadratic
from iresnet_ref.layers.concatenation import Concatenation
from iresnet_ref.layers.diagonal import DiagonalAffine
from iresnet_ref.layers.linear import Affine, Conv
from iresnet_ref.layers.parallel import Parallel
from iresnet_ref.layers.pointwise import Pointwise
from iresnet_ref.layers.rearrangement import Rearrangement
from iresnet_ref.layers.sorting import GroupSort
from iresnet_ref.layers.swish import silu

Host = np.ndarray[Any, Any]
NAMES = ["elu", "relu", "lipswish", "gelu", "sine", "sigmoid", "hardswish"]


def affine(weight: Host) -> Affine:
    return Affine(weight, np.zeros(len(weight), dtype=weight.dtype))


def chain(weights: list[Host], phi: Any) -> ir.Branch:
    """The branch W_L φ(⋯ φ(W₁x)), whatever its norm."""
    layers: list[Any] = [affine(weights[0])]
    for w in weights[1:]:
        layers += [Pointwise(phi), affine(w)]
    return ir.Branch(tuple(layers), (weights[0].shape[1],))


def problem_of(branch: ir.Branch) -> Quadratic:
    return Quadratic(network_of(branch.layers, branch.event_shape))


def proved(problem: Quadratic, gap: float = 1e-3) -> tuple[float, Host, float]:
    """Return (the bound, τ, ρ)."""
    centre = best_multipliers(problem, LIPSCHITZ, gap)
    assert centre is not None
    rho = problem.prove_least(LIPSCHITZ, centre.tau)
    return problem.root(rho), centre.tau, rho


def random_net(rng: np.random.Generator, widest: int = 12, dtype: Any = np.float64) -> tuple[list[Host], ir.activations.Activation]:
    depth, d = int(rng.integers(2, 5)), int(rng.integers(1, 7))
    sizes = [d, *rng.integers(1, widest + 1, depth - 1).tolist(), d]
    weights = [(rng.standard_normal((m, n)) * math.exp(0.7 * rng.standard_normal()) / math.sqrt(n)).astype(dtype)
               for n, m in pairwise(sizes)]
    extra = [ir.activations.leaky_relu(0.2), ir.activations.leaky_relu(-0.5), ir.activations.elu(2.0), silu(3.0)]
    phi = extra[int(rng.integers(4))] if rng.random() < 0.3 else ir.activations.get(NAMES[int(rng.integers(len(NAMES)))])
    return weights, phi


def compare(weights: list[Host], phi: ir.activations.Activation, rng: np.random.Generator) -> float:
    """Check one net and return its bound over the product's: M ≻ 0 in balls, above what slopes reach, never above the product."""
    branch = chain(weights, phi)
    problem = problem_of(branch)
    bound, tau, rho = proved(problem)
    assert exactly_semidefinite(problem, LIPSCHITZ, tau, rho) is True
    least = problem.least(LIPSCHITZ, tau)
    assert not problem.proves(LIPSCHITZ, tau, least - 1e-9 * abs(least))
    doubles = [w.astype(np.float64) for w in weights]
    seen = reached(doubles, [phi.slope_interval] * (len(weights) - 1), rng, tries=2, rounds=8)["lipschitz"]
    certificate = ir.certify(branch)
    assert seen * (1 - 1e-12) <= certificate.bound <= branch.product.bound
    assert bound >= seen * (1 - 1e-12)
    return certificate.bound / branch.product.bound


@pytest.mark.parametrize("seed", range(12))
def test_random_networks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    compare(*random_net(rng, dtype=np.float32 if seed % 3 == 0 else np.float64), rng)


@pytest.mark.thorough
@pytest.mark.parametrize("block", range(10))
def test_a_thousand_branches_against_search(block: int) -> None:
    ratios = []
    for seed in range(100 * block, 100 * block + 100):
        rng = np.random.default_rng(1000 + seed)
        ratios.append(compare(*random_net(rng, 24, np.float32 if seed % 3 == 0 else np.float64), rng))
    assert np.median(ratios) < 0.9


def orthogonal(n: int, rng: np.random.Generator) -> Host:
    return np.linalg.qr(rng.standard_normal((n, n)))[0]


def adversarial() -> dict[str, list[Host]]:
    """Weights at the edges of what arithmetic and the solver can do."""
    rng = np.random.default_rng(1)

    def r(m: int, n: int) -> Host:
        return rng.standard_normal((m, n)) / math.sqrt(n)

    dead, deaf = r(12, 4), r(4, 12)
    dead[3] = 0.0
    tiny = np.where(rng.random((12, 4)) < 0.5, 5e-324, r(12, 4))
    tiny[:, 0] = 0.5
    deaf[:, 5] = 0.0
    deaf[2] = 0.0
    grades = np.logspace(-12, 12, 12)
    return {
        "rank one": [np.outer(rng.standard_normal(m), rng.standard_normal(n)) for m, n in ((12, 4), (12, 12), (4, 12))],
        "1e40 and 1e-40": [r(12, 4) * 1e40, r(4, 12) * 1e-40],
        "all 1e-40": [r(12, 4) * 1e-40, r(4, 12) * 1e-40],
        "rows over 24 magnitudes": [r(12, 4) * grades[:, None], r(4, 12) / grades],
        "orthogonal": [orthogonal(8, rng) for _ in range(3)],
        "nearly orthogonal": [orthogonal(8, rng) + 1e-9 * r(8, 8), orthogonal(8, rng)],
        "identity": [np.eye(4), np.eye(4)],
        "minus the identity": [np.eye(4), -np.eye(4)],
        "zero rows and columns": [dead, deaf],
        "subnormal entries": [tiny, r(4, 12)],
        "one unit": [r(1, 4), r(4, 1)],
        "float32": [r(12, 4).astype(np.float32), r(4, 12).astype(np.float32)],
    }


@pytest.mark.parametrize("name", adversarial())
@pytest.mark.parametrize("activation", ["elu", "lipswish", "sine"])
def test_adversarial_weights(name: str, activation: str) -> None:
    compare(adversarial()[name], ir.activations.get(activation), np.random.default_rng(0))


def test_slopes_that_hardly_vary_or_exclude_zero() -> None:
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((12, 4)) / 2, rng.standard_normal((4, 12)) / 4]
    for slopes in ((1.0, 1.0 + 1e-9), (0.3, 1.2), (-2.0, -1.0)):
        phi = ir.activations.Activation("stated", lambda z: z, lambda z: (z, z), lambda z: z, max(map(abs, slopes)), slopes=slopes)
        compare(weights, phi, rng)


def test_weights_out_of_range_keep_the_product() -> None:
    rng = np.random.default_rng(0)
    for scale in (1e60, 1e150, 1e-200):
        branch = chain([rng.standard_normal((6, 2)) * scale, rng.standard_normal((2, 6)) / scale / 8], ir.activations.get("elu"))
        assert ir.certify(branch).bound == branch.product.bound
        assert "too many magnitudes" in ir.certify(branch).reason


def test_a_last_layer_of_zeros_is_zero() -> None:
    branch = chain([np.ones((3, 2)), np.zeros((2, 3))], ir.activations.get("elu"))
    assert ir.certify(branch).bound == 0.0


@pytest.mark.parametrize("activation", ["elu", "lipswish", "sine"])
@pytest.mark.parametrize("sizes", [(2, 16, 2), (8, 12, 12, 8), (3, 6, 6, 6, 3), (1, 20, 1)])
def test_the_solver_is_within_a_thousandth_of_another_one(sizes: tuple[int, ...], activation: str) -> None:
    """Clarabel solves the same problem to about 1e-6: no proved bound is below its optimum, none 2e-3 above."""
    pytest.importorskip("clarabel")
    problem = problem_of(ir.mlp(sizes, activation=activation, seed=3))
    optimum = math.ldexp(math.sqrt(second_solver(problem, LIPSCHITZ)), problem.exponent)
    assert (1 - 1e-5) * optimum <= proved(problem)[0] <= (1 + 2e-3) * optimum


def test_a_matrix_off_by_little_is_not_proved() -> None:
    """At multipliers of every kind: what is proved is positive definite in balls, and 1e-9 below the least ρ nothing is proved."""
    rng = np.random.default_rng(5)
    problem = problem_of(ir.mlp((4, 8, 8, 4), activation="lipswish", seed=1))
    tau = proved(problem)[1]
    proofs = 0
    for case in range(60):
        t = tau * np.exp([0.0, 1e-3, 0.1, 1.0, 5.0][case % 5] * rng.standard_normal(len(tau)))
        t[rng.random(len(t)) < [0.0, 0.1][case % 2]] *= [0.0, 1e-30, 1e25][case % 3]
        rho = problem.prove_least(LIPSCHITZ, t)
        if math.isfinite(rho):
            proofs += 1
            assert exactly_semidefinite(problem, LIPSCHITZ, t, rho) is True
            least = problem.least(LIPSCHITZ, t)
            assert not problem.proves(LIPSCHITZ, t, least - 1e-9 * abs(least))
    assert proofs >= 20


@pytest.mark.parametrize("activation", ["elu", "lipswish", "sine"])
def test_the_least_rho_that_is_proved_is_truly_enough(activation: str) -> None:
    """Down to the last ρ that passes, by bisection: without its shift the factorisation would pass half the time below the truth."""
    for seed in range(6):
        problem = problem_of(ir.mlp((3, 10, 10, 3), activation=activation, seed=seed))
        _, tau, above = proved(problem)
        below = problem.least(LIPSCHITZ, tau) * (1 - 1e-11)
        for _ in range(60):
            middle = 0.5 * (below + above)
            below, above = (below, middle) if problem.proves(LIPSCHITZ, tau, middle) else (middle, above)
        assert exactly_semidefinite(problem, LIPSCHITZ, tau, above) is True


def test_multipliers_that_are_no_multipliers_prove_nothing() -> None:
    problem = problem_of(ir.mlp((2, 4, 2), activation="elu"))
    tau = proved(problem)[1]
    for bad in (-tau, np.full_like(tau, np.nan), np.full_like(tau, np.inf), np.full_like(tau, 1e40)):
        assert not problem.proves(LIPSCHITZ, bad, 4.0)
    assert not problem.proves(LIPSCHITZ, tau, math.nan)


def test_both_solvers_agree() -> None:
    problem = problem_of(ir.mlp((24, 32, 24), activation="elu", seed=2))
    at = first(problem, LIPSCHITZ)
    assert at is not None
    assert descend(problem, LIPSCHITZ, at).rho == pytest.approx(proved(problem)[2], rel=5e-3)


# Layers that are more than a chain


def largest_of_jacobians(branch: ir.Branch, rng: np.random.Generator, rows: int = 200) -> float:
    """‖J_g‖ at many points of several scales: no certificate may be below."""
    best = 0.0
    for scale in (0.1, 1.0, 10.0):
        x = scale * rng.standard_normal((rows, *branch.event_shape))
        best = max(best, float(np.linalg.norm(branch.jacobian(x).dense(), 2, axis=(1, 2)).max()))
    return best


def branches() -> dict[str, ir.Branch]:
    rng = np.random.default_rng(4)

    def w(m: int, n: int) -> Affine:
        return affine(rng.standard_normal((m, n)) / math.sqrt(2 * n))

    elu, lips = Pointwise(ir.activations.get("elu")), Pointwise(ir.activations.get("lipswish"))
    raw = np.asarray([0.3, -1.2])
    return {
        "clipswish": ir.mlp((3, 8, 8, 3), activation="clipswish", seed=1),
        "learnable clipswish": ir.mlp((3, 8, 3), activation="learnable clipswish", seed=1),
        "learnable lipswish": ir.mlp((3, 8, 3), activation="learnable lipswish", seed=1),
        "maxmin": ir.mlp((4, 8, 8, 4), activation="maxmin", seed=1),
        "ascending maxmin": ir.mlp((4, 8, 4), activation=GroupSort(2, descending=False), seed=1),
        "groups of four": ir.mlp((4, 8, 4), activation=GroupSort(4), seed=1),
        "fullsort": ir.mlp((4, 8, 4), activation="fullsort", seed=1),
        "densenet": ir.densenet(3, depth=3, growth=6, seed=1),
        "densenet of elu": ir.densenet(3, depth=2, growth=6, activation="elu", learnable=False),
        "concatenation of two layers": ir.Branch((w(6, 3), Concatenation((elu, w(5, 6), lips), raw), w(3, 11)), (3,)),
        "sum of paths": ir.Branch((w(6, 3), Parallel(((), (elu,), (w(6, 6), lips))), w(3, 6)), (3,)),
        "diagonals and rearrangements": ir.Branch(
            (w(6, 3), DiagonalAffine(rng.standard_normal(6), rng.standard_normal(6)), elu, Rearrangement((6,), (0,), (2, 3)),
             Rearrangement((2, 3), (1, 0), (6,)), w(3, 6)), (3,)
        ),
        "small zero-padded convolution": ir.convnet((2, 4, 4), channels=3, activation="elu", seed=1),
        "circular": ir.convnet((2, 6, 5), channels=6, activation="elu", padding="circular", seed=1),
        "circular clipswish": ir.convnet((2, 6, 5), channels=6, activation="clipswish", padding="circular", seed=1),
        "circular maxmin": ir.convnet((2, 6, 6), channels=6, activation="maxmin", padding="circular", seed=1),
        "circular fullsort": ir.convnet((3, 6, 6), channels=6, activation="fullsort", padding="circular", seed=1),
        "zero-padded": ir.convnet((2, 6, 6), channels=6, activation="elu", seed=1),
        "zero-padded maxmin": ir.convnet((2, 6, 6), channels=6, activation="maxmin", seed=1),
        "zero-padded clipswish": ir.convnet((2, 6, 6), channels=6, activation="clipswish", seed=1),
    }  # fmt: skip


@pytest.mark.parametrize("name", branches())
def test_no_certificate_is_below_a_jacobian(name: str) -> None:
    branch = branches()[name]
    certificate = ir.certify(branch)
    assert largest_of_jacobians(branch, np.random.default_rng(0), 40) <= certificate.bound <= branch.product.bound
    assert certificate.proved
    if name not in ("fullsort", "groups of four", "circular fullsort"):  # there the product may be the less
        assert certificate.bound < 0.97 * branch.product.bound, certificate.reason


def test_the_units_are_those_of_the_layers() -> None:
    """Δv of every unit and Δg of the read network are those of the layers, at exact differences of two points."""
    rng = np.random.default_rng(0)
    checked = 0
    for name, branch in branches().items():
        network = network_of(branch.layers, branch.event_shape)
        if network.copies > 1 or not all(isinstance(la, Affine | Pointwise | Rearrangement | DiagonalAffine) for la in branch.layers):
            continue
        x, y = (rng.standard_normal((1, *branch.event_shape)) for _ in range(2))
        deltas, h = [(x - y).reshape(-1)], [x, y]
        for layer in branch.layers:
            h = [layer(p) for p in h]
            if isinstance(layer, Pointwise):
                deltas.append((h[0] - h[1]).reshape(-1))
        out = sum(a.value[0] @ deltas[j] for j, a in network.output.items())
        assert np.allclose(out, (h[0] - h[1]).reshape(-1), rtol=1e-12, atol=1e-12), name
        checked += 1
    assert checked


def test_frequencies_lose_nothing_against_a_multiplier_for_every_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least ρ with one multiplier a channel and a matrix a frequency is that of the whole operator on a torus, with one a pixel."""
    from iresnet_ref.branches.certificates import network

    branch = ir.convnet((1, 4, 3), channels=2, activation="elu", padding="circular", seed=2)
    whole = proved(problem_of(branch), 1e-5)[0]
    monkeypatch.setattr(network, "WHOLE_UP_TO", 0)
    fast = problem_of(branch)
    assert fast.network.copies > 1
    assert proved(fast, 1e-5)[0] == pytest.approx(whole, rel=2e-4)


def test_zero_padding_on_a_larger_torus_bounds_the_operator_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    from iresnet_ref.branches.certificates import network

    for activation in ("elu", "maxmin", "clipswish"):
        branch = ir.convnet((2, 4, 4), channels=4, activation=activation, seed=2)
        whole = proved(problem_of(branch), 1e-4)[0]
        with monkeypatch.context() as patch:
            patch.setattr(network, "WHOLE_UP_TO", 0)
            embedded = problem_of(branch)
            assert embedded.network.cropped
            assert proved(embedded, 1e-4)[0] >= whole * (1 - 1e-3)


def test_the_embedding_is_refused_where_zero_is_no_slope_or_passes_on_linearly(monkeypatch: pytest.MonkeyPatch) -> None:
    from iresnet_ref.branches.certificates import network

    monkeypatch.setattr(network, "WHOLE_UP_TO", 0)
    kernel = np.random.default_rng(0).standard_normal((2, 2, 3, 3)) / 10
    conv = Conv(kernel, np.zeros(2), (5, 5))
    for middle in ((Pointwise(ir.activations.leaky_relu(0.1)),), (), (Parallel(((), (Pointwise(ir.activations.get("elu")),))),)):
        with pytest.raises(UnreadableError):
            network_of((conv, *middle, conv), (2, 5, 5))
    network_of((conv, Pointwise(ir.activations.get("elu")), conv), (2, 5, 5))


# The certificate


def test_contraction_starts_no_search_and_certify_searches_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(tightest, "best_multipliers", lambda *a, **k: calls.append(1) or best_multipliers(*a, **k))
    block = ir.ResidualBlock(ir.mlp((4, 8, 4), activation="elu"))
    product = block.contraction()
    assert not calls
    best = ir.certify(block).bound
    assert ir.certify(block.branch).bound == best == block.contraction() == block.certificate.bound < product == block.branch.product.bound
    assert len(calls) == 1
    changed = block.branch.with_parameters({k: 1.01 * v for k, v in block.branch.parameters().items()})
    assert changed.certificate.bound == changed.product.bound > best
    assert len(calls) == 1


def test_a_training_step_starts_no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tightest, "best_multipliers", lambda *a, **k: pytest.fail("a solver was started"))
    raw = ir.mlp((2, 8, 2), activation="elu")
    normalised = ir.NormalisedBranch(raw, 0.9)
    block = ir.ResidualBlock(normalised.branch)
    ir.logdet_gradient(block, np.ones((3, 2)))
    ir.invert(block, np.ones((3, 2)))
    ir.logdet(block, np.ones((3, 2)))


def test_the_reason_says_which_bound_it_is_and_why_no_other() -> None:
    assert "quadratic constraints on the slopes of 8 units" in ir.certify(ir.mlp((4, 8, 4), activation="elu")).reason
    assert "no quadratic constraint: it contracts" in ir.certify(ir.mlp((4, 8, 4), activation="elu", norm=1.0)).reason
    assert "there is no activation" in ir.certify(ir.Branch((affine(np.eye(2) / 2),), (2,))).reason
    bad = chain([np.eye(2), np.full((2, 2), np.nan)], ir.activations.get("elu"))
    assert not ir.certify(bad).proved


def test_rotations_are_bounded_by_the_product_alone() -> None:
    """W₁W_LD may be longer than J = W_LDW₁: the hidden iteration and the error of determinants keep the product after `certify`."""
    from iresnet_ref.inversion.hidden import hidden_space

    block = ir.ResidualBlock(ir.mlp((32, 8, 32), activation="elu"))
    before = ir.bounds.logdet_error_bound(block, np.ones((1, 32)))
    ir.certify(block)
    space = hidden_space(block)
    assert space is not None
    assert space.block.lipschitz == block.branch.product.bound > block.contraction()
    assert np.array_equal(before, ir.bounds.logdet_error_bound(block, np.ones((1, 32))))


@pytest.mark.parametrize(
    ("sizes", "activation", "bound"),
    [((64, 128, 64), "elu", 0.60), ((2, 64, 64, 2), "elu", 0.33), ((16, 32, 32, 16), "elu", 0.404),
     ((64, 128, 64), "lipswish", 0.62), ((2, 64, 64, 2), "lipswish", 0.36)],
)  # fmt: skip
def test_untrained_branches_of_product_nine_tenths(sizes: tuple[int, ...], activation: str, bound: float) -> None:
    for seed in (101, 102):
        assert ir.certify(ir.mlp(sizes, activation=activation, lipschitz=0.9, seed=seed)).bound <= bound
