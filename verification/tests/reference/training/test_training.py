"""Laws of training: exact gradients, certified weights at every step, the same run on every backend and after a kill."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from autodiff_oracles import assert_gradients, torch_branch, torch_layers, torch_logdets
from tables import backend

import iresnet_ref as ir
from iresnet_backends import checkpoint, load, resume, save
from iresnet_backends.errors import FormatError
from iresnet_ref.arrays import Packed, Packing, from_host, to_host
from iresnet_ref.training import minibatch
from iresnet_ref.training.classifier import Classifier
from iresnet_ref.training.loop import Settings, State, fit, start
from iresnet_ref.training.losses import Loss, classification, cross_entropy, maximum_likelihood
from iresnet_ref.training.optimiser import Moments, adamw, clip, global_norm, warm_up

LIPSCHITZ = 0.8
DATA = np.random.default_rng(3).standard_normal((256, 2)) * np.asarray([2.0, 0.3]) + np.asarray([1.0, -1.0])
FULL = Settings(learning_rate=0.02, weight_decay=1e-3, clip=1.0, warm_up=4, average=0.9)


def steps(like: Any) -> list[Any]:
    """An ActNorm and two blocks with raw weights: of the first one layer is above its share, of the second both."""
    first = ir.mlp((2, 8, 2), lipschitz=0.7, seed=1, like=like)
    first = first.with_parameters({k: (2.0 if k == "0.weight" else 1.0) * p for k, p in first.parameters().items()})
    second = ir.mlp((2, 6, 2), activation="tanh", lipschitz=0.9, seed=2, like=like)
    second = second.with_parameters({k: 1.7 * p for k, p in second.parameters().items()})
    return [ir.bijections.ActNorm.uninitialised((2,), like), ir.ResidualBlock(first), ir.ResidualBlock(second)]


def flow(like: Any) -> ir.Flow:
    base = ir.densities.DiagonalGaussian(from_host([0.2, -0.1], like), from_host([-0.3, 0.2], like))
    return ir.Flow(steps(like), base).initialise(from_host(DATA[:32], like))


def loss(model: ir.Flow, step: int) -> Loss:
    rows = DATA[minibatch(len(DATA), 32, step, seed=5)]
    return maximum_likelihood(model, from_host(rows, model.base.like), step=step)


def history(like: Any, n: int) -> tuple[State, list[float]]:
    losses: list[float] = []
    state = fit(start(flow(like), lipschitz=LIPSCHITZ, settings=FULL), loss, n, callback=lambda s, value: losses.append(value))
    return state, losses


def torch_truth(raw: Any, x: Any, objective: Any) -> tuple[Any, dict[str, Any]]:
    """Gradients of objective(features, Σ log-determinants, parameters) with respect to x and the raw parameters by autograd."""
    import torch

    leaves = {k: torch.tensor(to_host(p), requires_grad=True) for k, p in raw.parameters().items()}
    inputs = torch.tensor(x, requires_grad=True)
    z = (inputs + leaves["0.shift"]) * torch.exp(leaves["0.log_scale"])
    total = leaves["0.log_scale"].sum()
    for i in (1, 2):
        branch = raw.steps.steps[i].block.branch
        own = {k.removeprefix(f"{i}."): p for k, p in leaves.items() if k.startswith(f"{i}.")}
        for k in ("0.weight", "2.weight"):  # Ŵ = W·min(1, c/σ), c = L^{1/2}
            share, sigma = LIPSCHITZ**0.5, torch.linalg.matrix_norm(own[k], 2)
            own[k] = own[k] * torch.clamp(share / sigma, max=1.0)
        g = torch_branch(torch_layers(branch, own))
        total = total + torch_logdets(g, z)
        z = z + g(z)
    found = torch.autograd.grad(objective(z, total, leaves), [inputs, *leaves.values()], allow_unused=True)
    arrays = [np.zeros(tuple(a.shape)) if d is None else d.numpy() for a, d in zip([inputs, *leaves.values()], found, strict=True)]
    return arrays[0], dict(zip(leaves, arrays[1:], strict=True))


# ∇ of −Σ w log p through flow, log-determinants and spectral normalisation agrees with autograd of the same written anew.
@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_of_the_likelihood_is_autograds(weighted: bool) -> None:
    x = DATA[:7]
    w = np.linspace(-0.5, 1.0, 7) if weighted else np.full(7, 1.0 / 7.0)
    state = start(flow(np.zeros(1)), lipschitz=LIPSCHITZ)
    found = maximum_likelihood(state.model, x, weights=w if weighted else None)
    values: list[float] = []

    def objective(z: Any, log_det: Any, p: Any) -> Any:
        import torch

        base = torch.distributions.Normal(p["base.mean"], torch.exp(p["base.log_scale"])).log_prob(z).sum(1)
        value = -(torch.tensor(w) * (base + log_det)).sum()
        values.append(value.item())
        return value

    truth = torch_truth(state.normalised.raw, x, objective)
    assert_gradients((truth[0], state.normalised.pullback(found.gradients)), truth)
    assert math.isclose(float(found.value), values[0], rel_tol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_of_the_classification_is_autograds(weighted: bool) -> None:
    rng = np.random.default_rng(4)
    x, labels, w = DATA[:9], rng.integers(3, size=9), rng.uniform(size=9) if weighted else np.full(9, 1.0 / 9.0)
    raw = Classifier(steps(np.zeros(1)), rng.standard_normal((3, 2)), rng.standard_normal(3)).initialise(x)
    state = start(raw, lipschitz=LIPSCHITZ)
    found = classification(state.model, x, labels, weights=w if weighted else None)
    values: list[float] = []

    def objective(z: Any, log_det: Any, p: Any) -> Any:
        import torch

        del log_det
        logits = z @ p["head.weight"].T + p["head.bias"]
        each = torch.nn.functional.cross_entropy(logits, torch.tensor(labels), reduction="none")
        values.append((torch.tensor(w) * each).sum().item())
        return (torch.tensor(w) * each).sum()

    truth = torch_truth(raw, x, objective)
    assert_gradients((truth[0], state.normalised.pullback(found.gradients)), truth)
    assert math.isclose(float(found.value), values[0], rel_tol=1e-12)
    assert_gradients((state.model.pullback(x, cross_entropy(state.model(x), labels, weights=w)[1])[0], {"": np.ones(1)}),
                     (truth[0], {"": np.ones(1)}))


def test_a_classifier_learns() -> None:
    u, v = ((DATA - DATA.mean(0)) / DATA.std(0)).T
    labels = (v > u * u - 1.0).astype(np.int64)  # no line separates them
    state = start(Classifier.with_zero_head(steps(np.zeros(1)), 2).initialise(DATA), settings=Settings(learning_rate=0.03))
    state = fit(state, lambda model, step: classification(model, DATA, labels), 150)
    assert (state.model(DATA).argmax(1) == labels).mean() > 0.95


# torch.optim is an independent AdamW, clip_grad_norm_ an independent clipping (it adds 1e-6 to the norm).
def test_steps_are_those_of_torch() -> None:
    import torch

    rng = np.random.default_rng(6)
    ours: dict[str, Any] = {"a": rng.standard_normal((3, 2)), "b": rng.standard_normal(4)}
    theirs = {k: torch.tensor(p, requires_grad=True) for k, p in ours.items()}
    optimiser = torch.optim.AdamW(list(theirs.values()), lr=0.1, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.05)
    moments = Moments.zero(ours)
    for _ in range(5):
        gradients = {k: 3.0 * rng.standard_normal(p.shape) for k, p in ours.items()}
        for k, p in theirs.items():
            p.grad = torch.tensor(gradients[k])
        norm = torch.nn.utils.clip_grad_norm_(list(theirs.values()), 1.5)
        assert math.isclose(float(global_norm(gradients)), float(norm), rel_tol=1e-14)
        clipped = {k: g * 1.5 / (float(norm) + 1e-6) for k, g in gradients.items()}
        assert all(np.allclose(c, clipped[k], rtol=1e-6) for k, c in clip(gradients, 1.5).items())
        optimiser.step()
        ours, moments = adamw(ours, clipped, moments, learning_rate=0.1, betas=(0.8, 0.95), epsilon=1e-3, weight_decay=0.05)
        assert all(np.allclose(ours[k], p.detach().numpy(), rtol=1e-13, atol=1e-15) for k, p in theirs.items())


# Arrays that are alike are moved as one; each keeps its dtype, its shape and its values all the same.
def test_parameters_of_two_dtypes_are_moved_each_in_its_own() -> None:
    rng = np.random.default_rng(8)
    parameters = {"a": rng.standard_normal((3, 2)).astype(np.float32), "b": rng.standard_normal(4), "c": np.asarray(0.3, dtype=np.float32)}
    gradients: dict[str, Any] = {k: np.asarray(rng.standard_normal(p.shape), dtype=p.dtype) for k, p in parameters.items()}
    moved, moments = adamw(parameters, gradients, Moments.zero(parameters), weight_decay=0.1)
    for k, p in parameters.items():
        alone, own = adamw({k: p}, {k: gradients[k]}, Moments.zero({k: p}), weight_decay=0.1)
        for found, wanted in ((moved[k], alone[k]), (moments.first[k], own.first[k]), (moments.second[k], own.second[k])):
            assert found.dtype == p.dtype
            assert found.shape == p.shape
            assert np.array_equal(found, wanted)


def test_moments_of_other_parameters_are_refused_and_those_of_a_run_are_mappings() -> None:
    state = start(flow(np.zeros(1)))
    after = fit(state, loss, 1)
    shapes = {k: p.shape for k, p in state.normalised.parameters().items()}
    for moments in (after.moments.first, after.moments.second):
        assert {k: m.shape for k, m in moments.items()} == shapes
        assert dict(moments).keys() == shapes.keys()
    fewer = {k: m for k, m in after.moments.first.items() if k != "base.mean"}
    turned = {k: m.T if k == "1.0.weight" else m for k, m in after.moments.first.items()}
    for wrong in (fewer, turned):
        with pytest.raises(ir.ShapeError, match="expected a gradient of the shape of each parameter"):
            fit(replace(after, moments=Moments(wrong, after.moments.second, 1)), loss, 1)


def test_moments_begun_anew_count_their_own_steps() -> None:
    after = fit(start(flow(np.zeros(1)), settings=FULL), loss, 6)
    anew = replace(after, moments=Moments.zero(after.normalised.parameters()))
    gradients = after.normalised.pullback(loss(after.model, 6).gradients)
    wanted, moments = adamw(
        after.normalised.parameters(), clip(gradients, 1.0), anew.moments, learning_rate=FULL.learning_rate, weight_decay=FULL.weight_decay
    )
    found = fit(anew, loss, 1)
    assert found.moments.step == moments.step == 1
    for k, p in found.normalised.parameters().items():
        assert np.allclose(p, wanted[k], rtol=1e-12, atol=1e-15)  # of one array or of several, the norm sums in another order


@dataclass(frozen=True)
class Counted(ir.Flow):
    """A flow of a user that keeps something made of its fields."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "largest", max(float(np.abs(p).max()) for p in self.parameters().values()))


