"""AdamW, clipping, warm-up and the exponential moving average, as pure functions of dictionaries of arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from iresnet_ref.arrays import Array, Packed, Packing, namespace, public, stack_norm, whole_number
from iresnet_ref.arrays.packing import alike
from iresnet_ref.arrays.validation import require_array, require_real
from iresnet_ref.errors import ShapeError

Arrays = Mapping[str, Array]


@public
@dataclass(frozen=True)
class Moments:
    """Running means of the gradient (`first`) and its square (`second`) after `step` steps.

    Shapes: those of the parameters. Reference: Kingma, Ba 2015, arXiv 1412.6980.

    >>> import numpy as np, iresnet_ref as ir
    >>> ir.training.Moments.zero({"a": np.ones(2)}).first["a"].tolist()
    [0.0, 0.0]
    """

    first: Arrays
    second: Arrays
    step: int = 0

    @classmethod
    @public
    def zero(cls, parameters: Arrays) -> Moments:
        """Return the moments before the first step."""
        for key, p in parameters.items():
            require_array(p, f"parameters[{key!r}]")
        first, second = ({k: namespace(p).zeros_like(p) for k, p in parameters.items()} for _ in range(2))
        return cls(first, second)


@public
def adamw(
    parameters: Arrays,
    gradients: Arrays,
    moments: Moments,
    *,
    learning_rate: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
) -> tuple[dict[str, Array], Moments]:
    """Return (parameters, moments) after one step of AdamW, of Adam where `weight_decay` is 0.

    m ← β₁m + (1 − β₁)g, s ← β₂s + (1 − β₂)g², θ ← θ(1 − ηλ) − η m̂/(√ŝ + ε), with m̂ = m/(1 − β₁ᵗ) and ŝ = s/(1 − β₂ᵗ).
    Raises ShapeError for gradients or moments that are not those of the parameters: nothing is skipped or broadcast silently.
    Limits: in float32 g² underflows below about |g| = 1e-19: the step is η m̂/ε; it overflows above 1.8e19: the step stays 0.
    Reference: Loshchilov, Hutter, *Decoupled Weight Decay Regularization*, ICLR 2019, arXiv 1711.05101; Kingma, Ba 2015, arXiv 1412.6980.

    >>> import numpy as np
    >>> p = {"a": np.asarray([1.0, -2.0])}
    >>> moved, _ = adamw(p, {"a": np.asarray([3.0, -0.1])}, Moments.zero(p), learning_rate=0.5)
    >>> np.round(moved["a"], 6).tolist()
    [0.5, -1.5]
    """
    require_fitting(gradients, parameters)
    for own in (moments.first, moments.second):
        require_fitting(own, parameters)
    if not all(0.0 <= b < 1.0 for b in betas):
        raise ValueError(f"adamw: expected betas in [0, 1), got {betas}; try (0.9, 0.999)")
    whole_number("adamw: moments.step", moments.step, 0)
    if not (math.isfinite(learning_rate) and epsilon > 0.0 and 0.0 <= weight_decay < math.inf):
        raise ValueError(
            "adamw: expected a finite learning_rate, epsilon > 0 and 0 ≤ weight_decay < inf, got "
            f"{learning_rate}, {epsilon} and {weight_decay}; try the defaults"
        )
    numbers = step_numbers(moments.step, learning_rate, betas, epsilon, weight_decay)
    moved, first, second = dict[str, Array](), dict[str, Array](), dict[str, Array]()
    for packing in alike(parameters):
        entries = (packing.together(a) for a in (parameters, gradients, moments.first, moments.second))
        for found, new in zip((moved, first, second), moved_by(numbers, betas, *entries), strict=True):
            found.update(packing.apart(new))
    return moved, Moments(first, second, moments.step + 1)


def step_numbers(
    step: int, learning_rate: float, betas: tuple[float, float], epsilon: float, weight_decay: float
) -> dict[str, float]:
    """Return what AdamW multiplies by after `step` steps: η/(1 − β₁ᵗ), (1 − β₂ᵗ)^½, ε and 1 − ηλ, t = step + 1."""
    b1, b2 = betas
    rate, root = learning_rate / (1.0 - b1 ** (step + 1)), (1.0 - b2 ** (step + 1)) ** 0.5
    return {"rate": rate, "root": root, "epsilon": epsilon, "keep": 1.0 - learning_rate * weight_decay}


def moved_by(
    numbers: Mapping[str, Any], betas: tuple[float, float], parameters: Array, gradients: Array, first: Array, second: Array
) -> tuple[Array, Array, Array]:
    """Return (parameters, first, second moments) after the step of AdamW that these numbers, floats or 0-d arrays, belong to."""
    b1, b2 = betas
    first = b1 * first + (1.0 - b1) * gradients
    second = b2 * second + (1.0 - b2) * (gradients * gradients)
    rate, root, epsilon, keep = (numbers[name] for name in ("rate", "root", "epsilon", "keep"))
    return keep * parameters - rate * first / (namespace(parameters).sqrt(second) / root + epsilon), first, second


@public
def global_norm(gradients: Arrays) -> Array:
    """Return the 2-norm of all gradients together, a 0-d array; it overflows only where the norm itself does.

    >>> import numpy as np
    >>> float(global_norm({"a": np.asarray([3.0]), "b": np.asarray([[4.0]])}))
    5.0
    """
    return stack_norm(flat(gradients.values()))


def flat(arrays: Iterable[Array]) -> Array:
    """Return the entries of all arrays behind each other, (n,)."""
    arrays = list(arrays)
    if not arrays:
        raise ShapeError("gradients: expected at least one array, got none; try those of a model with parameters")
    for array in arrays:
        require_array(array, "gradients")
    xp = namespace(*arrays)
    return xp.concat([a if a.ndim == 1 else xp.reshape(a, (-1,)) for a in arrays], axis=0)


@public
def clip(gradients: Arrays, largest: float, norm: Array | None = None) -> dict[str, Array]:
    """Return the gradients times min(1, largest/‖g‖), ‖g‖ = `norm`, by default `global_norm`: the direction stays.
    Raises: ValueError for largest ≤ 0, ShapeError for a norm that is no number, DTypeError.

    >>> import numpy as np
    >>> np.round(clip({"a": np.asarray([3.0, 4.0])}, 1.0)["a"], 3).tolist()
    [0.6, 0.8]
    """
    if not 0.0 < largest < math.inf:
        raise ValueError(f"clip: expected 0 < largest < inf, got {largest}; try 1.0")
    if norm is not None:
        require_real(norm, "norm")
        if norm.ndim:
            raise ShapeError(f"clip: expected norm as a 0-d array, got shape {tuple(norm.shape)}; try global_norm(gradients)")
    norm = global_norm(gradients) if norm is None else norm
    xp = namespace(norm)
    factor = largest / xp.maximum(norm, xp.full_like(norm, largest))
    return {k: factor * g for k, g in gradients.items()}


def require_fitting(gradients: Arrays, parameters: Arrays) -> None:
    """Refuse gradients that are not those of the parameters: none is skipped, or broadcast, silently. Raises ShapeError."""
    if isinstance(gradients, Packed) and gradients.packing == Packing.of(parameters):
        return
    others = sorted((k for k, p in parameters.items() if getattr(gradients.get(k), "shape", None) != getattr(p, "shape", ())), key=str)
    if others:
        raise ShapeError(
            f"gradients: expected a gradient of the shape of each parameter, got none or others at {others[:5]}; "
            "try those that maximum_likelihood, classification or hybrid return"
        )


@public
def warm_up(step: int, steps: int) -> float:
    """Return the factor of the learning rate at step 0, 1, …: (step + 1)/steps up to 1.

    >>> [warm_up(k, 4) for k in (0, 1, 3, 9)]
    [0.25, 0.5, 1.0, 1.0]
    """
    return min(1.0, (step + 1) / steps) if steps > 0 else 1.0


@public
def averaged(average: Arrays, parameters: Arrays, decay: float) -> dict[str, Array]:
    """Return decay·average + (1 − decay)·parameters.
    Raises: ValueError for a decay outside [0, 1], ShapeError for other names.

    >>> averaged({"a": 1.0}, {"a": 3.0}, 0.75)
    {'a': 1.5}
    """
    if not 0.0 <= decay <= 1.0:
        raise ValueError(f"averaged: expected 0 ≤ decay ≤ 1, got {decay}; try 0.99")
    if average.keys() != parameters.keys():
        raise ShapeError(f"averaged: expected the keys {sorted(parameters)}, got {sorted(average)}; try the average of these parameters")
    return {k: decay * average[k] + (1.0 - decay) * p for k, p in parameters.items()}
