"""How often the host waits for the device: counted on the CuPy stand-in, and forbidden on torch's meta device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cupy
import numpy as np
import pytest

import iresnet_backends
import iresnet_ref as ir
from iresnet_ref.arrays import device, from_host, indices, row_norm
from iresnet_ref.log_determinant import length_distributions
from iresnet_ref.log_determinant.exact import exact_logdet
from iresnet_ref.log_determinant.length_distributions import geometric
from iresnet_ref.log_determinant.roulette import roulette_logdet
from iresnet_ref.log_determinant.series import series_logdet
from iresnet_ref.rounding import gamma
from iresnet_ref.training.classifier import Classifier
from iresnet_ref.training.loop import Settings, fit, start
from iresnet_ref.training.losses import Loss, classification, hybrid, maximum_likelihood

B, D, L = 40, 12, 0.97
LENGTHS = np.resize([1, 4, 2, 7], (3, B))


def subject(name: str = "cupy:0") -> tuple[ir.ResidualBlock, Any]:
    b = iresnet_backends.get(name, "float64")
    F = ir.ResidualBlock(ir.mlp((D, 16, 16, D), activation="elu", lipschitz=L, like=b.asarray(np.zeros(1))))
    F.contraction()  # weights go to the host once, here
    return F, b.asarray(np.random.default_rng(0).standard_normal((B, D)))


def waits(call: Callable[[], Any]) -> tuple[int, int]:
    """(host synchronisations, entries of the largest array that came to the host) of a call."""
    before, cupy.counter.largest = cupy.counter.syncs, 0
    call()
    return cupy.counter.syncs - before, cupy.counter.largest


KERNELS: dict[str, Callable[[ir.ResidualBlock, Any, Any], Any]] = {
    "branch": lambda F, x, v: F.branch(x),
    "linearize": lambda F, x, v: F.branch.linearize(x),
    "matvec": lambda F, x, v: F.branch.linearize(x)[1].matvec(v),
    "rmatvec": lambda F, x, v: F.branch.linearize(x)[1].rmatvec(v),
    "dense": lambda F, x, v: F.branch.linearize(x)[1].dense(),
    "traces": lambda F, x, v: (F.branch.linearize(x)[1].trace(), F.branch.linearize(x)[1].trace_of_square()),
    "exact": lambda F, x, v: exact_logdet(F.branch.linearize(x)[1]),
    "series": lambda F, x, v: series_logdet(F.branch.linearize(x)[1], v, 6),
    "roulette": lambda F, x, v: roulette_logdet(F.branch.linearize(x)[1], v, LENGTHS, length_distributions.table(geometric(0.99), L)),
    "running error": lambda F, x, v: F.branch.running_error(x),
    "rounding noise": lambda F, x, v: F.branch.rounding_noise(x),
    "pullback": lambda F, x, v: F.branch.pullback(x, v, x, v),
    "row norm": lambda F, x, v: row_norm(x, 1),
}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_never_wait(name: str) -> None:
    F, x = subject()
    v = ir.Probes(count=3).draw(x)
    assert waits(lambda: KERNELS[name](F, x, v)) == (0, 0)


@dataclass(frozen=True)
class World:
    """What public calls are made on: a block, a batch, row weights, a flow, and an image flow that begins with a domain."""

    F: ir.ResidualBlock
    x: Any
    w: Any

    @cached_property
    def like(self) -> Any:
        return self.F.branch.like

    @cached_property
    def flow(self) -> ir.Flow:
        base = ir.densities.DiagonalGaussian(from_host(np.zeros(D), self.like), from_host(np.zeros(D), self.like))
        mixing = ir.bijections.PLULinear.rotation((D,), seed=1, like=self.like)
        steps = [ir.bijections.ActNorm.uninitialised((D,), self.like), self.F, mixing, self.F]
        return ir.Flow(steps, base).initialise(self.x)

    @cached_property
    def images(self) -> ir.Flow:
        conv = ir.ResidualBlock(ir.convnet((4, 4, 4), channels=2, like=self.like), 0.9)
        return ir.Flow([ir.bijections.Logit((2, 8, 8)), ir.bijections.Squeeze((2, 8, 8)), ir.bijections.FactorOut((8, 4, 4), [conv])])

    @cached_property
    def pictures(self) -> Any:
        return from_host(np.random.default_rng(1).uniform(0.0, 255.0, (B, 2, 8, 8)), self.like)

    @cached_property
    def mixed(self) -> ir.Flow:
        base = ir.densities.GaussianMixture(*(from_host(np.zeros(s), self.like) for s in ((3, D), D, 3)))
        return ir.Flow([self.F], base)

    @cached_property
    def classifier(self) -> Classifier:
        return Classifier.with_zero_head([self.F], 3)

    @cached_property
    def labels(self) -> Any:
        return indices(np.arange(B) % 3, self.like)


PUBLIC: dict[str, Callable[[World, bool], Any]] = {
    "forward": lambda o, check: o.F(o.x, check=check),
    "pullback": lambda o, check: o.F.pullback(o.x, y_bar=o.x, check=check),
    "exact": lambda o, check: ir.logdet(o.F, o.x, method="exact", check=check).value,
    "series": lambda o, check: ir.logdet(o.F, o.x, method=ir.Series(6), check=check).value,
    "roulette": lambda o, check: ir.logdet(o.F, o.x, method=ir.Roulette(probes=ir.Probes(count=9)), check=check).value,
    "arnoldi": lambda o, check: ir.logdet(o.F, o.x, method=ir.Arnoldi(4), check=check).value,
    "auto": lambda o, check: ir.logdet(o.F, o.x, check=check).value,
    "error bound": lambda o, check: ir.bounds.logdet_error_bound(o.F, o.x, check=check),
    "ball": lambda o, check: ir.bounds.inverse_ball(o.F, o.x, o.x, check=check).radius,
    "gradient, exact": lambda o, check: of(ir.logdet_gradient(o.F, o.x, weights=o.w, y_bar=o.x, check=check)),
    "gradient, series": lambda o, check: of(ir.logdet_gradient(o.F, o.x, weights=o.w, method=ir.Series(5), check=check)),
    "gradient, roulette": lambda o, check: of(ir.logdet_gradient(o.F, o.x, y_bar=o.x, method="roulette", check=check)),
    "gradient in the forward pass": lambda o, check: ir.backward_in_forward(o.F, o.x, o.w, check=check)[0],
    "flow": lambda o, check: o.flow(o.x, check=check),
    "log p": lambda o, check: o.flow.log_prob(o.x, check=check).value,
    "log p, roulette": lambda o, check: o.flow.log_prob(o.x, options=ir.Options(logdet="roulette"), check=check).value,
    "gradient of log p": lambda o, check: o.flow.log_prob_gradient(o.x, weights=o.w, check=check),
    "log p of images": lambda o, check: o.images.log_prob(o.pictures, check=check).value,
    "likelihood": lambda o, check: of(maximum_likelihood(o.flow, o.x, weights=o.w, check=check)),
    "classification": lambda o, check: of(classification(o.classifier, o.x, o.labels, weights=o.w, check=check)),
    "hybrid": lambda o, check: of(hybrid(o.mixed, o.x, o.labels, weights=o.w, label_weights=o.w, check=check)),
}
ITERATING: dict[str, Callable[[World, bool], Any]] = {
    "invert": lambda o, check: ir.invert(o.F, o.x, check=check),
    "inverse of a composition": lambda o, check: ir.invert([o.F, o.F, o.F], o.x, check=check),
    "inverse of a flow": lambda o, check: o.flow.inverse(o.x, check=check),
    "gradient of the inverse": lambda o, check: ir.inverse_gradient(o.F, o.x, o.x, weights=o.w, check=check),
    "gradient by inversion": lambda o, check: ir.sequence_gradient([o.F, o.F], o.x, o.x, weights=o.w, check=check),
    "log-determinant of the inverse": lambda o, check: ir.logdet_of_inverse(o.F, o.x, check=check),
    "roulette to a standard error": lambda o, check: ir.logdet(
        o.F, o.x, method=ir.Roulette(standard_error=0.1, exact_traces=0), check=check
    ),
}
"""Public calls that decide on values as they go."""


def of(result: Any) -> tuple[Any, dict[str, Any]]:
    """The arrays of a gradient or a loss."""
    if isinstance(result, Loss):
        return result.value, result.gradients
    return result.x_bar, result.parameters


def world(name: str = "cupy:0") -> World:
    F, x = subject(name)
    return World(ir.ResidualBlock(F.branch, L), x, from_host(np.linspace(-1.0, 1.0, B), x))


@pytest.mark.parametrize("name", PUBLIC)
def test_one_value_check_per_public_call_and_none_without(name: str) -> None:
    o = world()
    PUBLIC[name](o, False)  # weights go to the host once, here
    assert waits(lambda: PUBLIC[name](o, True)) == (1, 1)
    assert waits(lambda: PUBLIC[name](o, False)) == (0, 0)


@pytest.mark.parametrize("name", ITERATING)
def test_where_values_decide_the_check_is_one_more_and_no_batch_comes_to_the_host(name: str) -> None:
    o = world()
    ITERATING[name](o, False)
    without, largest = waits(lambda: ITERATING[name](o, False))
    assert waits(lambda: ITERATING[name](o, True)) == (without + 1, largest)
    assert without > 0
    assert largest <= 9 * B < B * D, "norms per row, never the batch"


def test_a_step_of_training_brings_two_numbers_and_the_weights_to_the_host() -> None:
    o = world()
    state, x = start(o.flow), cupy.concatenate([o.x] * 4)

    def step(check: bool) -> tuple[int, int]:
        return waits(lambda: fit(state, lambda model, k: maximum_likelihood(model, x, step=k, check=check), 1))

    step(False)  # what is derived from the first weights is derived once
    syncs, largest = step(False)
    assert largest == 4 * D * 16 < x.size, "the four matrices of one shape, never the batch"
    assert step(True)[0] == syncs + 1
    assert syncs == 5, "loss and gradient norm; the matrices of each of two shapes; whether the biases, and all that is new, are finite"


def test_a_step_between_two_proofs_never_waits() -> None:
    """Five steps wait as often as one does: for the proof at the end of the call."""
    o = world()
    state = start(o.flow, settings=Settings(certify_every=100, clip=1.0, average=0.9))

    def steps(count: int) -> tuple[int, int]:
        return waits(lambda: fit(state, lambda model, k: maximum_likelihood(model, o.x, step=k, check=False), count))

    steps(1)
    assert steps(6) == steps(1)
    seen: list[int] = []

    def loss(model: Any, k: int) -> Loss:
        return maximum_likelihood(model, o.x, step=k, check=False)

    fit(state, loss, 4, callback=lambda s, _: seen.append(cupy.counter.syncs))
    assert len(set(seen)) == 1


def test_dequantisation_leaves_the_picture_where_it_is() -> None:
    integers = indices(np.arange(12).reshape(2, 6), cupy.zeros(1))
    assert waits(lambda: ir.bijections.dequantise(integers, check=False)) == (0, 0)
    assert waits(lambda: ir.bijections.dequantise(integers)) == (1, 1)
    noisy = ir.bijections.dequantise(integers)
    assert (noisy.dtype, device(noisy)) == (cupy.float64, device(integers))


@pytest.mark.parametrize("stated", [None, L])
@pytest.mark.parametrize("check_every", [1, 4, 16])
@pytest.mark.parametrize("method", ["banach", "anderson", "auto", "hidden", "newton"])
def test_the_inverse_waits_at_most_once_per_check_every_evaluations(method: Any, check_every: int, stated: float | None) -> None:
    """Also where the Lipschitz constant is stated, and every look tries to refute it."""
    F, y = subject()
    F = ir.ResidualBlock(F.branch, stated)
    ir.invert(F, y, method=method, check=False)  # what is derived from the weights is derived once
    found: list[ir.Inverse] = []
    syncs, largest = waits(
        lambda: found.append(ir.invert(F, y, method=method, rtol=1e-10, check_every=check_every, check=False))
    )
    evaluations = int(cupy.asnumpy(found[0].evaluations).max())
    # one look to begin with; the hidden space is a second iteration, with a tolerance of its own; Newton looks once per trial
    looks = 1 + evaluations // check_every
    assert syncs <= {"hidden": 2 + looks, "auto": 2 + looks, "newton": 1 + evaluations // D}.get(method, looks)
    assert largest <= (5 if stated is None else 9) * B, "only norms per row come to the host, never the batch"


def test_certificates_move_weights_and_no_batch() -> None:
    b = iresnet_backends.get("cupy:0", "float64")
    F = ir.ResidualBlock(ir.mlp((D, 16, D), like=b.asarray(np.zeros(1))))
    fresh = ir.ResidualBlock(F.branch.with_parameters(F.branch.parameters()))
    syncs, largest = waits(fresh.contraction)
    assert (syncs, largest) == (3, 16 * D), "each weight matrix once, and one look at all biases"


def test_the_counter_sees_a_planted_wait() -> None:
    F, x = subject()
    assert waits(lambda: float(F.branch(x)[0, 0])) == (1, 1)
    assert waits(lambda: cupy.asnumpy(F.branch(x))) == (1, B * D)


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_run_on_a_device_without_data(name: str) -> None:
    """torch's meta device raises wherever a value is asked for, and keeps shapes, dtypes and devices."""
    import torch

    F, x = subject("torch:cpu")
    F = ir.ResidualBlock(F.branch.with_parameters({k: p.to("meta") for k, p in F.branch.parameters().items()}), L)
    for layer, known in zip(F.branch.layers, subject("torch:cpu")[0].branch.layers, strict=True):
        if "_norms" in dir(type(layer)):
            layer.__dict__["_norms"] = known._norms  # norms of weights are known before they lose their data
    v = torch.zeros((3, B, D), dtype=x.dtype, device="meta")
    result = KERNELS[name](F, x.to("meta"), v)
    for array in result if isinstance(result, tuple | list) else [result]:
        if isinstance(array, torch.Tensor):
            assert (array.device.type, array.dtype) == ("meta", torch.float64)