def test_a_model_of_a_users_class_keeps_what_it_makes_of_its_weights() -> None:
    model: Any = fit(start(Counted(steps(np.zeros(1))).initialise(DATA[:32]), lipschitz=LIPSCHITZ), loss, 2).model
    assert isinstance(model, Counted)
    assert vars(model)["largest"] == max(float(np.abs(p).max()) for p in model.parameters().values())


def test_moments_packed_in_another_order_are_those_of_their_names() -> None:
    arrays = {"a": np.asarray([1.0, 2.0]), "b": np.asarray([3.0, 4.0])}
    packing = Packing.of(arrays)
    turned = Packing({k: arrays[k].shape for k in ("b", "a")})
    assert turned.together(Packed(packing, packing.together(arrays))).tolist() == [3.0, 4.0, 1.0, 2.0]


def test_clipping_leaves_short_gradients_and_large_ones_finite() -> None:
    small = {"a": np.asarray([0.3, 0.4])}
    assert np.array_equal(clip(small, 1.0)["a"], small["a"])
    huge = clip({"a": np.asarray([3e30, 4e30], dtype=np.float32)}, 1.0)["a"]  # their squares overflow
    assert np.allclose(huge, [0.6, 0.8], rtol=1e-6)


def test_settings_are_used_as_they_say() -> None:
    state = start(flow(np.zeros(1)), settings=Settings(learning_rate=0.1, warm_up=10, clip=1e-3, average=0.75))
    before, after = state.normalised.parameters(), fit(state, loss, 1)
    moved = after.normalised.parameters()
    # Adam's first step is η·sign(g) where |g| ≫ ε, whatever the clipping; here η = .1/10.
    largest = max(np.abs(moved[k] - before[k]).max() for k in before)
    assert 0.0099 < largest <= 0.01 * (1.0 + 1e-9)
    assert math.isclose(float(global_norm(after.moments.first)), 0.1 * 1e-3, rel_tol=1e-9)
    for k, p in after.average.items():
        assert np.allclose(p, 0.75 * before[k] + 0.25 * moved[k], rtol=1e-14)
    assert after.averaged.log_prob(DATA[:2]).value.tolist() != after.model.log_prob(DATA[:2]).value.tolist()
    decayed = fit(start(flow(np.zeros(1)), settings=Settings(learning_rate=0.1, weight_decay=0.5)), loss, 1).normalised.parameters()
    plain = fit(start(flow(np.zeros(1)), settings=Settings(learning_rate=0.1)), loss, 1).normalised.parameters()
    assert all(np.allclose(plain[k] - decayed[k], 0.05 * before[k], rtol=1e-9, atol=1e-15) for k in before)
    assert [warm_up(k, 4) for k in (0, 3, 4)] == [0.25, 1.0, 1.0]


