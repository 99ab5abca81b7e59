"""What common mistakes give instead of the golden numbers of a case."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from iresnet_verify.golden.file import read
from iresnet_verify.subject.subject import HostArray


def mistakes(case: Mapping[str, Any], name: str) -> Iterator[tuple[str, HostArray]]:
    """Yield (what is wrong, the numbers it gives) for a quantity, from the vectors of the same case."""
    known = {q: np.asarray(parts["value"]) for q, parts in case["quantities"].items()}
    truth = known[name]
    yield "the sign is wrong", -truth
    if name == "log det":
        yield from _of_log_dets(case, known)
    elif name == "forward":
        x = np.asarray(case["inputs"]["x"])
        yield "g(x) without x", truth - x
        yield "x − g(x)", 2 * x - truth
    elif name == "inverse":
        yield "y itself: no step was made", np.asarray(case["inputs"]["y"])
    elif name.startswith("jacobian"):
        yield "transposed", np.swapaxes(truth, 1, 2)
        yield "that of F: the identity is in it", truth + np.eye(truth.shape[1])
    elif name == "series terms":
        k = np.arange(1, truth.shape[1] + 1)
        yield "divided by k already", truth / k
        yield "with the signs and weights of the series", truth * (-1.0) ** (k + 1) / k
    elif name.startswith("norm of"):
        yield from _of_norms(case, int(name.rsplit(" ", 1)[1]))
    elif name.startswith("gradient"):
        yield "the mean over the rows", truth / len(truth)
        yield "the sum over the rows in every row", np.broadcast_to(truth.sum(axis=0), truth.shape)
    elif case["id"].startswith("activation"):
        yield from _of_activations(case["id"].removeprefix("activation "), name)


def _of_log_dets(case: Mapping[str, Any], known: Mapping[str, HostArray]) -> Iterator[tuple[str, HostArray]]:
    J, truth = known["jacobian of g"], known["log det"]
    d = J.shape[1]
    traces = [np.trace(np.linalg.matrix_power(J, k), axis1=1, axis2=2) for k in range(1, 41)]
    with np.errstate(divide="ignore"):
        yield "log|det J_g|: the identity is missing", np.linalg.slogdet(J)[1]
    yield "log|det(I − J_g)|", np.linalg.slogdet(np.eye(d) - J)[1]
    yield "Σ tr(J^k)/k: the series without its signs", sum((t / k for k, t in enumerate(traces, 1)), 0 * truth)
    yield "Σ (−1)^(k+1) tr(J^k): the series without 1/k", sum((-((-1.0) ** k) * t for k, t in enumerate(traces, 1)), 0 * truth)
    partial = 0 * truth
    for k, t in enumerate(traces[:10], 1):
        partial = partial - (-1.0) ** k * t / k
        yield f"the series cut after {k} {'term' if k == 1 else 'terms'}", partial
    yield "summed over the rows", np.full_like(truth, truth.sum())
    yield "averaged over the rows", np.full_like(truth, truth.mean())
    yield "divided by the dimension", truth / d
    yield "to the base 2", truth / np.log(2.0)
    yield "the determinant without its logarithm", np.exp(truth)


def _of_norms(case: Mapping[str, Any], index: int) -> Iterator[tuple[str, HostArray]]:
    weight = np.asarray(case["layers"][index]["weight"])
    reshaped = weight.reshape(len(weight), -1)
    yield "Frobenius' norm", np.asarray(np.linalg.norm(reshaped))
    yield "the 1-norm", np.abs(reshaped).sum(axis=0).max()
    yield "the ∞-norm", np.abs(reshaped).sum(axis=1).max()
    yield "the largest entry", np.abs(reshaped).max()
    truth = np.asarray(case["quantities"][f"norm of {index}"]["value"])
    yield "its square: the eigenvalue of AᵀA", truth**2
    if weight.ndim > 2:
        yield "the norm of the reshaped kernel, not of the convolution", np.asarray(np.linalg.norm(reshaped, 2))
        yield "that of the circular convolution", _on_a_torus(weight, tuple(case["shape"][1:]))


def _on_a_torus(weight: HostArray, grid: tuple[int, ...]) -> HostArray:
    """‖A‖₂ of the circular convolution on a grid: the largest norm of its symbol."""
    symbol = np.fft.fft2(weight, s=grid)
    return np.asarray(np.linalg.norm(np.moveaxis(symbol, (0, 1), (2, 3)), ord=2, axis=(2, 3)).max())


OTHER_FORMULAS: dict[str, dict[str, Callable[[HostArray], HostArray]]] = {
    "lipswish": {"not divided by 1.1": lambda z: z / (1 + np.exp(-z))},
    "elu": {"α = 1.5": lambda z: np.where(z > 0, z, 1.5 * np.expm1(np.minimum(z, 0.0)))},
    "sine": {"cos": np.cos},
    "softplus": {"ReLU": lambda z: np.maximum(z, 0.0)},
}


def _of_activations(name: str, quantity: str) -> Iterator[tuple[str, HostArray]]:
    for case in read()["cases"]:
        other = case["id"].removeprefix("activation ")
        if case["id"].startswith("activation") and other != name:
            yield f"that of {other}", np.asarray(case["quantities"][quantity]["value"])
    for case in read()["cases"]:
        if case["id"] == f"activation {name}":
            z, swapped = np.asarray(case["inputs"]["z"]), "slope" if quantity == "value" else "value"
            yield f"the {swapped} instead", np.asarray(case["quantities"][swapped]["value"])
            if quantity == "value":
                for how, formula in OTHER_FORMULAS.get(name, {}).items():
                    yield how, formula(z)
