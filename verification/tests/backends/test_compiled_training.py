"""Laws of trainings whose step is compiled once: the numbers of `ir.training.fit`, one trace, draws as inputs, every step proved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import iresnet_ref as ir
from iresnet_backends import compiled_training
from iresnet_ref import bijections, training
from iresnet_ref.errors import DivergedError
from iresnet_ref.rounding import gamma

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 2)) * [1.5, 0.5]
SETTINGS = training.Settings(learning_rate=0.02, clip=1.0, warm_up=3, average=0.9, weight_decay=0.01)
STEPS = 5
LOG_DETS = {"exact": ir.Auto(), "series": ir.Series(4, exact_traces=0, probes=ir.Probes(seed=3, count=2)), "arnoldi": ir.Arnoldi(2)}


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    jax = pytest.importorskip("jax")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def asarray(package: str) -> Callable[[Any], Any]:
    if package == "jax":
        return pytest.importorskip("jax.numpy").asarray  # type: ignore[no-any-return]
    return pytest.importorskip("torch").from_numpy if package == "torch" else np.asarray  # type: ignore[no-any-return]


def flow(like: Any, logdet: Any = "auto") -> ir.Flow:
    """A flow whose weights are above their shares, and one whose are below."""
    branches = [ir.mlp((2, 5, 2), seed=seed, like=like) for seed in (0, 1)]
    branches = [g.with_parameters({k: s * p for k, p in g.parameters().items()}) for g, s in zip(branches, (2.0, 0.5), strict=True)]
    steps = [bijections.ActNorm.uninitialised((2,), like=like), *(ir.ResidualBlock(g) for g in branches)]
    return ir.Flow(steps, options=ir.Options(logdet=logdet)).initialise(like)


def reference(logdet: Any) -> tuple[training.State, list[float]]:
    losses: list[float] = []
    state = training.start(flow(X, logdet), settings=SETTINGS)
    loss = lambda model, step: training.maximum_likelihood(model, rows(step), step=step)  # noqa: E731
    return training.fit(state, loss, STEPS, callback=lambda _, value: losses.append(value)), losses


def rows(step: int) -> Any:
    return X[training.minibatch(24, 16, step)]


def amplified(step: int) -> float:
    """Rounding after so many steps: 4096 roundings a gradient; Adam divides a gradient by its own size, at least ε = 1e-8 of it early."""
    return gamma(4096, 2.0**-53) * 10.0 * (step + 1)


@pytest.mark.parametrize(("package", "name"), [
    ("jax", "series"), ("torch", "exact"), ("torch traced", "series"),
    *(pytest.param(p, n, marks=pytest.mark.thorough) for p, n in (
        ("jax", "exact"), ("jax", "arnoldi"), ("torch", "series"), ("torch traced", "exact"))),
])
@pytest.mark.filterwarnings("ignore")  # what torch's tracer warns about is torch's
def test_it_is_the_training_of_the_reference_and_is_traced_once(package: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    to, traces, losses = asarray(package.split(maxsplit=1)[0]), [0], list[float]()
    if "traced" in package:  # the graph that torch's compiler is given, run as it is: compiling takes its minutes
        monkeypatch.setattr("torch._inductor.compile", lambda graph, _: graph)
    state, wanted = reference(LOG_DETS[name])

    def loss(*args: Any, **options: Any) -> training.Loss:
        traces[0] += 1
        return training.maximum_likelihood(*args, **options)

    begun = training.start(flow(to(X), LOG_DETS[name]), settings=SETTINGS)
    kept = {key: np.array(p) for key, p in begun.normalised.parameters().items()}
    found = compiled_training.fit(
        begun, lambda step: to(rows(step)), STEPS, loss=loss, compile=package != "torch",
        callback=lambda _, value: losses.append(value),
    )  # fmt: skip
    looked = 0 if name == "exact" else 1  # once for the draws
    assert traces[0] <= (STEPS if package == "torch" else 1) + max(looked, int(name == "exact"))
    assert len(losses) == STEPS
    for step, (a, b) in enumerate(zip(losses, wanted, strict=True)):
        assert abs(a - b) <= amplified(step)
    assert found.step == found.moments.step == STEPS
    for own, theirs in ((found.normalised.parameters(), state.normalised.parameters()), (found.average, state.average),
                        (found.moments.first, state.moments.first)):
        for key, p in theirs.items():
            assert float(np.abs(np.asarray(own[key]) - p).max()) <= amplified(STEPS), key
    if package != "jax":
        arrays = [*found.normalised.parameters().values(), *found.moments.first.values(), *found.average.values()]
        assert len({a.untyped_storage().data_ptr() for a in arrays}) == len(arrays)  # safetensors asks for that
    for step in found.model.steps.steps[1:]:
        assert step.block.certificate.proved
        assert step.block.certificate.bound <= 0.9
    for key, p in begun.normalised.parameters().items():
        assert (np.asarray(p) == kept[key]).all()  # the caller's arrays are not given away


@pytest.mark.thorough
def test_the_memory_of_a_step_is_given_to_the_next_and_callers_keep_theirs() -> None:
    to, states = asarray("jax"), list[training.State]()
    state = training.start(flow(to(X)), settings=SETTINGS)
    run = compiled_training._Run(state, training.maximum_likelihood, ir.Options())
    moving = run.begin(state)
    inputs = run.inputs(to(X), 0)
    compiled_training._compiled(run.step, (moving, *inputs), True)(moving, *inputs)
    assert moving.parameters[compiled_training.ALL].is_deleted()
    compiled_training.fit(state, lambda step: to(X), 3, callback=lambda state, _: states.append(state))
    for number, kept in enumerate(states):
        assert kept.step == number + 1
        assert all(np.isfinite(np.asarray(p)).all() for p in kept.normalised.parameters().values())


@pytest.mark.thorough
def test_what_is_not_finite_ends_the_training_with_the_last_good_state() -> None:
    to = asarray("jax")
    state = training.start(flow(to(X)), settings=SETTINGS)

    def some(step: int) -> Any:
        return to(rows(step) if step < 3 else np.full((16, 2), np.inf))

    with pytest.raises(DivergedError, match=r"expected a finite loss, .* at step 3; try .*; \.state is the last good one") as raised:
        compiled_training.fit(state, some, 9)
    wanted = compiled_training.fit(state, some, 3)
    assert raised.value.state.step == 3
    for key, p in wanted.normalised.parameters().items():
        assert (np.asarray(raised.value.state.normalised.parameters()[key]) == np.asarray(p)).all()


@pytest.mark.thorough
def test_a_classifier_takes_rows_and_labels() -> None:
    to = asarray("jax")
    labels = (X[:, 0] > 0).astype(np.int64)

    def of(like: Any) -> training.State:
        raw = training.Classifier.with_zero_head([ir.ResidualBlock(ir.mlp((2, 5, 2), seed=1, like=like))], 2)
        return training.start(raw, settings=SETTINGS)

    wanted = training.fit(of(X), lambda model, step: training.classification(model, X, labels), STEPS)
    found = compiled_training.fit(of(to(X)), lambda step: (to(X), to(labels)), STEPS, loss=training.classification)
    for key, p in wanted.normalised.parameters().items():
        assert float(np.abs(np.asarray(found.normalised.parameters()[key]) - p).max()) <= amplified(STEPS), key


def test_other_shapes_and_what_cannot_be_compiled_are_refused() -> None:
    to = asarray("jax")
    x = to(X)
    state = training.start(flow(x))

    def refused(error: type[Exception], text: str, state: training.State = state, rows: Any = lambda step: x, **options: Any) -> None:
        with pytest.raises(error) as raised:
            compiled_training.fit(state, rows, 2, **options)
        assert text in str(raised.value)

    refused(ir.ShapeError, "(23, 2)", rows=lambda step: x[step:])
    refused(ValueError, "number of terms is fixed, got one that draws it; try", options=ir.Options(logdet=ir.Roulette()))
    refused(ValueError, "of fixed cost, got standard_error=0.1; try", options=ir.Options(logdet=ir.Series(4, standard_error=0.1)))
    refused(ValueError, "certify_every > 1; try", training.start(flow(x), settings=training.Settings(certify_every=5)))
    refused(ir.DTypeError, "expected weights of JAX or torch, got numpy's; try ir.training.fit", training.start(flow(X)))
    refused(ir.DTypeError, "expected branches that are an ir.Branch, got SandwichBranch; try", training.start(
        ir.Flow([ir.ResidualBlock(ir.sandwich((2, 4, 2), like=x))])))
    wide = ir.Flow([ir.ResidualBlock(ir.mlp((9, 9, 9), like=x))], options=ir.Options(logdet=ir.Exact()))
    refused(ValueError, "at most one factorisation in a step on JAX's CPU", training.start(wide), lambda step: to(np.zeros((3, 9))))
    assert compiled_training.fit(state, lambda step: x, 0).step == 0


@pytest.mark.parametrize("package", ["jax", "torch"])
def test_a_flow_without_residual_blocks_trains(package: str) -> None:
    """There is nothing to prove."""
    to = asarray(package)

    def of(like: Any) -> training.State:
        return training.start(ir.Flow([bijections.ActNorm.uninitialised((2,), like=like)]).initialise(like), settings=SETTINGS)

    wanted = training.fit(of(X), lambda model, step: training.maximum_likelihood(model, rows(step), step=step), STEPS)
    found = compiled_training.fit(of(to(X)), lambda step: to(rows(step)), STEPS, compile=package == "jax")
    for key, p in wanted.normalised.parameters().items():
        assert float(np.abs(np.asarray(found.normalised.parameters()[key]) - p).max()) <= amplified(STEPS), key


@pytest.mark.thorough
def test_a_flow_of_images_trains_on_jax() -> None:
    """The shape of the image recipes: logit, squeeze, ActNorm, convolutions and factor-out, a series with probes, in float32."""
    to = asarray("jax")
    images = RNG.uniform(size=(16, 1, 8, 8)).astype(np.float32)

    def block(shape: tuple[int, int, int]) -> ir.ResidualBlock:
        return ir.ResidualBlock(ir.convnet(shape, channels=(8, 8), kernels=(3, 1, 3), activation="elu", like=to(images)))

    steps = [
        bijections.Logit((1, 8, 8), 0.05), bijections.Squeeze((1, 8, 8)), bijections.ActNorm.uninitialised((4, 4, 4), like=to(images)),
        block((4, 4, 4)), bijections.FactorOut((4, 4, 4), [bijections.ActNorm.uninitialised((2, 4, 4), like=to(images)), block((2, 4, 4))]),
    ]  # fmt: skip
    raw = ir.Flow(steps, options=ir.Options(logdet=ir.Series(4, probes=ir.Probes(seed=1)))).initialise(to(images))
    losses: list[float] = []
    state = training.start(raw, settings=training.Settings(learning_rate=3e-3))
    state = compiled_training.fit(state, lambda step: to(images), 12, callback=lambda _, loss: losses.append(loss))
    assert losses[-1] < losses[0] - 1.0
    state.normalised.require_certified()


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")  # what torch's own compiler warns about is torch's
def test_torch_compiles_the_step_to_machine_code() -> None:
    to, wanted = asarray("torch"), reference(ir.Exact())[1]
    losses: list[float] = []
    state = training.start(flow(to(X), ir.Exact()), settings=SETTINGS)
    compiled_training.fit(state, lambda step: to(rows(step)), STEPS, callback=lambda _, loss: losses.append(loss))
    for step, (a, b) in enumerate(zip(losses, wanted, strict=True)):
        assert abs(a - b) <= amplified(step)
