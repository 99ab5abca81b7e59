"""The tables behind the laws: constructors × backends. A new block is tested by adding one line."""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from places import ROOT

import iresnet_backends
import iresnet_ref as ir
from iresnet_backends import Backend
from iresnet_backends.capabilities import row
from iresnet_ref.layers.by_name import nonlinearity, widening
from iresnet_ref.layers.diagonal import DiagonalAffine
from iresnet_ref.layers.linear import Affine, LinearLayer
from iresnet_ref.layers.parallel import Parallel
from iresnet_ref.layers.pointwise import Pointwise
from iresnet_ref.layers.rearrangement import Rearrangement
from iresnet_ref.layers.sorting import GroupSort
from iresnet_ref.rounding import gamma

BACKENDS = {
    "numpy-f32": ("numpy", "float32"),
    "numpy-f64": ("numpy", "float64"),
    "torch-f32": ("torch:cpu", "float32"),
    "torch-f64": ("torch:cpu", "float64"),
    "strict-device1-f32": ("array-api-strict:device1", "float32"),
    "strict-device2-f64": ("array-api-strict:device2", "float64"),
    "strict-no_float64-f32": ("array-api-strict:no_float64", "float32"),
    "strict-no_x64-f32": ("array-api-strict:no_x64", "float32"),
    "strict-bare-f64": ("array-api-strict:cpu", "float64"),
    "jax-f32": ("jax:cpu", "float32"),
    "jax-f64": ("jax:cpu", "float64"),
    "cupy-contract-0-f32": ("cupy:0", "float32"),
    "cupy-contract-1-f64": ("cupy:1", "float64"),
}
"""`strict-bare` is without boolean indexing, data-dependent shapes and extensions. `cupy-contract` is the CuPy contract run
(CPU): the stand-in of cupy_contract/ on its two devices. Where IRESNET_GPU is set it is CuPy."""

GPUS = ("cupy:", "torch:cuda", "torch:mps", "jax:gpu")
"""How the names of backends on a GPU begin."""

if os.environ.get("IRESNET_GPU"):
    _GPUS = [name for name in iresnet_backends.available() if name.startswith(GPUS)]
    BACKENDS = {key: b for key, b in BACKENDS.items() if not key.startswith("cupy-contract")}
    BACKENDS |= {
        f"{name}-f{bits}": (name, f"float{bits}") for name in _GPUS for bits in (32, 64) if f"float{bits}" in row(name).dtypes
    }

def _slow(key: str) -> Any:
    return pytest.param(key, marks=pytest.mark.thorough) if key.startswith("jax-") else key


each_backend = pytest.mark.parametrize("key", [_slow(key) for key in BACKENDS])
"""JAX compiles every operation for every shape: in CI it computes elementary functions, the laws run on it in the thorough tests."""

each_arithmetic = pytest.mark.parametrize("key", [_slow(key) for key in BACKENDS if not key.startswith(("strict", "cupy-contract"))])
"""Backends with kernels of their own: array-api-strict and CuPy's stand-in compute with NumPy's, so 50 digits would say the same."""


@contextmanager
def context(key: str | None) -> Iterator[None]:
    """Enter what the backend `key` needs around a test: see `BACKENDS`."""
    with ExitStack() as stack:
        if key == "strict-bare-f64":
            from iresnet_backends.array_api_strict import OPTIONAL, without

            stack.enter_context(without(*OPTIONAL))
        elif key == "jax-f32":  # as in a process that never asked for float64
            import jax

            stack.enter_context(jax.enable_x64(False))
        if key in BACKENDS and BACKENDS[key][0].startswith("cupy"):
            stack.enter_context(backend(key).active())
        yield

Constructor = Callable[[Any, int], ir.Branch]