# After every step, and at the start: the stored weights of the model keep Lip(g) ≤ L by certificate; the raw ones do not.
def test_every_step_is_certified() -> None:
    bounds: list[float] = []

    def watch(state: State, value: float) -> None:
        del value
        bounds.extend(s.block.certificate.bound for s in state.model.steps.steps[1:])

    state = start(flow(np.zeros(1)), lipschitz=LIPSCHITZ, settings=Settings(learning_rate=0.2))
    watch(state, 0.0)
    state = fit(state, loss, 10, callback=watch)
    watch(replace_model := start(state.normalised.raw, lipschitz=LIPSCHITZ), 0.0)
    assert len(bounds) == 24
    assert max(bounds) <= LIPSCHITZ
    assert max(s.block.certificate.bound for s in replace_model.normalised.raw.steps.steps[1:]) > LIPSCHITZ


def test_blocks_inside_a_factor_out_are_normalised_and_trained() -> None:
    branch = ir.mlp((2, 6, 2), seed=3)
    loud = branch.with_parameters({k: 3.0 * p for k, p in branch.parameters().items()})
    raw = ir.Flow([ir.bijections.FactorOut((4,), [ir.ResidualBlock(loud, 0.95)])])
    state = start(raw, lipschitz=0.7, settings=Settings(learning_rate=0.05))
    block = state.model.steps.steps[0].rest.steps[0].block
    assert block.contraction() <= 0.7  # what the raw block states is not believed
    assert block.lipschitz is None
    x = np.random.default_rng(7).standard_normal((32, 4)) * 2.0
    values: list[float] = []
    after = fit(state, lambda model, step: maximum_likelihood(model, x), 8, callback=lambda s, v: values.append(v))
    assert values[-1] < values[0]
    assert all(not np.array_equal(p, raw.parameters()[k]) for k, p in after.normalised.parameters().items())


