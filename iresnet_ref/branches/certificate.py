"""A proved Lipschitz constant of a branch: the product of its layers' proved bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from iresnet_ref.arrays import all_finite, namespace, to_host
from iresnet_ref.layers.layer import Layer
from iresnet_ref.norms.host_arithmetic import require_gradual_underflow
from iresnet_ref.norms.induced import of_norm


@dataclass(frozen=True)
class Certificate:
    """A proved upper bound on a Lipschitz constant; `bound` is inf, and `reason` states why, where nothing is proved.

    `bound` is rounded up; `reason` names what it is made of. It belongs to the weights as they were: branches are values.

    >>> import iresnet_ref as ir
    >>> found = ir.certify(ir.mlp((2, 8, 2), lipschitz=0.5))
    >>> found.proved, 0.0 < found.bound <= 0.5
    (True, True)
    """

    bound: float
    proved: bool
    reason: str


def product_certificate(layers: Sequence[Layer], norm: float = 2.0, *, whole: bool = False) -> Certificate:
    """Return the certificate of a composition: the product of its layers' proved bounds in this norm, rounded up ([B19] §2).

    `whole` where all biases are known to be finite.
    """
    require_gradual_underflow()
    bounds, whole = [(layer.name, layer.norm_bound(norm)) for layer in layers], whole or biases_are_finite(layers)
    for layer, (name, bound) in zip(layers, bounds, strict=True):
        if not (0.0 <= bound < math.inf and (whole or biases_are_finite([layer]))):
            return Certificate(math.inf, False, f"no bound on the norm of {name} is proved: {_obstacle(layer)}")
    total = 1.0
    for _, bound in bounds:
        if bound != 1.0 and total != 0.0:  # nothing rounds with 1; and 0 is exact
            total = math.nextafter(total * bound, math.inf) if bound else 0.0
    if total == math.inf:
        return Certificate(math.inf, False, "no bound is proved: the product of the layers' norms overflows float64")
    return Certificate(total, True, "product of " + ", ".join(f"{name} ≤ {b:.6g}" for name, b in bounds) + of_norm(norm))


def biases_are_finite(layers: Sequence[Layer]) -> bool:
    """Return whether what no norm sees is finite: one host synchronisation for all biases."""
    biases = [p for layer in layers for name, p in layer.parameters.items() if name.endswith("bias")]
    flat = [namespace(bias).reshape(bias, (-1,)) for bias in biases]
    return not flat or all_finite(namespace(*flat).concat(flat, axis=0))


def _obstacle(layer: Layer) -> str:
    if not layer.parameters:
        return "its activation states no finite Lipschitz constant; state one if you know it"
    for name, parameter in layer.parameters.items():
        if not np.isfinite(to_host(parameter)).all():
            return f"its {name} holds NaN or infinity in float64; look for the step that produced them"
    return "it is beyond the range of float64; scale the weights down"
