"""How often the host waits for the device: counted on the CuPy stand-in, and forbidden on torch's meta device."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import cupy
import numpy as np
import pytest

import iresnet_backends
import iresnet_ref as ir
from iresnet_ref.arrays import row_norm
from iresnet_ref.logdet import laws
from iresnet_ref.logdet.exact import exact_logdet
from iresnet_ref.logdet.roulette import roulette_logdet
from iresnet_ref.logdet.series import series_logdet

B, D, L = 40, 6, 0.97
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
    "roulette": lambda F, x, v: roulette_logdet(F.branch.linearize(x)[1], v, LENGTHS, laws.table(laws.geometric(0.99), L)),
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


PUBLIC: dict[str, Callable[[ir.ResidualBlock, Any, bool], Any]] = {
    "forward": lambda F, x, check: F(x, check=check),
    "exact": lambda F, x, check: ir.logdet(F, x, method="exact", check=check),
    "series": lambda F, x, check: ir.logdet(F, x, method="series", terms=6, check=check),
    "roulette": lambda F, x, check: ir.logdet(F, x, method="roulette", probes=ir.Probes(count=9), check=check),
    "auto": lambda F, x, check: ir.logdet(F, x, check=check),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_one_value_check_per_public_call_and_none_without(name: str) -> None:
    F, x = subject()
    assert waits(lambda: PUBLIC[name](F, x, True)) == (1, 1)
    assert waits(lambda: PUBLIC[name](F, x, False)) == (0, 0)


@pytest.mark.parametrize("check_every", [1, 4, 16])
@pytest.mark.parametrize("method", ["banach", "anderson", "auto", "hidden", "newton"])
def test_the_inverse_waits_once_per_check_every_evaluations_or_halving_of_the_batch(method: Any, check_every: int) -> None:
    F, y = subject()
    ir.invert(F, y, method=method, check=False)  # what is derived from the weights is derived once
    found: list[ir.Inverse] = []
    syncs, largest = waits(
        lambda: found.append(ir.invert(F, y, method=method, rtol=1e-10, check_every=check_every, check=False))
    )
    evaluations = int(cupy.asnumpy(found[0].evaluations).max())
    # ‖y‖ once, then the first two evaluations; from there a look comes after check_every evaluations, or earlier where half
    # of the rows should be there (`Goal.ahead`): as many halvings as the batch has. The hidden space is a second iteration
    # with two norms of its own. Newton looks twice per trial: at ‖r‖, and at which rows were rejected
    looks = 3 + math.ceil(math.log2(B)) + -(-evaluations // check_every)
    trials = -(-evaluations // D)
    assert syncs <= {"hidden": 2 + 2 * looks, "auto": 2 + 2 * looks, "newton": 2 + 2 * trials}.get(method, looks)
    assert largest <= 3 * B, "only norms per row come to the host, never the batch"


def test_a_check_is_one_more() -> None:
    F, y = subject()
    ir.invert(F, y)
    assert waits(lambda: ir.invert(F, y))[0] == waits(lambda: ir.invert(F, y, check=False))[0] + 1


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


@pytest.mark.parametrize("name", PUBLIC)
def test_public_calls_skip_their_value_check_where_there_are_no_values(name: str) -> None:
    F, x = subject("torch:cpu")
    F = ir.ResidualBlock(F.branch.with_parameters({k: p.to("meta") for k, p in F.branch.parameters().items()}), L)
    result = PUBLIC[name](F, x.to("meta"), True)
    assert getattr(result, "value", result).device.type == "meta"


def test_public_calls_trace_under_jit() -> None:
    import jax

    F, x = subject("jax:cpu")
    for name in ("forward", "exact", "series"):
        traced = jax.jit(lambda x, f=PUBLIC[name]: getattr(f(F, x, True), "value", f(F, x, True)))(x)
        eager = PUBLIC[name](F, x, True)
        gap = np.abs(np.asarray(traced) - np.asarray(getattr(eager, "value", eager))).max()
        assert gap <= 2.0**-53 * 64 * D / (1 - L), name
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