CONSTRUCTORS: dict[str, Constructor] = {
    "linear d=3 L=.9": lambda like, seed: ir.mlp((3, 3), lipschitz=0.9, seed=seed, like=like),
    "lipswish 2-16-2 L=.9": lambda like, seed: ir.mlp((2, 16, 2), lipschitz=0.9, seed=seed, like=like),
    "elu 3-8-8-3 L=.5": lambda like, seed: ir.mlp((3, 8, 8, 3), activation="elu", lipschitz=0.5, seed=seed, like=like),
    "tanh 5-4-5 L=.97 narrow": lambda like, seed: ir.mlp(
        (5, 4, 5), activation="tanh", lipschitz=0.97, seed=seed, like=like
    ),
    "softplus 4-9-5-4 L=.9": lambda like, seed: ir.mlp(
        (4, 9, 5, 4), activation="softplus", lipschitz=0.9, seed=seed, like=like
    ),
    "sine 3-7-6-5-3 L=.99": lambda like, seed: ir.mlp(
        (3, 7, 6, 5, 3), activation="sine", lipschitz=0.99, seed=seed, like=like
    ),
    "relu 6-6-6 L=.9": lambda like, seed: ir.mlp((6, 6, 6), activation="relu", lipschitz=0.9, seed=seed, like=like),
    "clipswish 2-3-2 L=.9": lambda like, seed: ir.mlp((2, 3, 2), activation="clipswish", lipschitz=0.9, seed=seed, like=like),
    "learnt mixture d=2 L=.97": lambda like, seed: mixture(
        (2, 2, 3, 2), ["learnable clipswish", "learnable lipswish"], 0.97, seed, like
    ),
    "sort mixture d=2 L=.9": lambda like, seed: mixture((2, 4, 2, 2), [GroupSort(4), "maxmin"], 0.9, seed, like),
    "densenet d=2 L=.9": lambda like, seed: ir.densenet(2, depth=3, growth=2, lipschitz=0.9, seed=seed, like=like),
    "skip and scale d=4 L=.9": lambda like, seed: skipping(0.9, seed, like),
    "own layer d=3 L=.9": lambda like, seed: own_layer(0.9, seed, like),
    "sandwich 2-5-4-2 L=.9": lambda like, seed: ir.sandwich((2, 5, 4, 2), activation="elu", lipschitz=0.9, seed=seed, like=like),
    "sandwich d=3 L=.97": lambda like, seed: stretched(ir.sandwich((3, 6, 3), lipschitz=0.97, seed=seed, like=like), seed),
    "symmetric- d=4 L=.99": lambda like, seed: symmetric(4, 0.99, -1.0, seed, like),
    "tiny J d=4": lambda like, seed: ir.mlp((4, 8, 4), lipschitz=1e-7, seed=seed, like=like),
}

IMAGES: dict[str, Constructor] = {
    "conv 2×3×3 3–1 L=.5": lambda like, seed: ir.convnet(
        (2, 3, 3), channels=1, kernels=(3, 1), lipschitz=0.5, seed=seed, like=like
    ),
    "conv 1×4×3 circular L=.9": lambda like, seed: ir.convnet(
        (1, 4, 3), channels=2, kernels=((3, 1), 3), activation="elu", padding="circular", lipschitz=0.9, seed=seed, like=like
    ),
}
"""Branches on images: laws that are stated for events of any shape take them with the others."""


@cache
def backend(key: str) -> Backend:
    """Return the backend of the table."""
    name, dtype = BACKENDS[key]
    return iresnet_backends.get(name, dtype)


@cache
def _digits50() -> Backend:
    return iresnet_backends.get("precision:50")


def digits50() -> Backend:
    """Return the 50-digit oracle; mpmath's precision is a setting of the process, put back to 50 where a test has moved it."""
    b = _digits50()
    b.xp.mp.dps = 50
    return b


