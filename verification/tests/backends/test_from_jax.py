"""Weights of JAX and stacks of Equinox and Flax agree with the branch made of them, or are refused by place."""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import iresnet_ref as ir
from iresnet_backends import ModuleError, from_jax
from iresnet_ref.arrays import to_host

jax = pytest.importorskip("jax")
jnp = jax.numpy


def weights(*sizes: int, activation: Any = jnp.tanh) -> list[Any]:
    rng = np.random.default_rng(0)
    return [
        (jnp.asarray(rng.standard_normal((b, a)), dtype=jnp.float32), jnp.asarray(rng.standard_normal(b), dtype=jnp.float32), activation)
        for a, b in pairwise(sizes)
    ]


def agree(g: ir.Branch, compute: Callable[[Any], Any]) -> None:
    host = g.with_parameters({k: to_host(p) for k, p in g.parameters().items()})
    points = (2.0 * np.random.default_rng(1).standard_normal((4, *g.event_shape))).astype(host.like.dtype)
    y, rounding, *_ = host.running_error(points)
    x = jnp.asarray(points)
    off = np.linalg.norm(np.asarray(y - np.asarray(compute(x)), dtype=np.float64).reshape(4, -1), axis=1)
    assert (off <= 2.0 * np.asarray(rounding)).all()
    assert off.max() <= 3e-5 * (1.0 + float(np.abs(y).max()))
    certificate = ir.certify(g)
    assert certificate.proved
    change = np.linalg.norm(np.asarray(compute(x[:2]) - compute(x[2:])).reshape(2, -1), axis=1)
    assert (change <= certificate.bound * np.linalg.norm(np.asarray(x[:2] - x[2:]).reshape(2, -1), axis=1) * (1.0 + 1e-5)).all()


ACTIVATIONS = {
    name: getattr(jax.nn, name)
    for name in (
        "relu", "elu", "selu", "celu", "silu", "gelu", "mish", "sigmoid", "log_sigmoid", "softplus", "soft_sign", "tanh", "leaky_relu",
        "hard_tanh", "relu6", "hard_sigmoid", "hard_silu", "identity",
    )
} | {
    "sine": jnp.sin,
    "gelu exact": functools.partial(jax.nn.gelu, approximate=False),
    "gelu by tanh": functools.partial(jax.nn.gelu, approximate=True),
    "elu 2": functools.partial(jax.nn.elu, alpha=2.0),
    "celu 2": functools.partial(jax.nn.celu, alpha=2.0),
    "leaky .3": functools.partial(jax.nn.leaky_relu, negative_slope=0.3),
}  # fmt: skip


# Four activations behind one another: compiling is what these tests cost.
@pytest.mark.parametrize("first", range(0, len(ACTIVATIONS), 4))
def test_a_list_of_weights_biases_and_activations_is_read(first: int) -> None:
    chosen = list(ACTIVATIONS.values())[first : first + 4]
    parts = [(w, b, phi) for (w, b, _), phi in zip(weights(3, 6, 5, 6, 3), chosen, strict=True)]

    def compute(x: Any) -> Any:
        for w, b, phi in parts:
            x = phi(jnp.matmul(x, w.T, precision="highest") + b)
        return x

    agree(from_jax(parts), compute)


