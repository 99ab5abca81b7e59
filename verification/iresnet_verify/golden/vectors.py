"""The golden vectors computed anew, in ball arithmetic at 240 bits.

Amplifications are the radii of the same evaluation at 53 and at 24 bits; that of an inverse is that of F in the 2-norm over 1 − L, that of
a norm is rows + columns + 4 times the norm, the roundings of ‖Av‖/‖v‖.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flint import arb, arb_mat

from iresnet_verify.golden import balls, cases
from iresnet_verify.golden.file import FORMAT, VERSION

BITS = 240
WORKING = (53, 24)
"""Bits of float64 and of float32."""


def make() -> dict[str, Any]:
    """Compute the golden vectors, as what the JSON file holds."""
    made: list[dict[str, Any]] = [of_activation(name) for name in balls.FUNCTIONS]
    made += [of_block(name, shape, layers) for name, (shape, layers) in cases.blocks().items()]
    return {"format": FORMAT, "version": VERSION, "cases": made}


def as_text() -> str:
    """Return them as the text of the file."""
    return json.dumps(make(), separators=(",", ":"), ensure_ascii=False) + "\n"


def of_activation(name: str) -> dict[str, Any]:
    """Return the case of an activation: φ and φ′ at fixed points."""
    found = _at_each_precision(lambda: [balls.derivatives(name, arb(z)) for z in cases.POINTS])
    quantities = {q: _enclosed([[each[k] for each in rows] for rows in found]) for k, q in enumerate(("value", "slope"))}
    return {"id": f"activation {name}", "layers": [cases.activation(name)], "inputs": {"z": cases.POINTS}, "quantities": quantities}


def of_block(name: str, shape: tuple[int, ...], layers: list[cases.Layer]) -> dict[str, Any]:
    """Return the case of a block F(x) = x + g(x)."""
    events = cases.inputs(shape)
    x = [list(map(float, event.reshape(-1))) for event in events]
    v = [[1.0 if (i + k) % 3 else -1.0 for i in range(len(x[0]))] for k in range(len(x))]
    found = _at_each_precision(lambda: [_of_row(layers, shape, row, sign) for row, sign in zip(x, v, strict=True)])
    quantities = {}
    for q in found[0][0]:
        quantities[q] = _enclosed([[row[q] for row in rows] for rows in found])
    quantities |= _norms(layers, shape)
    y = [[round(2 * float(c)) / 2 for c in row] for row in quantities["forward"]["value"]]
    quantities["inverse"] = _inverse(layers, shape, y, quantities)
    return {"id": name, "shape": list(shape), "layers": layers, "inputs": {"x": x, "v": v, "y": y}, "quantities": quantities}


def _of_row(layers: Sequence[cases.Layer], shape: tuple[int, ...], x: Sequence[float], v: Sequence[float]) -> dict[str, Any]:
    """Return everything about F(x) = x + g(x) at one event, in balls."""
    row = balls.through(layers, x, shape)
    J, d = row.jacobian(), len(x)
    whole = arb_mat([[J[i, j] + int(i == j) for j in range(d)] for i in range(d)])
    inverse, signs = whole.inv(), arb_mat([[arb(s)] for s in v])
    terms, w = [], signs
    for _ in range(cases.TERMS):
        w = J.transpose() * w
        terms.append((w.transpose() * signs)[0, 0])
    slopes: dict[str, list[Any]] = {}
    for (name, _), s in row.along.items():
        dJ = row.jacobian(s)
        slopes.setdefault(name, []).append((inverse * dJ).trace())
    return {
        "forward": [arb(a) + b for a, b in zip(x, row.value(), strict=True)],
        "jacobian of g": [[J[i, j] for j in range(d)] for i in range(d)],
        "log det": whole.det().log(),
        "series terms": terms,
        **{f"gradient of log det by {name}": entries for name, entries in slopes.items()},
    }


def _norms(layers: Sequence[cases.Layer], shape: tuple[int, ...]) -> dict[str, Any]:
    """Return ‖A‖₂ of every linear layer of a chain, as a map of whole events."""
    found = {}
    for index, layer in enumerate(layers):
        if "weight" not in layer:
            continue
        with balls.bits(BITS):
            A = balls.matrix_of(layer, balls.lipschitz_bound(layers[:index], shape)[1])
            sigma = balls.largest_singular_value(A)
            value = float(sigma.mid())
            found[f"norm of {index}"] = {
                "value": value, "radius": _up(abs(sigma - arb(value))), "amplification": max(1.0, (A.nrows() + A.ncols() + 4) * value)}
    return found


def _inverse(
    layers: Sequence[cases.Layer], shape: tuple[int, ...], y: Sequence[Sequence[float]], known: Mapping[str, Any]
) -> dict[str, Any]:
    """Return x with F(x) = y: x ← y − g(x), and ‖y − F(x)‖/(1 − L) around it, L the product of the layers' norms."""
    with balls.bits(BITS):
        L = balls.lipschitz_bound(layers, shape)[0]
        if not L < 1:
            raise ValueError(f"expected a contraction for the inverse to be enclosed, got the bound {L}; try smaller weights")
        values, radii = [], []
        for target in y:
            exact = [arb(t) for t in target]
            now = exact
            for _ in range(int(BITS / -np.log2(float(L.mid()))) + 8):
                now = [(t - g).mid() for t, g in zip(exact, _value(layers, now, shape), strict=True)]
            left = [t - n - g for t, n, g in zip(exact, now, _value(layers, now, shape), strict=True)]
            off = sum((abs(r) for r in left), arb(0)) / (1 - L)
            values.append([float(n) for n in now])
            radii.append(max(_up(off + abs(n - arb(float(n)))) for n in now))
        amplified = max(known["forward"]["amplification"]) * math.sqrt(len(y[0])) / (1 - float(L.upper()))
        return {"value": values, "radius": radii, "amplification": [float(f"{amplified:.3g}")] * len(y)}


def _value(layers: Sequence[cases.Layer], x: Sequence[Any], shape: tuple[int, ...]) -> list[Any]:
    return balls.through(layers, x, shape, derivatives=False).value()


def _at_each_precision(evaluate: Any) -> list[Any]:
    found = []
    for precision in (BITS, *WORKING):
        with balls.bits(precision):
            found.append(evaluate())
    return found


def _enclosed(rows_at: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Return value, radius and amplification of rows of balls, given at 240 bits and at the working precisions."""
    found: dict[str, Any] = {"value": [], "radius": [], "amplification": []}
    for truth, *working in zip(*rows_at, strict=True):
        flat, lost = _flat(truth), 1.0
        for row, p in zip(working, WORKING, strict=True):
            lost = max([lost, *(float(b.rad()) * 2.0**p for b in _flat(row))])
        found["value"].append(_nested(truth))
        found["radius"].append(max(_up(abs(b - arb(float(b.mid())))) for b in flat))
        found["amplification"].append(float(f"{max([lost, *(abs(float(b.mid())) for b in flat)]):.3g}"))
    return found


def _flat(nest: Any) -> list[Any]:
    return [b for entry in nest for b in _flat(entry)] if isinstance(nest, list) else [nest]


def _nested(nest: Any) -> Any:
    return [_nested(entry) for entry in nest] if isinstance(nest, list) else float(nest.mid())


def _up(ball: Any) -> float:
    """Return three digits of the upper end, rounded up."""
    upper = float(ball.upper())
    return float(f"{upper * 1.01:.2e}")


if __name__ == "__main__":
    Path(__file__).with_name("vectors.json").write_text(as_text(), encoding="utf-8")