# (seed, step) determine the probes of a step: another step draws others, unless the log-determinant is exact.
def test_every_step_draws_its_own_probes() -> None:
    model, roulette = start(flow(np.zeros(1))).model, ir.Options(logdet="roulette")
    first, again, other = (maximum_likelihood(model, DATA[:8], options=roulette, step=k) for k in (1, 1, 2))
    assert first.value == again.value
    assert first.value != other.value
    assert all(np.array_equal(g, again.gradients[k]) for k, g in first.gradients.items())
    assert not np.array_equal(first.gradients["1.0.weight"], other.gradients["1.0.weight"])
    assert maximum_likelihood(model, DATA[:8], step=1).value == maximum_likelihood(model, DATA[:8], step=2).value


def same(a: State, b: State) -> None:
    assert (a.step, a.moments.step, a.settings) == (b.step, b.moments.step, b.settings)
    pairs = [(a.normalised.parameters(), b.normalised.parameters()), (a.average, b.average),
             (a.moments.first, b.moments.first), (a.moments.second, b.moments.second)]
    for one, other in pairs:
        assert one.keys() == other.keys()
        assert all(to_host(p).tobytes() == to_host(other[k]).tobytes() for k, p in one.items())


class Killed(Exception):  # noqa: N818 - no error: the run is stopped from outside
    pass


