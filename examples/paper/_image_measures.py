"""What is measured of a generative model of images: bits per dimension with its errors, and the bias of an estimator.

Bits per dimension of the density that the flow has of dequantised images bound those of the images themselves from above:
−log₂ P(x)/d ≤ E_u[−log₂ p(x + u)]/d (Theis et al. 2016, arXiv 1511.01844).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from _data import Array

import iresnet_ref as ir
from iresnet_ref.arrays import from_host, to_host

HELD_OUT = 2**63
"""Seeds of the noise of measurements start here, those of training at 0."""


@dataclass(frozen=True)
class Bits:
    """The mean of `rows` (draws, images), and the standard error of that mean.

    `standard_error` is over the images, so it holds everything that differs between them: the images themselves, their
    noise and their probes. Of its square, `of_noise`² is due to the dequantisation (NaN from one draw) and the estimator together,
    `of_estimator`² to the estimator alone (0 if exact, NaN below 8 replicates).
    """

    rows: Array
    of_estimator: float

    @property
    def mean(self) -> float:
        return float(self.rows.mean())

    @property
    def standard_error(self) -> float:
        per_image = self.rows.mean(axis=0)
        return float(per_image.std(ddof=1) / math.sqrt(per_image.size))

    @property
    def of_noise(self) -> float:
        draws, images = self.rows.shape
        if draws < 2:
            return math.nan
        return float(np.sqrt(self.rows.var(axis=0, ddof=1).mean() / (draws * images)))

    def facts(self) -> dict[str, float]:
        return {
            "bits per dimension": self.mean, "standard error": self.standard_error,
            "of noise": self.of_noise, "of estimator": self.of_estimator,
        }  # fmt: skip


def dequantised(pixels: Array, like: Any, seed: int) -> Any:
    """Return x + u of integers, on the backend of `like`."""
    return from_host(to_host(ir.bijections.dequantise(pixels, seed=seed)), like)


def bits(flow: ir.Flow, pixels: Array, like: Any, options: ir.Options, *, draws: int = 1, at_once: int = 32) -> Bits:
    """Return the bits per dimension of integer images, `draws` times dequantised, `at_once` rows at a time."""
    values, errors = [], []
    for draw in range(draws):
        for x, own in _batches(flow, dequantised(pixels, like, HELD_OUT + draw), options, at_once, draw):
            found = flow.bits_per_dimension(x, options=own)
            values.append(to_host(found.value))
            errors.append(to_host(found.standard_error))
    rows = np.concatenate(values).astype(np.float64).reshape(draws, len(pixels))
    error = np.concatenate(errors).astype(np.float64)
    return Bits(rows, float(np.sqrt(np.sum(error**2)) / error.size))


def _batches(flow: ir.Flow, x: Any, options: ir.Options, at_once: int, draw: int) -> Iterator[tuple[Any, ir.Options]]:
    """Yield the rows in parts, each with streams of its own: a row's probes are counted from the beginning of its batch."""
    parts = -(-x.shape[0] // at_once)
    for part in range(parts):
        streams = (draw * parts + part) * flow.steps.streams
        yield x[part * at_once : (part + 1) * at_once, ...], options.after(streams)


def truncation_bias(flow: ir.Flow, pixels: Array, like: Any, terms: tuple[int, ...], at_once: int = 16) -> dict[int, Array]:
    """Return for each number of terms E[truncated estimate] − truth of bits per dimension, one entry per image.

    Of log det(I + J), Σ_{k>n} (−1)^{k+1} tr(Jᵏ)/k is left out: here from J itself, multiplied out, so that no probes blur
    it. Negative: the truncated series promises fewer bits than the flow has.
    """
    x, left_out = dequantised(pixels, like, HELD_OUT), {n: np.zeros(len(pixels)) for n in terms}
    for first in range(0, len(pixels), at_once):
        part = slice(first, first + at_once)
        for chain in jacobians(flow.steps, x[part, ...]):
            jacobian = to_host(chain.dense()).astype(np.float64)
            truth = np.linalg.slogdet(np.eye(jacobian.shape[1]) + jacobian)[1]
            power, series = np.eye(jacobian.shape[1]), np.zeros(len(jacobian))
            for k in range(1, max(terms) + 1):
                power = power @ jacobian
                series = series - (-1.0) ** k * np.trace(power, axis1=1, axis2=2) / k
                if k in left_out:
                    left_out[k][part] += truth - series
    return {n: gap / (flow.dimensions * math.log(2.0)) for n, gap in left_out.items()}


def jacobians(steps: Any, x: Any) -> Iterator[Any]:
    """Yield the chain of J_g of every residual block along the path of x, also of those behind a factor-out."""
    for step in steps.steps:
        if isinstance(step, ir.bijections.FactorOut):
            yield from jacobians(step.rest, x[:, : step.rest.in_shape[0], ...])
        elif hasattr(step, "block"):
            yield step.block.branch.linearize(x)[1]
        x = step.value(x)
