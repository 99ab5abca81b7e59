"""Chord steps with secants from the affine model at the origin: where they are taken, what they spare, and that they break no promise."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from contractive_families import FAMILIES, rotation

import iresnet_backends
import iresnet_ref as ir
from iresnet_ref.branches.affine_model import AffineModel
from iresnet_ref.inversion.chord import Chord
from iresnet_ref.inversion.safeguard import Goal, step_bound
from iresnet_ref.layers.linear import Affine
from iresnet_ref.layers.pointwise import Pointwise


def mlp(d: int, L: float = 0.9, dtype: str = "float64", seed: int = 1) -> ir.ResidualBlock:
    return ir.ResidualBlock(ir.mlp((d, 128, 128, d), activation="elu", lipschitz=L, seed=seed, like=np.zeros(1, dtype=dtype)))


def norm(v: Any) -> Any:
    return np.linalg.norm(v.reshape(len(v), -1).astype(np.float64), axis=1)


def with_model(block: ir.ResidualBlock, inverse: Any) -> ir.ResidualBlock:
    """The same block, whose model claims to be good and has another inverse."""
    fresh = ir.ResidualBlock(block.branch.with_parameters(block.branch.parameters()))
    model = block.branch.affine_model
    assert model is not None
    vars(fresh.branch)["affine_model"] = replace(model, inverse=inverse, misfit=0.0)
    return fresh


def test_an_affine_branch_is_inverted_where_it_starts() -> None:
    rng = np.random.default_rng(0)
    block = ir.ResidualBlock(ir.Branch((Affine(0.3 * np.linalg.qr(rng.standard_normal((5, 5)))[0], rng.standard_normal(5)),), (5,)))
    x = 100.0 * rng.standard_normal((7, 5))
    found = ir.invert(block, block(x), rtol=1e-14)
    assert found.method == "chord"
    assert (found.evaluations == 2).all()
    assert (norm(found.x - x) <= found.error_bound).all()


@pytest.mark.parametrize(("d", "dtype", "rtol", "most"), [(2, "float32", 1e-3, 2), (64, "float32", 1e-4, 3), (64, "float64", 1e-10, 7)])
def test_untrained_networks_take_fewer_evaluations_than_by_banach(d: int, dtype: str, rtol: float, most: int) -> None:
    block = mlp(d, dtype=dtype)
    x = np.random.default_rng(0).standard_normal((256, d)).astype(dtype)
    found, plain = (ir.invert(block, block(x), method, rtol=rtol) for method in ("auto", "banach"))
    assert found.method == "chord"
    assert found.evaluations.max() <= most
    assert 1.4 * found.evaluations.mean() <= plain.evaluations.mean()
    assert (norm(found.x - x) <= found.error_bound).all()


def test_what_is_accepted_at_the_first_look_is_no_farther_than_y() -> None:
    """‖r(x)‖ ≤ ½(1 − L)‖g(x)‖ ⇒ ‖r(x)‖ ≤ ‖r(y)‖ = ‖g(y)‖, whatever x: with equality nearly reached where g is linear."""
    rng, accepted, nearest = np.random.default_rng(0), 0, 0.0
    for L in (0.05, 0.5, 0.9):
        for d in (1, 3):
            block = ir.ResidualBlock(ir.Branch((Affine(L * np.linalg.qr(rng.standard_normal((d, d)))[0], np.zeros(d)),), (d,)))
            x = rng.standard_normal((4000, d))
            g = block.branch(x)
            r = rng.uniform(0.0, 0.5 * (1.0 - L), (4000, 1)) * norm(g)[:, None] * (v := rng.standard_normal((4000, d))) / norm(v)[:, None]
            y = x + g + r
            share = norm(r) / norm(block.branch(y))
            accepted, nearest = accepted + len(x), max(nearest, float(share.max()))
            assert (share <= 1.0 + 1e-12).all()
    assert accepted == 24_000
    assert nearest > 0.5


@pytest.mark.parametrize("check_every", [1, 4, 9])
@pytest.mark.parametrize("factor", [-1.0, 0.0, 1.9, 1e6])
@pytest.mark.parametrize("name", ["rand d=20 c=.9", "ortho d=8 c=.97", "relu ortho d=8 c=.9", "sym− d=64 c=.9"])
def test_a_wrong_model_costs_no_more_than_a_rejected_trial(name: str, factor: float, check_every: int) -> None:
    """A model that claims to be good and is not: every row converges, within the bound for trials of the steps between two looks."""
    block, y = FAMILIES[name].build(iresnet_backends.get("numpy", dtype="float64"))
    wrong = with_model(block, factor * np.eye(y.shape[1]))
    y = np.concatenate([y, 1e3 * y, 1e-3 * y])[: max(96, y.shape[1])]
    found = ir.invert(wrong, y, rtol=1e-10, check_every=check_every)
    assert found.converged.all()
    size = np.maximum(norm(found.x), np.maximum(norm(y), norm(block.branch(found.x))))
    bound = step_bound(norm(block.branch(y)), 1e-10 * size, block.contraction(), max(2, check_every) + check_every)
    assert (found.evaluations <= bound).all()
    without = ir.ResidualBlock(block.branch.with_parameters(block.branch.parameters()))
    vars(without.branch)["affine_model"] = None
    assert found.evaluations.max() <= ir.invert(without, y, rtol=1e-10, check_every=check_every).evaluations.max() + 2 + 2 * check_every
    assert (norm(y - found.x - block.branch(found.x)) <= 1.001e-10 * size).all()


def test_a_row_that_is_its_own_preimage_is_found_at_once_whatever_the_model() -> None:
    """g = −.85(x − c) at y = c, and a model that stays at 0: there ‖r‖/‖g‖ = .15/.85 is small, ‖r(y)‖ = 0 and N = 1."""
    c = np.asarray([3.0, -5.0])
    block = with_model(ir.ResidualBlock(ir.Branch((Affine(-0.85 * np.eye(2), 0.85 * c),), (2,))), np.zeros((2, 2)))
    found = ir.invert(block, c[None, :], rtol=1e-12)
    assert found.evaluations[0] <= step_bound(np.zeros(1), np.ones(1), 0.85, 4 + 4)[0]


@pytest.mark.parametrize("norm_of_events", [1.0, 2.0, math.inf])
def test_a_model_that_ends_where_g_vanishes_takes_no_evaluations_from_a_row(norm_of_events: float) -> None:
    """How many a row may take is counted from ‖r(y)‖ at least, and not from g at the point that the model has led to."""
    turn = rotation(12, np.random.default_rng(0))
    turn *= 0.95 / np.linalg.norm(turn, norm_of_events)
    layers = (Affine(np.eye(12), np.zeros(12)), Pointwise(ir.activations.get("relu")), Affine(turn, np.zeros(12)))
    block = ir.ResidualBlock(ir.Branch(layers, (12,), norm_of_events))
    y = block(np.random.default_rng(1).uniform(1.0, 2.0, (20, 12)))
    assert (y > 0.0).any()
    wrong = with_model(block, -1e3 * np.eye(12))
    assert ir.invert(wrong, y, rtol=1e-12).converged.all()


def test_a_model_by_which_residuals_shrink_by_less_than_L_gives_way() -> None:
    """(1 − .92)‖r‖ are left by each step, where L = .05."""
    block = mlp(4, 0.05)
    y = block(np.random.default_rng(0).standard_normal((50, 4)))
    found = ir.invert(with_model(block, 0.92 * np.eye(4)), y, rtol=1e-13)
    assert found.method == "banach"
    assert found.converged.all()


def test_a_model_that_stops_contracting_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Good until the first look, then an inverse that throws every row far away: they come back to where they were."""
    block, calls, solved = mlp(3), [0], Chord._solved

    def spoilt(self: Chord, r: Any) -> Any:
        calls[0] += 1
        return solved(self, r) if calls[0] <= 2 else 1e3 + solved(self, r)

    y = block(np.random.default_rng(0).standard_normal((50, 3)))
    before = ir.invert(block, y, "banach", rtol=1e-12)
    monkeypatch.setattr(Chord, "_solved", spoilt)
    found = ir.invert(block, y, rtol=1e-12)
    assert calls[0] > 2
    assert found.method in ("banach", "anderson")
    assert found.converged.all()
    assert found.evaluations.max() <= before.evaluations.max() + 2 + 4