# Killed after step k and resumed from its file, a run ends in the bits of the run that was left alone, estimated log-dets
# included; the last checkpoint may be older than the kill.
@pytest.mark.parametrize("key", ["numpy-f64", "torch-f32"])
def test_a_killed_run_continues_bit_for_bit(key: str, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    like = backend(key).asarray(np.zeros(1))
    options = ir.Options(logdet=ir.Roulette(probes=ir.Probes(seed=9, count=8)))

    def estimated(model: ir.Flow, step: int) -> Loss:
        rows = from_host(DATA[minibatch(len(DATA), 16, step, seed=5)], like)
        return maximum_likelihood(model, rows, options=options, step=step)

    fresh = start(flow(like), lipschitz=LIPSCHITZ, settings=FULL)
    whole = fit(fresh, estimated, 8)
    path = tmp_path / "run.safetensors"
    keep = checkpoint(path, every=3)

    def until_killed(state: State, value: float) -> None:
        keep(state, value)
        if state.step == 5:
            raise Killed

    with pytest.raises(Killed):
        fit(resume(path, fresh), estimated, 8, callback=until_killed)
    again = resume(path, fresh)
    assert again.step == 3
    assert list(tmp_path.iterdir()) == [path]  # one checkpoint, and nothing half written
    same(fit(again, estimated, 5), whole)


# What the proofs begin with belongs to the state: it is in the checkpoint, in the dtype of the weights.
@pytest.mark.parametrize("key", ["numpy-f32", "numpy-f64", "torch-f32"])
def test_a_run_whose_proofs_begin_where_the_last_ended_continues_bit_for_bit(key: str, tmp_path: Path) -> None:
    like, rng = backend(key).asarray(np.zeros(1)), np.random.default_rng(0)
    dense = ir.ResidualBlock(ir.mlp((3, 56, 56, 3), seed=1, like=like))  # wide enough for a block of vectors
    images = ir.ResidualBlock(ir.convnet((9, 9, 8), channels=10, kernels=(3, 1), seed=2, like=like))
    for block, event, width in ((dense, (3,), 1.0), (images, (9, 9, 8), 0.1)):
        x = from_host(width * rng.standard_normal((4, *event)), like)
        fresh = start(ir.Flow([block], options=ir.Options(logdet=ir.Series(terms=2))), settings=Settings(learning_rate=1e-3, average=0.5))

        def small(model: ir.Flow, step: int, x: Any = x) -> Loss:
            return maximum_likelihood(model, x, step=step)

        whole = fit(fresh, small, 4)
        path = tmp_path / f"{len(event)}.safetensors"
        fit(fresh, small, 2, callback=checkpoint(path))
        again = resume(path, fresh)
        begun = [warm.vectors for warm in (again.normalised.warm or {})["0."].values() if warm.vectors is not None]
        assert again.step == 2
        assert begun
        assert all(v.dtype == like.dtype for v in begun)
        same(fit(again, small, 2), whole)
        for prefix, weight in whole.averaged.parameters().items():
            assert (to_host(weight) == to_host(fit(again, small, 2).averaged.parameters()[prefix])).all()


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    path, fresh = tmp_path / "run.safetensors", start(flow(np.zeros(1)), lipschitz=LIPSCHITZ)
    save(path, fresh)
    same(load(path), fresh)
    with pytest.raises(FormatError, match=r"same model and settings, got 1 differences: normalised\.lipschitz: expected 0\.7, got 0\.8"):
        resume(path, start(flow(np.zeros(1)), lipschitz=0.7))
    with pytest.raises(FormatError, match=r"settings\.learning_rate: expected 0\.02, got 0\.001"):
        resume(path, start(flow(np.zeros(1)), lipschitz=LIPSCHITZ, settings=FULL))
    save(path, fresh.model)
    with pytest.raises(FormatError, match="state of a training, got Flow"):
        resume(path, fresh)
    with pytest.raises(ValueError, match="every ≥ 1"):
        checkpoint(path, every=0)


def variant(activation: str = "lipswish", order: tuple[int, int] = (0, 1), method: Any = "auto", norm: float = 2.0, wide: int = 8) -> State:
    block = ir.ResidualBlock(ir.mlp((2, wide, 2), activation=activation, norm=norm))
    steps = [ir.bijections.ActNorm.uninitialised((2,)), ir.bijections.Permutation((2,), order), block]
    return start(ir.Flow(steps, options=ir.Options(logdet=method)).initialise(DATA))


# Shapes alone do not make a model: what else differs is named, and nothing of another model is returned.
@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"activation": "sine"}, r'layers\.1\.activation: expected \{"activation": "sine"\}, got \{"activation": "lipswish"\}'),
        ({"activation": "maxmin"}, r"layers\.1: expected GroupSort, got Pointwise"),
        ({"order": (1, 0)}, r"steps\.1\.order\.0: expected 1, got 0"),
        ({"method": "exact"}, 'expected "exact", got "auto"'),
        ({"norm": 1.0}, r"branch\.norm: expected 1\.0, got 2\.0"),
        ({"wide": 7}, r"layers\.0\.weight: expected an array of shape \(7, 2\), got an array of shape \(8, 2\)"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_by_the_difference(other: dict[str, Any], told: str, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    path = tmp_path / "run"
    trained = fit(variant(), lambda model, step: maximum_likelihood(model, DATA), 2, callback=checkpoint(path))
    with pytest.raises(FormatError, match=told):
        resume(path, variant(**other))
    fresh = variant()
    raw = fresh.normalised.raw
    waiting = replace(raw, steps=ir.bijections.Composition((ir.bijections.ActNorm.uninitialised((2,)), *raw.steps.steps[1:])))
    for same_model in (fresh, replace(fresh, normalised=replace(fresh.normalised, raw=waiting))):  # initialised or not: it is state
        same(resume(path, same_model), trained)


# A kill leaves the last checkpoint, between two renamings the one before it; a new run sweeps what was half written.
def test_the_checkpoint_before_the_last_is_kept(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    path, fresh = tmp_path / "run", variant()
    previous, rests = tmp_path / "run.previous", [tmp_path / f"run{end}" for end in (".partial", ".next", ".next.partial")]
    fit(fresh, lambda model, step: maximum_likelihood(model, DATA), 3, callback=checkpoint(path))
    assert sorted(tmp_path.iterdir()) == [path, previous]
    assert (resume(path, fresh).step, resume(previous, fresh).step) == (3, 2)
    for rest in rests:
        rest.write_bytes(b"half")
    assert resume(path, fresh).step == 3
    checkpoint(path)
    assert sorted(tmp_path.iterdir()) == [path, previous]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FormatError, match=r"expected a whole safetensors file.*kept at .*run\.previous"):
        resume(path, fresh)
    path.unlink()
    assert resume(path, fresh).step == 2


# The same seed follows the same curve: rows, probes and initial weights are those of the host on every backend.
@pytest.mark.parametrize(
    ("key", "n"),
    [("torch-f64", 100), ("strict-device2-f64", 4), ("strict-bare-f64", 3), ("cupy-contract-1-f64", 3),
     pytest.param("jax-f64", 100, marks=pytest.mark.thorough)],
)
def test_every_backend_follows_the_same_loss_curve(key: str, n: int) -> None:
    ours, theirs = (history(like, n)[1] for like in (np.zeros(1), backend(key).asarray(np.zeros(1))))
    assert np.abs(np.asarray(ours) - np.asarray(theirs)).max() <= 1e-8
    assert n < 20 or np.mean(ours[-5:]) < np.mean(ours[:5])


@pytest.mark.parametrize("key", ["numpy-f32", "torch-f32", "strict-no_x64-f32"])
def test_dtype_and_namespace_stay(key: str) -> None:
    like = backend(key).asarray(np.zeros(1))
    state, _ = history(like, 2)
    for p in (*state.normalised.parameters().values(), *state.moments.second.values(), *state.average.values()):
        assert (type(p), p.dtype) == (type(like), like.dtype)


@pytest.mark.parametrize("where", ["value", "gradient"])
def test_a_loss_that_is_not_finite_stops_the_run_with_its_last_good_state(where: str) -> None:
    seen: list[State] = []

    def breaking(model: ir.Flow, step: int) -> Loss:
        found = loss(model, step)
        if step < 3:
            return found
        if where == "value":
            return Loss(found.value * np.nan, found.gradients)
        return Loss(found.value, {k: g * np.inf if k == "0.shift" else g for k, g in found.gradients.items()})

    with pytest.raises(ir.training.DivergedError, match=r"expected a finite loss and gradient, got .* at step 3; try a smaller") as error:
        fit(start(flow(np.zeros(1))), breaking, 9, callback=lambda s, v: seen.append(s))
    assert error.value.state is seen[-1]
    assert len(seen) == 2  # the third has no finite loss: it is not called back, hence not saved


# At every learning rate the run ends in states of finite loss, or in DivergedError; what is called back, saved or carried by
# the error has a finite loss and finite weights, and keeps its certificate. numpy.errstate changes nothing.
@pytest.mark.parametrize("key", ["numpy-f64", "numpy-f32", "torch-f32"])
@pytest.mark.parametrize("rate", [1e3, 1e6, 1e20, 1e38, 1e155, 1e300, 1.7e308])
def test_a_learning_rate_that_is_too_large_loses_nothing(key: str, rate: float, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    like = backend(key).asarray(np.zeros(1))
    first, path = start(flow(like), lipschitz=LIPSCHITZ, settings=Settings(rate, weight_decay=1e-3)), tmp_path / "run"
    with np.errstate(all="raise"), pytest.raises(ir.training.DivergedError, match=r"expected .*, got .*; try a smaller learning_rate"):
        fit(fit(first, loss, 1, callback=checkpoint(path)), loss, 6, callback=checkpoint(path))
    path.unlink(missing_ok=True)
    with pytest.raises(ir.training.DivergedError, match=r"expected .*, got .*; try a smaller learning_rate") as error:
        fit(first, loss, 6, callback=checkpoint(path))
    state: Any = error.value.state
    for good in (state, resume(path, first)):
        assert math.isfinite(float(loss(good.model, good.step).value))
        assert all(np.isfinite(to_host(p)).all() for p in (*good.normalised.parameters().values(), *good.moments.second.values()))
        assert all(s.block.certificate.bound <= LIPSCHITZ for s in good.model.steps.steps[1:])
    same(resume(path, first), state)


def test_a_gradient_that_overflows_the_moments_is_a_divergence() -> None:
    def steep(model: ir.Flow, step: int) -> Loss:
        found = loss(model, step)
        return Loss(found.value, {k: 1e20 * g for k, g in found.gradients.items()})

    first = start(flow(np.zeros(1, dtype=np.float32)))
    with pytest.raises(ir.training.DivergedError, match=r"new weights that are finite and certified, got at step 0: .*moments") as error:
        fit(first, steep, 1)
    assert error.value.state is first


def test_gradients_that_do_not_fit_are_refused() -> None:
    first = start(flow(np.zeros(1)))

    def with_one(model: ir.Flow, step: int) -> Loss:
        found = loss(model, step)
        return Loss(found.value, {**found.gradients, "0.shift": found.gradients["0.shift"][:1]})

    for wrong in (with_one, lambda model, step: Loss(np.zeros(()), {"0.log_scale": np.zeros(2)})):
        with pytest.raises(ir.ShapeError, match=r"gradient of the shape of each parameter, got none or others at \['0\.shift'"):
            fit(first, wrong, 1)


def test_bad_input_is_refused() -> None:
    model, x = flow(np.zeros(1)), DATA[:4]
    with pytest.raises(ir.ShapeError, match="one row for each of the 4 of the batch, got 3"):
        maximum_likelihood(model, x, weights=np.ones(3))
    with pytest.raises(ir.ShapeError, match="batch with rows"):
        maximum_likelihood(model, x[:0])
    with pytest.raises(ir.NonFiniteError, match="x: expected finite"):
        maximum_likelihood(model, x * np.nan)
    with pytest.raises(ir.DTypeError, match="labels: expected integers"):
        cross_entropy(np.zeros((2, 3)), np.zeros(2))
    with pytest.raises(ir.ShapeError, match=r"labels: expected shape \(2,\)"):
        cross_entropy(np.zeros((2, 3)), np.zeros(3, dtype=np.int64))
    with pytest.raises(ValueError, match="labels: expected 0 to 2"):
        cross_entropy(np.zeros((2, 3)), np.asarray([0, 3]))
    with pytest.raises(ValueError, match="settings: expected learning_rate"):
        Settings(learning_rate=-1.0)
    with pytest.raises(ir.ShapeError, match=r"no 'head\.weight'"):
        Classifier.with_zero_head(steps(np.zeros(1)), 2).with_parameters({})
    with pytest.raises(ir.NotContractiveError):
        start(model, lipschitz=1.0)
    with pytest.raises(ir.ShapeError, match="expected a model with parameters"):
        start(ir.Flow([ir.bijections.Permutation((2,), (1, 0))], ir.densities.StandardGaussian((2,), np.zeros(1))))
    with pytest.raises(ir.NonFiniteError, match=r"0\.shift: expected finite"):
        start(model.with_parameters({**model.parameters(), "0.shift": np.asarray([0.0, np.nan])}))


def test_minibatches_cover_the_rows_evenly_and_differ_by_step_and_seed() -> None:
    drawn = np.concatenate([minibatch(10, 500, step) for step in range(20)])
    counts = np.bincount(drawn, minlength=10)  # sd 30 of each of 10 counts around 1000
    assert counts.size == 10
    assert np.abs(counts - 1000).max() < 6 * 30
    assert not np.array_equal(minibatch(10, 500, 0), minibatch(10, 500, 1))
    assert not np.array_equal(minibatch(10, 500, 0), minibatch(10, 500, 0, seed=1))


def test_without_a_constant_the_raw_weights_are_trained() -> None:
    """The unconstrained twin: gradients of the raw weights themselves, and no certificate below one."""
    raw = flow(np.zeros(1))
    plain, labels = Classifier(raw.steps, np.ones((2, 2)), np.zeros(2)), np.arange(32) % 2
    state = start(plain, lipschitz=None, settings=Settings(learning_rate=0.02))
    found = classification(plain, DATA[:32], labels)
    wanted, _ = adamw(plain.parameters(), found.gradients, Moments.zero(plain.parameters()), learning_rate=0.02)
    after = fit(state, lambda model, step: classification(model, DATA[:32], labels), 1)
    assert all(np.array_equal(after.model.parameters()[k], p) for k, p in wanted.items())
    assert after.model.steps.steps[1].block.certificate.bound > 1.0
