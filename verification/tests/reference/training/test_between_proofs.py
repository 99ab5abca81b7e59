"""`certify_every`: between two proofs nothing is proved, nothing is asked of the host, and the proof is about the very same weights."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tables import backend

import iresnet_ref as ir
from iresnet_backends import checkpoint, resume
from iresnet_ref.arrays import from_host, to_host
from iresnet_ref.branches import estimated
from iresnet_ref.branches.estimated import MARGIN, first_estimate
from iresnet_ref.jacobian.convolution import Convolution
from iresnet_ref.normalisation.norm_gradient import wave_slope
from iresnet_ref.norms.convolution import symbol
from iresnet_ref.training import DivergedError, Loss, Settings, State, fit, maximum_likelihood, start

EVENTS = {"dense": (3,), "images": (3, 10, 9)}


def block(kind: str, like: Any) -> ir.ResidualBlock:
    if kind == "dense":
        return ir.ResidualBlock(ir.mlp((3, 52, 12, 3), activation="elu", seed=1, like=like))
    return ir.ResidualBlock(ir.convnet((3, 10, 9), channels=10, kernels=(3, 1, 3), seed=2, like=like))  # on a grid, a pixel, on a grid


def begun(kind: str, like: Any, every: int = 3, rate: float = 2e-3) -> tuple[State, Any]:
    x = from_host(np.random.default_rng(0).normal(0.3, 0.5, (6, *EVENTS[kind])), like)
    flow = ir.Flow([block(kind, like)], options=ir.Options(logdet=ir.Series(terms=2)))

    def loss(model: ir.Flow, step: int) -> Loss:
        return maximum_likelihood(model, x, step=step, check=False)

    return start(flow, settings=Settings(learning_rate=rate, certify_every=every, average=0.5)), loss


def first(state: State) -> ir.ResidualBlock:
    found: ir.ResidualBlock = state.model.steps.steps[0].block
    return found


@pytest.mark.parametrize("kind", EVENTS)
def test_only_every_kth_state_and_the_last_is_proved_and_radii_are_inf_in_between(kind: str) -> None:
    state, loss = begun(kind, np.zeros(1))
    assert first(state).certificate.proved
    seen: dict[int, State] = {}
    last = fit(state, loss, 8, callback=lambda s, value: seen.update({s.step: s}))
    assert [k for k, s in seen.items() if first(s).certificate.proved] == [3, 6]
    for s in (last, seen[6]):
        layers = 3
        assert 0.9 * (1.0 - 2.0 * MARGIN) ** layers <= first(s).certificate.bound <= 0.9
    y = np.ones((2, *EVENTS[kind]))
    for s, finite in ((seen[4], False), (seen[4].proved(), True)):
        inverse = ir.invert(first(s), y, rtol=1e-6)
        assert inverse.converged.all()
        assert bool(np.isfinite(inverse.error_bound).all()) is finite
        assert bool(np.isfinite(ir.bounds.inverse_ball(first(s), y, inverse.x).radius).all()) is finite
        assert bool(math.isfinite(s.model.steps.inverse_lipschitz)) is finite
    assert not first(seen[4]).certificate.proved
    assert first(seen[4]).certificate.bound == math.inf


@pytest.mark.parametrize("kind", EVENTS)
def test_the_proof_is_about_the_weights_as_they_are(kind: str) -> None:
    state, loss = begun(kind, np.zeros(1))
    seen: list[State] = []
    fit(state, loss, 5, callback=lambda s, value: seen.append(s))
    for s in seen:
        proved = s.proved()
        for key, weight in s.model.parameters().items():
            assert (weight == proved.model.parameters()[key]).all()
        again = first(s).branch.with_parameters(first(s).branch.parameters())  # proved anew, by the full route
        assert again.certificate.bound <= first(proved).certificate.bound * (1.0 + 1e-9)
        assert first(proved).certificate.bound <= again.certificate.bound * (1.0 + 1e-9)


@pytest.mark.parametrize("key", ["numpy-f32", "numpy-f64", "torch-f32"])
@pytest.mark.parametrize("kind", EVENTS)
def test_two_calls_are_one_and_a_killed_run_continues_bit_for_bit(kind: str, key: str, tmp_path: Path) -> None:
    """The end of a call, a checkpoint and `proved` look, and change nothing of what follows."""
    fresh, loss = begun(kind, backend(key).asarray(np.zeros(1)))
    whole = fit(fresh, loss, 8)
    path = tmp_path / "run.safetensors"
    fit(fresh, loss, 5, callback=checkpoint(path))
    again = resume(path, fresh)
    assert again.step == 5
    for other in (fit(fit(fresh, loss, 4).proved(), loss, 4), fit(again, loss, 3)):
        for one, two in ((whole.model, other.model), (whole.averaged, other.averaged)):
            for name, weight in one.parameters().items():
                assert (to_host(weight) == to_host(two.parameters()[name])).all()


@pytest.mark.parametrize("kind", EVENTS)
def test_a_margin_that_does_not_hold_is_an_error_with_the_last_proved_state(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    state, loss = begun(kind, np.zeros(1))
    monkeypatch.setattr(estimated, "MARGIN", -0.01)  # as if the estimates had fallen behind by one per cent
    with pytest.raises(DivergedError, match="margin") as error:
        fit(state, loss, 8)
    good: Any = error.value.state
    assert good is state
    monkeypatch.undo()
    state, loss = begun(kind, np.zeros(1))
    state = fit(state, loss, 3)
    monkeypatch.setattr(estimated, "leading_pair", lambda operator, b: behind(estimated, operator, b))
    monkeypatch.setattr(estimated, "leading_wave", lambda *a: (0.98 * WAVE(*a)[0], *WAVE(*a)[1:]))
    with pytest.raises(DivergedError, match="margin") as error:
        fit(state, loss, 4)
    last: Any = error.value.state
    assert last.step == 3
    assert first(last).certificate.bound <= 0.9


PAIR, WAVE = estimated.leading_pair, estimated.leading_wave


def behind(module: Any, operator: Any, b: Any) -> Any:
    sigma, *rest = PAIR(operator, b)
    return 0.98 * sigma, *rest


def test_a_checkpoint_is_proved_before_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, loss = begun("dense", np.zeros(1), every=9)
    monkeypatch.setattr(estimated, "MARGIN", -0.01)
    path = tmp_path / "run.safetensors"
    steps: list[int] = []
    keep = checkpoint(path)
    with pytest.raises(DivergedError, match="margin") as error:
        fit(state, loss, 3, callback=lambda s, value: (steps.append(s.step), keep(s, value)))
    good: Any = error.value.state
    assert good is state
    assert steps == [1]
    assert not path.exists()


def test_what_is_not_finite_is_found_at_the_next_proof() -> None:
    state, loss = begun("dense", np.zeros(1))

    def broken(model: ir.Flow, step: int) -> Loss:
        found = loss(model, step)
        return Loss(found.value * math.nan, found.gradients) if step == 4 else found

    steps: list[int] = []
    with pytest.raises(DivergedError, match="finite") as error:
        fit(state, broken, 9, callback=lambda s, value: steps.append(s.step))
    last: Any = error.value.state
    assert last.step == 3
    assert steps == [1, 2, 3, 4, 5]


def finite_claims(block: ir.ResidualBlock, method: Any) -> dict[str, bool]:
    """Return which bounds that rest on L a block states. Rows are alike: what 16 replicates spread is below the proved variance."""
    x = np.ones((2, *block.branch.event_shape))
    value, gradient = ir.logdet(block, x, method), ir.logdet_gradient(block, x, method)
    back = ir.logdet_of_inverse(block, x, method)
    claims = {
        "bias_bound": value.bias_bound,
        "interval": value.interval()[0] if value.replicates else value.bias_bound,
        "truncation": np.asarray(gradient.truncation),
        "bias_bound of the inverse": back.bias_bound,
        "displacement_bound": back.displacement_bound,
        "error_bound of the gradient": ir.inverse_gradient(block, x, x).error_bound,
    }
    return {name: bool(np.isfinite(bound).all()) for name, bound in claims.items()}


METHODS = {
    "series": ir.Series(2, probes=ir.Probes(count=16)),
    "arnoldi": ir.Arnoldi(2, probes=ir.Probes(count=16)),
    "roulette": ir.Roulette(probes=ir.Probes(count=16)),
}


@pytest.mark.parametrize("method", METHODS)
def test_no_bound_rests_on_a_constant_that_is_still_to_be_proved(method: str) -> None:
    state, loss = begun("dense", np.zeros(1))
    seen: list[State] = []
    fit(state, loss, 2, callback=lambda s, value: seen.append(s))
    assert not any(finite_claims(first(seen[0]), METHODS[method]).values())
    proved = replace(first(seen[0].proved()), lipschitz=None)
    assert all(finite_claims(proved, METHODS[method]).values())
    alike = ir.logdet(first(seen[0]), np.ones((2, 3)), ir.Series(2, probes=ir.Probes(kind="hadamard", count=8, block=4)))
    assert not np.isfinite(alike.standard_error).any()  # alike to rounding: nothing but a proved variance could stand here


@pytest.mark.parametrize("kind", EVENTS)
def test_gradients_are_those_of_the_proved_normalisation(kind: str) -> None:
    """σ̂ and its vectors after many steps are those of the full route, to the root of their residuals; the scales differ by MARGIN."""
    raw = block(kind, np.zeros(1)).branch
    raw = raw.with_parameters({k: 2.0 * p for k, p in raw.parameters().items()})
    proved = ir.NormalisedBranch(raw, 0.9, {})
    guessed = first_estimate(proved)
    rng = np.random.default_rng(2)
    gradients = {k: rng.standard_normal(p.shape) for k, p in raw.parameters().items()}
    one, other = proved.pullback(gradients), guessed.pullback(gradients)
    for key, gradient in one.items():
        assert np.abs(gradient - other[key]).max() <= 2e-2 * np.abs(gradient).max()
    for key, weight in proved.branch.parameters().items():
        if key.endswith("weight"):
            ratio = guessed.branch.parameters()[key] / weight
            assert np.allclose(ratio, 1.0 / (1.0 + MARGIN), rtol=1e-6)


@pytest.mark.parametrize("shape", [(9, 4, 3, 3), (4, 9, 3, 5)])
@pytest.mark.parametrize("sides", [0, 1])
def test_the_estimate_on_a_grid_is_the_largest_of_all_frequencies(shape: tuple[int, ...], sides: int) -> None:
    """Also from vectors of the inputs where the outputs are fewer, as states of 0.2.0 have them. The error of σ is the vectors' squared."""
    rng = np.random.default_rng(8)  # its largest block is complex
    kernel = rng.standard_normal(shape)
    operator, grid = Convolution(kernel, (10, 9), "zero"), ((11, 0), (9 + shape[3] // 2, 1))
    waves = estimated.grid_waves(operator, (0, 1))
    vectors = rng.standard_normal((waves.shape[2], 2 * (shape[1] if sides else min(shape[:2]))))
    for _ in range(100):
        sigma, slope, vectors = estimated.leading_wave(kernel, waves, vectors)
        assert vectors.shape[1] == 2 * min(shape[:2])
    norms = np.linalg.svd(symbol(kernel, grid), compute_uv=False)[:, 0]
    wanted, wanted_slope = wave_slope(kernel, grid, int(norms.argmax()))
    assert float(sigma) == pytest.approx(wanted, rel=1e-9)
    assert np.abs(slope - wanted_slope).max() <= 1e-4


def test_a_training_is_as_good_as_with_a_proof_at_every_step() -> None:
    ends = []
    for every in (1, 10):
        state, loss = begun("dense", np.zeros(1), every=every, rate=1e-2)
        last = fit(state, loss, 40)
        ends.append(float(loss(last.model, 1000).value))
        before = float(loss(state.model, 1000).value)
    assert ends[0] < before
    # in nats: a log det of d = 3 moves by d·δL for small J, and δL ≤ 3·MARGIN
    assert abs(ends[0] - ends[1]) <= 0.02 * (before - ends[0]) + 3 * 3 * MARGIN


@pytest.mark.parametrize("what", ["1-norm", "no bound"])
def test_where_there_is_no_estimate_every_step_is_proved(what: str) -> None:
    branch = ir.mlp((2, 8, 2), norm=1.0) if what == "1-norm" else ir.mlp((2, 8, 2))
    with pytest.raises(ValueError, match="certify_every=1"):
        start(ir.Flow([ir.ResidualBlock(branch)]), lipschitz=None if what == "no bound" else 0.9, settings=Settings(certify_every=2))
    with pytest.raises(ValueError, match="certify_every"):
        Settings(certify_every=0)


def test_a_densely_connected_branch_is_estimated_too() -> None:
    branch = ir.densenet(3, growth=6, depth=2)
    x = np.random.default_rng(0).standard_normal((4, 3))
    state = start(ir.Flow([ir.ResidualBlock(branch)]), settings=Settings(certify_every=4))
    last = fit(state, lambda model, step: maximum_likelihood(model, x, check=False), 6)
    assert first(last).certificate.proved
    assert first(last).certificate.bound <= 0.9