def mixture(sizes: tuple[int, ...], activations: list[Any], lipschitz: float, seed: int, like: Any) -> ir.Branch:
    """Return an MLP with another activation behind each layer but the last."""
    layers: list[Any] = []
    rng = np.random.default_rng(seed)
    constants = [nonlinearity(a, like).norm_bound() for a in activations]
    share = (lipschitz / math.prod(constants)) ** (1 / (len(sizes) - 1)) * (1 - 1e-15)
    for (n, m), activation in zip(pairwise(sizes), [*activations, None], strict=True):
        columns = n * (widening(layers[-1]) if layers else 1)
        weight, bias = (ir.arrays.from_host(rng.standard_normal(s), like) for s in ((m, columns), (m,)))
        layers.append(Affine(ir.spectral.normalise(weight, share), bias))
        layers += [] if activation is None else [nonlinearity(activation, like)]
    return ir.Branch(tuple(layers), (sizes[0],))


def skipping(lipschitz: float, seed: int, like: Any) -> ir.Branch:
    """Return a branch with a skip connection inside, entry-wise scales, and its event seen as a 2×2 image in between."""
    g = ir.mlp((4, 4, 4), activation="silu", lipschitz=lipschitz, seed=seed, like=like)
    first, phi, last = g.layers
    scale = ir.arrays.from_host(np.asarray([0.5, -0.25, 0.125, 0.5]), like)
    shrink = DiagonalAffine(scale, 0.25 * scale)
    there, back = Rearrangement((4,), (0,), (2, 2)), Rearrangement((2, 2), (1, 0), (4,))
    return ir.Branch((first, Parallel(((shrink,), (phi, there, back, shrink))), last), (4,))


def stretched(g: ir.Branch, seed: int) -> ir.Branch:
    """Return the sandwich branch with larger X and with scales e^s ≠ 1."""
    rng = np.random.default_rng(seed)
    p = g.parameters()
    scales = {k: v + ir.arrays.from_host(rng.standard_normal(tuple(v.shape)) / 2, v) for k, v in p.items() if k.endswith("scale")}
    return g.with_parameters({k: scales.get(k, 2.0 * v if k.endswith("weight") else v) for k, v in p.items()})


@cache
def page_of_layers(blocks: int) -> dict[str, Any]:
    """Return the names that the first blocks of Python in docs/layers.md make, and as "printed" what they print."""
    names: dict[str, Any] = {"__name__": "page_of_layers"}
    with redirect_stdout(io.StringIO()) as printed:
        for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs/layers.md").read_text("utf-8"), re.S)[:blocks]:
            exec(compile(block, "docs/layers.md", "exec", dont_inherit=True), names)
    return {**names, "printed": printed.getvalue()}


def own_layer(lipschitz: float, seed: int, like: Any) -> ir.Branch:
    """Return a branch with the layer that docs/layers.md makes, of whose rounding nothing is known."""
    first, _, last = ir.mlp((3, 6, 3), lipschitz=lipschitz, seed=seed, like=like).layers
    wave = page_of_layers(1)["Wave"]
    return ir.Branch((first, wave(ir.arrays.from_host(np.asarray([2.0]), like)), last), (3,))


def symmetric(d: int, lipschitz: float, sign: float, seed: int, like: Any) -> ir.Branch:
    """Return g(x) = ±c Wᵀφ(Wx + b): for the minus sign I + J is nearly singular, the hardest inverse."""
    g = ir.mlp((d, 2 * d, d), activation="elu", lipschitz=0.999, seed=seed, like=like)
    p = g.parameters()
    first = ir.spectral.normalise(
        p["0.weight"] * 10.0, lipschitz**0.5
    )  # large: so that it is divided, and its norm is the share
    xp = ir.arrays.namespace(first)
    return g.with_parameters(
        {**p, "0.weight": first, "0.bias": p["0.bias"] + 1.0, "2.weight": xp.matrix_transpose(first) * sign}
    )


def inputs(b: Backend, event: int | tuple[int, ...], seed: int, rows: int = 5) -> Any:
    """Return rows at scales .1, 1, 3, 0 and 30, rounded to the backend's dtype; `event` is a shape, or the length of a vector."""
    shape = (event,) if isinstance(event, int) else event
    scale = np.resize([0.1, 1.0, 3.0, 0.0, 30.0], rows).reshape(rows, *(1,) * len(shape))
    return b.asarray(np.random.default_rng(seed).standard_normal((rows, *shape)) * scale)


