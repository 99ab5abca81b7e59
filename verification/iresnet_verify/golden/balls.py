"""A residual branch in ball arithmetic (Arb, by python-flint): value, Jacobian, and the derivatives of both by every parameter.

It shares no formula with the reference. One row is a matrix S = [z | J] with J = ∂z/∂x; with it goes dS/dt for every t among the inputs and
the parameters. Through the layers, with A the matrix of a linear map and φ an activation:

    S ← AS + [b | 0],            dS ← A dS + dA S + [db | 0]
    S ← [φ(z) | φ′(z)J],         dS ← [φ′(z)dz | φ″(z)dz J + φ′(z)dJ]

φ, φ′ and φ″ come from one power series. Every ball contains the true number; its radius at a working precision of p bits, divided by 2⁻ᵖ,
is how much of the unit roundoff an evaluation by these formulas can lose. Reference: F. Johansson, *Arb*, IEEE Trans. Computers 2017.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import flint
import numpy as np
from flint import arb, arb_mat, arb_series


def _sigmoid(z: Any) -> Any:
    return 1 / (1 + (-z).exp())


def _tanh(z: Any) -> Any:
    return 2 * _sigmoid(2 * z) - 1


def _kink(at: Any, left: Callable[[Any], Any], right: Callable[[Any], Any]) -> Any:
    """Return the side of a piecewise function that z lies on for certain."""
    z = at[0]
    if not (z > 0 or z <= 0):
        raise ValueError(f"expected a number on one side of the kink, got {z}; try other inputs or more bits")
    return right(at) if z > 0 else left(at)


def _selu(z: Any) -> Any:
    scale, alpha = arb("1.0507009873554804934193349852946"), arb("1.6732632423543772848170429916717")
    return scale * _kink(z, lambda z: alpha * (z.exp() - 1), lambda z: z)


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "identity": lambda z: z,
    "relu": lambda z: _kink(z, lambda z: 0 * z, lambda z: z),
    "elu": lambda z: _kink(z, lambda z: z.exp() - 1, lambda z: z),
    "selu": _selu,
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "softplus": lambda z: (1 + z.exp()).log(),
    "sine": lambda z: z.sin(),
    "silu": lambda z: z * _sigmoid(z),
    "lipswish": lambda z: z * _sigmoid(z) / arb("1.1"),
    "gelu": lambda z: z * (1 + (z / arb(2).sqrt()).erf()) / 2,
    "gelu tanh": lambda z: z * (1 + _tanh((arb(2) / arb.pi()).sqrt() * (z + arb("0.044715") * z**3))) / 2,
    "mish": lambda z: z * _tanh((1 + z.exp()).log()),
    "softsign": lambda z: _kink(z, lambda z: z / (1 - z), lambda z: z / (1 + z)),
}
"""φ as a function of a power series, by the names of the reference."""


@contextmanager
def bits(precision: int) -> Iterator[None]:
    """Set the working precision of ball arithmetic, and put it back."""
    before = flint.ctx.prec
    flint.ctx.prec = precision
    try:
        yield
    finally:
        flint.ctx.prec = before


def derivatives(name: str, z: Any) -> tuple[Any, Any, Any]:
    """Return φ(z), φ′(z), φ″(z)."""
    series = FUNCTIONS[name](arb_series([z, 1], 3))
    value, slope, half = (series[k] for k in range(3))
    return value, slope, 2 * half


class Row:
    """One row on its way through the layers: S = [z | J], and dS/dt for every direction t, by name."""

    def __init__(self, x: Sequence[Any], *, derivatives: bool = True) -> None:
        d = len(x) if derivatives else 0
        self.derivatives = derivatives
        self.state = arb_mat([[arb(v), *(arb(int(i == j)) for j in range(d))] for i, v in enumerate(x)])
        self.along: dict[tuple[str, int], Any] = {
            ("x", i): arb_mat([[arb(int(i == k)), *[arb(0)] * d] for k in range(d)]) for i in range(d)
        }

    @property
    def d(self) -> int:
        """The dimension of x."""
        return int(self.state.ncols()) - 1

    def value(self) -> list[Any]:
        """Return z."""
        return [self.state[i, 0] for i in range(self.state.nrows())]

    def jacobian(self, of: Any = None) -> Any:
        """Return J, or the derivative of J in `of`."""
        of = self.state if of is None else of
        return arb_mat([[of[i, j + 1] for j in range(self.d)] for i in range(of.nrows())])

    def linear(self, matrix: Any, places: Mapping[tuple[str, int], Any]) -> None:
        """z ← Az; `places` holds dA/dt for the parameters t of A."""
        along = {t: matrix * s for t, s in self.along.items()} | {t: dA * self.state for t, dA in places.items()}
        self.state, self.along = matrix * self.state, along

    def shift(self, b: Sequence[float], name: str, channels: Sequence[int]) -> None:
        """z ← z + b; entry i belongs to parameter channels[i] of b."""
        n, wide = self.state.nrows(), self.state.ncols()
        self.state = self.state + arb_mat([[arb(b[channels[i]]), *[arb(0)] * (wide - 1)] for i in range(n)])
        for k in range(len(b) if self.derivatives else 0):
            self.along[name, k] = arb_mat([[arb(int(channels[i] == k)), *[arb(0)] * (wide - 1)] for i in range(n)])

    def pointwise(self, name: str) -> None:
        """z ← φ(z)."""
        each = [derivatives(name, v) for v in self.value()]
        n, wide = self.state.nrows(), self.state.ncols()

        def moved(s: Any) -> Any:
            return arb_mat([
                [each[i][1] * s[i, 0], *(each[i][2] * s[i, 0] * self.state[i, j] + each[i][1] * s[i, j] for j in range(1, wide))]
                for i in range(n)
            ])

        along = {t: moved(s) for t, s in self.along.items()}
        self.state = arb_mat([[each[i][0], *(each[i][1] * self.state[i, j] for j in range(1, wide))] for i in range(n)])
        self.along = along

    def rows(self, chosen: Sequence[tuple[int, Any]]) -> None:
        """Entry i ← factor · entry k for (k, factor) = chosen[i]: a permutation, a mirror image, a scaling."""
        def picked(s: Any) -> Any:
            return arb_mat([[factor * s[k, j] for j in range(s.ncols())] for k, factor in chosen])

        self.state, self.along = picked(self.state), {t: picked(s) for t, s in self.along.items()}


def through(layers: Sequence[Mapping[str, Any]], x: Sequence[Any], shape: Sequence[int], *, derivatives: bool = True) -> Row:
    """Return the row of g at one event, flattened, of the layers of a case."""
    row, shape = Row(x, derivatives=derivatives), tuple(shape)
    for index, layer in enumerate(layers):
        shape = LAYERS[layer["kind"]](row, layer, f"{index}", shape)
    return row


def entries(layer: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
    """Return which entry of the weight stands at A[i, j], −1 for none, and the shape of an event after the layer.

    A convolution is a cross-correlation of stride 1, the kernel's centre on the pixel; outside the image are zeros or its other side.
    """
    weight = np.asarray(layer["weight"])
    if layer["kind"] == "affine":
        return np.arange(weight.size).reshape(weight.shape), (len(weight),)
    outputs, inputs, high, wide = weight.shape
    _, rows, columns = shape
    found = np.full((outputs, rows, columns, inputs, rows, columns), -1)
    for o, y, x, i, p, q in np.ndindex(outputs, rows, columns, inputs, high, wide):
        v, u = y + p - high // 2, x + q - wide // 2
        if layer["padding"] == "circular" or (0 <= v < rows and 0 <= u < columns):
            found[o, y, x, i, v % rows, u % columns] = np.ravel_multi_index((o, i, p, q), weight.shape)
    return found.reshape(outputs * rows * columns, -1), (outputs, rows, columns)


def matrix_of(layer: Mapping[str, Any], shape: tuple[int, ...]) -> Any:
    """Return A, exactly."""
    weight = np.asarray(layer["weight"], dtype=np.float64).reshape(-1)
    return arb_mat([[arb(float(weight[k])) if k >= 0 else arb(0) for k in line] for line in entries(layer, shape)[0]])


def _linear(row: Row, layer: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """z ← Az + b."""
    entry, after = entries(layer, shape)
    count = np.asarray(layer["weight"]).size if row.derivatives else 0
    places = {(f"{name}.weight", k): arb_mat([[arb(int(e == k)) for e in line] for line in entry]) for k in range(count)}
    row.linear(matrix_of(layer, shape), places)
    pixels = len(entry) // after[0]
    row.shift(layer["bias"], f"{name}.bias", [i // pixels for i in range(len(entry))])
    return after


def _activation(row: Row, layer: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    row.pointwise(layer["name"])
    return shape


def _clipswish(row: Row, layer: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    n = row.state.nrows()
    row.rows([*((k, 1) for k in range(n)), *((k, -1) for k in range(n))])
    row.pointwise("lipswish")
    row.rows([(k, 1 / arb("1.004")) for k in range(2 * n)])
    return 2 * shape[0], *shape[1:]


def _maxmin(row: Row, layer: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    z, pixels, chosen = row.value(), len(row.value()) // shape[0], []
    for first in range(0, shape[0], 2):
        for place in (0, 1):
            for p in range(pixels):
                a, b = first * pixels + p, (first + 1) * pixels + p
                if not (z[a] > z[b] or z[a] < z[b]):
                    raise ValueError(f"expected two numbers that are apart, got {z[a]} and {z[b]}; try other inputs")
                chosen.append(((a if z[a] > z[b] else b) if place == 0 else (b if z[a] > z[b] else a), 1))
    row.rows(chosen)
    return shape


def _concatenation(row: Row, layer: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """z ← [z; f(z)]/√2."""
    before, along = row.state, dict(row.along)
    inner = shape
    for index, one in enumerate(layer["inner"]):
        inner = LAYERS[one["kind"]](row, one, f"{name}.{index}", inner)
    n, half = before.nrows(), 1 / arb(2).sqrt()

    def joined(top: Any, bottom: Any) -> Any:
        return half * arb_mat([*([top[i, j] for j in range(top.ncols())] for i in range(n)),
                               *([bottom[i, j] for j in range(bottom.ncols())] for i in range(bottom.nrows()))])

    nothing = 0 * before
    row.along = {t: joined(along.get(t, nothing), s) for t, s in row.along.items()}
    row.state = joined(before, row.state)
    return shape[0] + inner[0], *shape[1:]


LAYERS: dict[str, Callable[[Row, Mapping[str, Any], str, tuple[int, ...]], tuple[int, ...]]] = {
    "affine": _linear, "conv": _linear, "activation": _activation, "clipswish": _clipswish, "maxmin": _maxmin,
    "concatenation": _concatenation,
}
"""What each kind of layer does to a row; it returns the shape of the event after it."""


def largest_singular_value(matrix: Any) -> Any:
    """Return a ball that contains σ = ‖A‖₂: ‖Av‖²/‖v‖² ≤ σ² for any v, and σ² < s where sI − AAᵀ has a Cholesky factor."""
    gram = matrix * matrix.transpose() if matrix.nrows() <= matrix.ncols() else matrix.transpose() * matrix
    n = gram.nrows()
    near = np.linalg.eigh([[float(gram[i, j].mid()) for j in range(n)] for i in range(n)])[1][:, -1]
    v = arb_mat([[arb(float(c))] for c in near])
    below = (v.transpose() * gram * v)[0, 0] / (v.transpose() * v)[0, 0]
    above = (below * (1 + arb(2) ** -60)).upper()
    if not _positive_definite([[above * int(i == j) - gram[i, j] for j in range(n)] for i in range(n)]):
        raise ArithmeticError(f"expected ‖A‖² < {above}, got no proof of it; try more bits")
    return below.union(arb(above)).sqrt()


def _positive_definite(a: list[list[Any]]) -> bool:
    """Whether Gauss's pivots of a symmetric matrix are all certainly positive. Overwrites it."""
    for k, row in enumerate(a):
        if not row[k] > 0:
            return False
        for below in a[k + 1 :]:
            factor = below[k] / row[k]
            for j in range(k + 1, len(a)):
                below[j] = below[j] - factor * row[j]
    return True


STEEPEST = {"silu": "1.0998394", "gelu": "1.1289042"}
"""Lipschitz constants above 1, rounded up."""


def lipschitz_bound(layers: Sequence[Mapping[str, Any]], shape: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
    """Return a ball around the product of the layers' Lipschitz bounds, and the shape of an event after them."""
    bound = arb(1)
    for layer in layers:
        if "weight" in layer:
            bound, shape = bound * largest_singular_value(matrix_of(layer, shape)), entries(layer, shape)[1]
        elif layer["kind"] == "concatenation":
            inner, after = lipschitz_bound(layer["inner"], shape)
            bound, shape = bound * ((1 + inner * inner) / 2).sqrt(), (shape[0] + after[0], *shape[1:])
        elif layer["kind"] == "clipswish":
            shape = 2 * shape[0], *shape[1:]
        elif layer["kind"] == "activation":
            bound = bound * arb(STEEPEST.get(layer["name"], "1"))
    return bound, shape