def test_missing_biases_and_other_names_are_read() -> None:
    (w, b, _), *_ = weights(3, 3)
    g = from_jax([(w, None, "elu"), (w, b, None)])
    assert [layer.name for layer in g.layers] == ["dense 3→3", "elu", "dense 3→3", "identity"]
    assert not np.asarray(g.layers[0].bias).any()
    moved = from_jax([(w, b, "elu")], like=np.zeros(1))
    assert moved.like.dtype == np.float64


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        ([], ModuleError, "at least one layer with weights"),
        ([(jnp.ones((2, 3)), None, None)], ir.ShapeError, r"whose ends agree.*\(3,\) → \(2,\)"),
        ([(jnp.ones((2, 2)), None, lambda x: 2.0 * x)], ModuleError, r"got <lambda> at the top\[0\], its activation"),
        ([(jnp.ones((2, 2)), None, jax.nn.softmax)], ModuleError, r"got softmax at the top\[0\], its activation"),
        ([(jnp.ones((2, 2)), None, functools.partial(jax.nn.gelu, True))], ModuleError, "got partial"),
        ([(jnp.full((2, 2), jnp.nan), None, None)], ModuleError, "got NaN"),
        ([jax.nn.relu, (jnp.ones((2, 2)), None, None)], ir.ShapeError, "expected event_shape="),
    ],
)
def test_what_is_not_understood_is_named(parts: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        from_jax(parts)


def test_what_differs_from_the_whole_is_refused_with_both_numbers() -> None:
    parts = weights(3, 5, 3)
    with pytest.raises(ModuleError, match=r"got .* from the module and .* from the branch at a probe of size"):
        from_jax(parts, against=lambda x: 0.5 * x)


def equinox(name: str) -> tuple[Any, tuple[int, ...]]:
    eqx = pytest.importorskip("equinox")
    nn, keys = eqx.nn, list(jax.random.split(jax.random.key(0), 4))
    image, line, square = (2, 6, 6), (3, 12), nn.Linear(3, 3, key=keys[0])
    make: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
        "MLP": (lambda: nn.MLP(3, 3, 8, 2, activation=jax.nn.gelu, final_activation=jnp.tanh, key=keys[0]), (3,)),
        "MLP, no biases": (lambda: nn.MLP(3, 3, 8, 1, use_bias=False, use_final_bias=False, key=keys[0]), (3,)),
        "Sequential": (
            lambda: nn.Sequential(
                [nn.Linear(3, 8, key=keys[0]), nn.Lambda(jax.nn.silu), nn.Dropout(0.5), nn.Linear(8, 3, key=keys[1]), nn.Identity()],
            ),
            (3,),
        ),
        "one layer at two places": (lambda: nn.Sequential([square, nn.Lambda(jax.nn.elu), square]), (3,)),
        "Conv2d": (
            lambda: nn.Sequential([nn.Conv2d(2, 4, 3, padding=1, key=keys[0]), nn.Lambda(jax.nn.elu), nn.Conv2d(4, 2, 1, key=keys[1])]),
            image,
        ),
        "Conv2d, grouped, dilated": (lambda: nn.Conv2d(2, 2, 3, padding=2, dilation=2, groups=2, key=keys[0]), image),
        "Conv2d, circular": (lambda: nn.Conv2d(2, 2, 3, padding=1, padding_mode="CIRCULAR", key=keys[0]), image),
        "Conv2d, even, circular": (lambda: nn.Conv2d(2, 2, 2, padding=((1, 0), (0, 1)), padding_mode="CIRCULAR", key=keys[0]), image),
        "Conv1d": (lambda: nn.Conv1d(3, 3, 5, padding="SAME", key=keys[0]), line),
        "Conv1d, causal": (lambda: nn.Conv1d(3, 3, 2, padding=((1, 0),), key=keys[0]), line),
        "Conv3d": (lambda: nn.Conv3d(1, 1, 3, padding=1, key=keys[0]), (1, 4, 4, 4)),
        "AvgPool2d": (lambda: nn.Sequential([nn.Conv2d(2, 2, 3, padding=1, key=keys[0]), nn.AvgPool2d(3, 1, 1)]), image),
    }
    build, event = make[name]
    return build(), event


@pytest.mark.parametrize(
    "name",
    ["MLP", "MLP, no biases", "Sequential", "one layer at two places", "Conv2d", "Conv2d, grouped, dilated", "Conv2d, circular",
     "Conv2d, even, circular", "Conv1d", "Conv1d, causal", "Conv3d", "AvgPool2d"],
)  # fmt: skip
def test_equinox_layers_are_read(name: str) -> None:
    eqx = pytest.importorskip("equinox")
    net, event = equinox(name)
    agree(from_jax(net, event_shape=event), jax.vmap(eqx.nn.inference_mode(net)))
    if len(event) == 1:
        assert from_jax(net.layers if name == "Sequential" else net, event_shape=event).event_shape == event