def converted(g: ir.Branch, b: Backend) -> ir.Branch:
    """Return the same branch, weights converted exactly, in the arithmetic of b, which is float64 or better."""
    def wide(layer: Any) -> Any:
        return layer.with_parameters({k: b.asarray(ir.arrays.to_host(v).astype(np.float64)) for k, v in layer.parameters.items()})

    return g.of_layers([wide(layer) for layer in g.layers])


def product_rounding(g: ir.Branch, products: int, d: int, u: float) -> float:
    """Return γ_n for one side of a comparison of vᵀJᵏv/‖v‖², k ≤ `products`, |vᵀJᵏv| ≤ ‖v‖²Lᵏ.

    A product with J adds no more terms than the branch has numbers, and the last inner product d of them; weights, survivals and
    means over probes are eight roundings more a term. Entries of both signs may lose √d of it: ‖|J|‖ ≤ √d‖J‖.
    """
    numbers = sum(math.prod(p.shape) for p in g.parameters().values())
    return math.sqrt(d) * gamma(products * (numbers + 8) + d, u)


def at_50_digits(g: ir.Branch) -> ir.Branch:
    """Return the same branch in 50-digit arithmetic."""
    return converted(g, digits50())


def own_gradients(g: ir.Branch, gradients: dict[str, Any]) -> dict[str, Any]:
    """Return gradients with respect to the layers' parameters as those of the branch's, in float64: another thing for sandwich branches."""
    host = {k: ir.arrays.to_host(v) for k, v in gradients.items()}
    if not isinstance(g, ir.SandwichBranch):
        return host
    wide = g.with_parameters({k: ir.arrays.to_host(v).astype(np.float64) for k, v in g.parameters().items()})
    return wide.pulled(host)


def exact(x: Any) -> Any:
    """Return the same array in 50-digit arithmetic."""
    return digits50().asarray(ir.arrays.to_host(x).astype(np.float64))


def exact_preimage(g: ir.Branch, y: Any) -> Any:
    """Return x with ‖y − x − g(x)‖ ≤ 1e-25(1 + ‖y‖) per row, in 50-digit arithmetic: no bound in float64 sees the difference.

    Iterative refinement: residuals at 50 digits, corrections (I + J)⁻¹r in float64, each worth about 13 digits.
    """
    high, low, target = at_50_digits(g), converted(g, backend("numpy-f64")), exact(y)
    rows, start = y.shape[0], ir.arrays.to_host(y).astype(np.float64)
    x = exact(ir.invert(ir.ResidualBlock(low), start, rtol=1e-12, throw=False).x)
    for _ in range(20):
        r = ir.arrays.to_host(target - x - high(x)).astype(np.float64)
        if (np.linalg.norm(r.reshape(rows, -1), axis=1) <= 1e-25 * (1 + np.linalg.norm(start.reshape(rows, -1), axis=1))).all():
            return x
        jacobian = low.linearize(ir.arrays.to_host(x).astype(np.float64))[1].dense()
        step = np.linalg.solve(np.eye(jacobian.shape[-1]) + jacobian, r.reshape(rows, -1, 1))
        x = x + exact(step.reshape(r.shape))
    raise AssertionError("the refinement does not converge: does a row lie on a kink?")


def distance(a: Any, b: Any) -> np.ndarray[Any, Any]:
    """Return ‖a − b‖₂ per row, both taken to 50 digits, as float64."""
    difference = ir.arrays.flatten_events(exact(a) - b, b.ndim - 1)
    xp = ir.arrays.namespace(difference)
    return ir.arrays.to_host(xp.sqrt(xp.sum(difference * difference, axis=-1)))


POINTWISE = {
    name: make
    for name, make in CONSTRUCTORS.items()
    if all(isinstance(layer, LinearLayer | Pointwise) for layer in make(np.zeros(1), 0).layers)
}
"""Linear layers and activations entry by entry: what ball arithmetic is written for."""
