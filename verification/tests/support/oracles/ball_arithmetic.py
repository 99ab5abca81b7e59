"""The same branch in python-flint's ball arithmetic: every number is an interval that contains the true one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from flint import arb, arb_mat

import iresnet_ref as ir
from iresnet_ref.arrays import HostArray, from_host, to_host
from iresnet_ref.layers.linear import LinearLayer
from iresnet_ref.layers.pointwise import Pointwise

Scalar = Callable[[Any], Any]


def sigmoid(z: Any) -> Any:
    return 1 / (1 + (-z).exp())


def positive(z: Any) -> bool:
    return z > 0  # certainly: a ball around 0 is not


TANH_SLOPE: Scalar = lambda z: 1 - z.tanh() ** 2  # noqa: E731
VALUES: dict[str, Scalar] = {
    "identity": lambda z: z,
    "lipswish": lambda z: z * sigmoid(z) / arb(1.1),
    "elu": lambda z: z if positive(z) else z.expm1(),
    "tanh": lambda z: z.tanh(),
    "softplus": lambda z: (1 + z.exp()).log(),
    "sine": lambda z: z.sin(),
    "rising sine": lambda z: (z + z.sin()) / 2,
    "relu": lambda z: z if positive(z) else arb(0),
}
SLOPES: dict[str, Scalar] = {
    "identity": lambda z: arb(1),
    "lipswish": lambda z: sigmoid(z) * (1 + z * sigmoid(-z)) / arb(1.1),
    "elu": lambda z: arb(1) if positive(z) else z.exp(),
    "tanh": TANH_SLOPE,
    "softplus": sigmoid,
    "sine": lambda z: z.cos(),
    "rising sine": lambda z: (1 + z.cos()) / 2,
    "relu": lambda z: arb(1) if positive(z) else arb(0),
}


def columns(rows: HostArray) -> Any:
    """Return float rows as the columns of an exact matrix."""
    return arb_mat([[arb(float(v)) for v in column] for column in np.asarray(rows, dtype=np.float64).T])


def entrywise(f: Scalar, matrix: Any) -> Any:
    return arb_mat(matrix.nrows(), matrix.ncols(), [f(v) for v in matrix.entries()])


def affine(layer: LinearLayer) -> tuple[HostArray, HostArray]:
    """Return (A, b) as a matrix and a vector, exactly: each entry of A is one entry of the weight, or 0."""
    shape = layer.operator.in_shape
    n = math.prod(shape)
    like = layer.weight
    identity = from_host(np.eye(n).reshape(n, *shape), like)
    matrix = to_host(layer.operator.apply(identity)).reshape(n, -1).T
    wide = to_host(layer(0 * identity[:1, ...])).reshape(-1)
    return matrix, wide


def evaluate(branch: ir.Branch, x: Any) -> tuple[Any, list[Any]]:
    """Return g of the columns of x, flattened events, and the input of every activation."""
    inputs = []
    for layer in branch.layers:
        if isinstance(layer, LinearLayer):
            matrix, bias = affine(layer)
            x = columns(matrix.T) * x + arb_mat([[arb(float(b))] * x.ncols() for b in bias])
        else:
            assert isinstance(layer, Pointwise)
            inputs.append(x)
            x = entrywise(VALUES[layer.name], x)
    return x, inputs


def jacobian(branch: ir.Branch, inputs: list[Any], row: int) -> Any:
    """Return J_g of one row, given the inputs of the activations."""
    product, k = None, 0
    for layer in branch.layers:
        if isinstance(layer, LinearLayer):
            w = columns(affine(layer)[0].T)
            product = w if product is None else w * product
        else:
            slopes = [SLOPES[layer.name](inputs[k][i, row]) for i in range(inputs[k].nrows())]
            assert product is not None
            product = arb_mat([[s * product[i, j] for j in range(product.ncols())] for i, s in enumerate(slopes)])
            k += 1
    return product


def logdets(branch: ir.Branch, x: HostArray) -> list[Any]:
    """Return log det(I + J_g) per row."""
    x = x.reshape(x.shape[0], -1)
    _, inputs = evaluate(branch, columns(x))
    d = x.shape[1]
    identity = arb_mat([[int(i == j) for j in range(d)] for i in range(d)])
    return [(identity + jacobian(branch, inputs, row)).det().log() for row in range(x.shape[0])]


def norms(matrix: Any) -> list[Any]:
    """Return ‖column‖₂."""
    squares = [sum((matrix[i, j] * matrix[i, j] for i in range(matrix.nrows())), arb(0)) for j in range(matrix.ncols())]
    return [arb(float("inf")) if s.is_nan() else s.sqrt() for s in map(nonnegative, squares)]


def nonnegative(s: Any) -> Any:
    """Return the part of a ball that a sum of squares can have."""
    return s.nonnegative_part() if hasattr(s, "nonnegative_part") else s


def distances_to_preimage(
    branch: ir.Branch, lipschitz: float, x: HostArray, y: HostArray, near: HostArray | None = None
) -> tuple[list[Any], list[Any]]:
    """Return (distance, rest) per row: ‖x − x*‖ lies within `distance` ± `rest`.

    Two Newton steps from `near` (default x), computed in float64 from residuals in ball arithmetic, lead to a point z with
    ‖z − x*‖ ≤ ‖r(z)‖/(1 − L): that is true whatever the steps were, and small beside ‖x − z‖ if they were good.
    """
    x, y, near = (flat(v) for v in (x, y, x if near is None else near))
    target, now = columns(y), columns(near)
    for _ in range(2):
        residual = as_floats(target - now - evaluate(branch, now)[0])
        like = to_host(branch.like)
        at = as_floats(now).astype(like.dtype).reshape(-1, *branch.event_shape)
        jacobians = branch.linearize(at)[1].dense().astype(np.float64)
        step = np.linalg.solve(np.eye(residual.shape[1]) + jacobians, residual[..., None])[..., 0]
        now = entrywise(lambda v: v.mid(), now + columns(step))
    rest = [n / (1 - arb(lipschitz)) for n in norms(target - now - evaluate(branch, now)[0])]
    return norms(now - columns(x)), rest


def flat(rows: HostArray) -> HostArray:
    return np.asarray(rows).reshape(len(rows), -1)


def as_floats(matrix: Any) -> HostArray:
    """Return the columns as rows of floats."""
    return np.array([[float(v) for v in row] for row in matrix.tolist()]).T