def test_equinox_layers_that_are_not_understood() -> None:
    eqx = pytest.importorskip("equinox")

    class Masked(eqx.nn.Linear):  # type: ignore[misc, name-defined, unused-ignore]
        def __call__(self, x: Any, *, key: Any = None) -> Any:
            return jnp.tril(self.weight) @ x + self.bias

    key = jax.random.key(0)
    layers = {"Masked": Masked(3, 3, key=key), "LayerNorm": eqx.nn.LayerNorm(3), "MaxPool1d": eqx.nn.MaxPool1d(3, padding=1)}
    for name, layer in layers.items():
        with pytest.raises(ModuleError, match=rf"got {name} at the top.layers\[1\]"):
            from_jax(eqx.nn.Sequential([eqx.nn.Linear(3, 3, key=key), layer]))


def nnx_net(name: str) -> tuple[Any, tuple[int, ...]]:
    nnx = pytest.importorskip("flax.nnx")
    rngs = nnx.Rngs(0)
    make: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
        "dense": (lambda: nnx.Sequential(nnx.Linear(3, 8, rngs=rngs), nnx.gelu, nnx.Linear(8, 3, rngs=rngs)), (3,)),
        "dense, normalised": (
            lambda: nnx.Sequential(
                nnx.Linear(3, 8, rngs=rngs), nnx.BatchNorm(8, use_running_average=True, rngs=rngs), nnx.relu, nnx.Dropout(0.5, rngs=rngs),
                nnx.Linear(8, 3, rngs=rngs, use_bias=False),
            ),
            (3,),
        ),
        "on the last axis": (lambda: nnx.Sequential(nnx.Linear(4, 8, rngs=rngs), nnx.tanh, nnx.Linear(8, 4, rngs=rngs)), (5, 4)),
        "convolutions": (lambda: nnx.Sequential(nnx.Conv(2, 4, (3, 3), rngs=rngs), nnx.silu, nnx.Conv(4, 2, (1, 1), rngs=rngs)), (5, 6, 2)),
        "grouped, dilated": (lambda: nnx.Conv(4, 4, (3, 3), kernel_dilation=2, feature_group_count=2, rngs=rngs), (6, 6, 4)),
        "circular": (lambda: nnx.Conv(2, 2, (3, 3), padding="CIRCULAR", rngs=rngs), (6, 6, 2)),
        "even": (lambda: nnx.Conv(2, 2, (2, 2), rngs=rngs), (6, 6, 2)),
        "one axis": (lambda: nnx.Conv(2, 2, (5,), rngs=rngs), (9, 2)),
    }  # fmt: skip
    build, event = make[name]
    return build(), event


@pytest.mark.parametrize(
    "name", ["dense", "dense, normalised", "on the last axis", "convolutions", "grouped, dilated", "circular", "even", "one axis"]
)
def test_flax_nnx_layers_are_read(name: str) -> None:
    pytest.importorskip("flax.nnx")
    net, event = nnx_net(name)
    g = from_jax(net, event_shape=event)
    net.eval()
    agree(g, net)


def test_flax_modules_of_ones_own_are_given_as_their_layers() -> None:
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            self.first, self.last = nnx.Linear(3, 8, rngs=nnx.Rngs(0)), nnx.Linear(8, 3, rngs=nnx.Rngs(1))

        def __call__(self, x: Any) -> Any:
            return self.last(nnx.softplus(self.first(x)))

    net = Net()
    with pytest.raises(ModuleError, match="got Net at the top; give a module of your own as the list of its layers"):
        from_jax(net, event_shape=(3,))
    agree(from_jax([net.first, nnx.softplus, net.last], against=net), net)
    with pytest.raises(ModuleError, match="from the module and"):
        from_jax([net.first, nnx.silu, net.last], against=net)


@pytest.mark.parametrize("kind", ["dense", "convolutions"])
def test_flax_linen_layers_are_read(kind: str) -> None:
    linen = pytest.importorskip("flax.linen")
    event: tuple[int, ...]
    if kind == "dense":
        net, event = linen.Sequential([linen.Dense(8), linen.elu, linen.BatchNorm(use_running_average=True), linen.Dense(3)]), (3,)
    else:
        net, event = linen.Sequential([linen.Conv(4, (3, 3)), linen.relu, linen.Conv(2, (3, 3), padding="SAME")]), (5, 5, 2)
    variables = net.init(jax.random.key(0), jnp.zeros((1, *event)))
    agree(from_jax(net, event_shape=event, variables=variables), lambda x: net.apply(variables, x))
    with pytest.raises(ModuleError, match="at least one layer with weights"):
        from_jax(net, event_shape=event)