@pytest.mark.parametrize("name", ["forward", "exact", "series", "roulette", "auto"])
def test_public_calls_skip_their_value_check_where_there_are_no_values(name: str) -> None:
    o = world("torch:cpu")
    F = ir.ResidualBlock(o.F.branch.with_parameters({k: p.to("meta") for k, p in o.F.branch.parameters().items()}), L)
    assert PUBLIC[name](World(F, o.x.to("meta"), o.w), True).device.type == "meta"


def leaves(result: Any) -> list[np.ndarray[Any, Any]]:
    """The arrays of a result on the host."""
    if isinstance(result, dict):
        return [a for k in sorted(result) for a in leaves(result[k])]
    if isinstance(result, tuple):
        return [a for r in result if r is not None for a in leaves(r)]
    return [np.asarray(result)]


UNDER_JIT = ["series", "gradient, exact", "log p"]
"""In CI: they hold most of what the others, which trace as well in the thorough tests, are made of."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in UNDER_JIT else [pytest.mark.thorough]) for n in PUBLIC])
def test_public_calls_trace_under_jit(name: str) -> None:
    import jax

    o = world("jax:cpu")
    call = PUBLIC[name]
    eager = leaves(call(o, True))
    kept = {k: v for k, v in vars(o).items() if k not in {"F", "x", "w"}}

    def traced(x: Any, w: Any) -> Any:
        inner = World(o.F, x, w)
        vars(inner).update(kept)
        return call(inner, True)

    for a, b in zip(leaves(jax.jit(traced)(o.x, o.w)), eager, strict=True):
        # XLA adds in another order: sums over B rows of sums of D, 16 and 16 terms, of what (I + J)⁻¹ makes 1/(1 − L) larger
        assert np.abs(a - b).max() <= 2 * gamma(B + D + 16 + 16, 2.0**-53) * D / (1 - L) * (1.0 + np.abs(b).max())


def test_what_decides_on_values_stays_outside_jit() -> None:
    import jax

    F, x = subject("jax:cpu")
    with pytest.raises(ir.DTypeError, match=r"keep what decides on values .* outside jit and vmap: there, state lipschitz="):
        jax.jit(lambda y: ir.invert(F, y).x)(x)


def test_the_exact_logdet_differentiates_under_jit() -> None:
    import jax

    F, x = subject("jax:cpu")
    p = F.branch.parameters()

    def total(q: Any) -> Any:
        block = ir.ResidualBlock(F.branch.with_parameters(q), L)
        return jax.numpy.sum(ir.logdet(block, x, method="exact").value)

    slope = jax.jit(jax.grad(total))(p)
    direction = {k: v * 0 + 1.0 for k, v in p.items()}
    h = 2.0**-16
    ends = [float(total({k: p[k] + s * h * direction[k] for k in p})) for s in (1, -1)]
    claimed = sum(float(jax.numpy.sum(slope[k])) for k in p)
    # central difference: h²/6 times a third derivative of size about (fan-in)³, plus rounding/h
    assert abs((ends[0] - ends[1]) / (2 * h) - claimed) <= h * h * 16**3 * B + 2.0**-53 * 64 * D * B / (1 - L) / h