def test_no_model_is_used_for_a_stated_constant_or_many_dimensions() -> None:
    block, wide = mlp(20, 0.5), mlp(65, 0.5)
    x = np.random.default_rng(0).standard_normal((40, 20))
    assert ir.invert(block, block(x)).method == "chord"
    assert ir.invert(wide, wide(np.ones((1, 65)))).method == "banach"
    assert ir.invert(ir.ResidualBlock(block.branch, 0.5), block(x)).method == "banach"


@pytest.mark.parametrize(("rtol", "misfit", "evaluations"), [(1e-1, 1e-4, 2), (1e-6, 1e-3, 3), (1e-6, 1e-2, 4), (1e-9, 1e-3, 4)])
def test_the_first_look_is_when_the_misfit_says_and_no_later_than_check_every(rtol: float, misfit: float, evaluations: int) -> None:
    block = mlp(3)
    model, y = block.branch.affine_model, block(np.ones((5, 3)))
    assert model is not None
    for check_every in (1, 2, 3, 4, 9):
        steps = Chord(block, y, Goal(block.contraction(), rtol, check_every), replace(model, misfit=misfit))
        assert steps.spent == min(evaluations, max(2, check_every))
        assert steps.spent <= steps.most


def test_a_singular_model_is_none() -> None:
    assert ir.Branch((Affine(-np.eye(2), np.zeros(2)),), (2,)).affine_model is None
    assert isinstance(mlp(2).branch.affine_model, AffineModel)
