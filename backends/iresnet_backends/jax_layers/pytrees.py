"""Values and results of the reference as pytrees of JAX: arrays are leaves, everything else is structure.

What is proved of weights is no leaf and does not travel with them: a branch that comes out of a transformation of JAX holds other
numbers, and is proved anew where it is asked. A `Certificate` is structure as a whole, so that nothing can move its bound.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax

import iresnet_ref as ir
from iresnet_ref import bijections, densities, layers, training
from iresnet_ref.branches.certificate import Certificate
from iresnet_ref.branches.certificates.two_sided import TwoSided
from iresnet_ref.flows.base import BitsPerDimension, LogProb
from iresnet_ref.gradient.result import InverseGradient, LogDetGradient, SequenceGradient
from iresnet_ref.inversion.ball import Ball
from iresnet_ref.inversion.composition import PathInverse
from iresnet_ref.inversion.result import Inverse
from iresnet_ref.log_determinant.inverse import InverseLogDet
from iresnet_ref.log_determinant.result import LogDet

_LOG_DET = ("value", "standard_error", "bias_bound", "evaluations", "skewness")
_INVERSE = ("x", "residual_norm", "error_bound", "evaluations", "converged", "covers_computed")

LEAVES: dict[Any, tuple[str, ...]] = {
    layers.Affine: ("weight", "bias"),
    layers.Conv: ("weight", "bias"),
    layers.DiagonalAffine: ("scale", "bias"),
    layers.LipSwish: ("raw",),
    layers.CLipSwish: ("inner",),
    layers.Concatenation: ("inner", "raw"),
    layers.Parallel: ("paths",),
    layers.Pointwise: (),
    layers.GroupSort: (),
    layers.Rearrangement: (),
    ir.Branch: ("layers",),
    ir.ResidualBlock: ("branch",),
    ir.Flow: ("steps", "base"),
    bijections.Residual: ("block",),
    bijections.Composition: ("steps",),
    bijections.FactorOut: ("rest",),
    bijections.ActNorm: ("log_scale", "shift"),
    bijections.PLULinear: ("lower", "upper", "log_scale"),
    bijections.ContextShift: ("weight", "context"),
    bijections.Logit: (),
    bijections.Permutation: (),
    bijections.Squeeze: (),
    bijections.ZeroPad: (),
    densities.StandardGaussian: ("like",),
    densities.DiagonalGaussian: ("mean", "log_scale"),
    densities.GaussianMixture: ("means", "log_scale", "logits"),
    training.Classifier: ("steps", "weight", "bias"),
    training.Loss: ("value", "gradients"),
    LogDet: _LOG_DET,
    InverseLogDet: (*_LOG_DET, "inverse", "displacement_bound"),
    LogProb: ("value", "standard_error", "bias_bound", "log_det"),
    BitsPerDimension: ("value", "standard_error", "bias_bound"),
    Inverse: _INVERSE,
    PathInverse: (*_INVERSE, "vacuous", "amplification_estimate"),
    Ball: ("radius", "residual_norm"),
    LogDetGradient: ("parameters", "x_bar", "evaluations"),
    InverseGradient: ("parameters", "y_bar", "residual_norm", "error_bound", "evaluations"),
    SequenceGradient: ("parameters", "x_bar", "x", "reconstructions", "radius"),
    Certificate: (),
    TwoSided: (),
}
"""Type → its fields that hold arrays, or parts that do."""


def register(kind: type, leaves: Iterable[str]) -> None:
    """Make a dataclass a pytree whose `leaves` are the fields that hold arrays, or parts that do; all others are structure.

    For layers and bijections of your own; those of the reference are registered when this package is imported.
    Raises: ValueError for a name that is no field, and where JAX knows the type already.

    >>> import dataclasses, jax, numpy as np
    >>> @dataclasses.dataclass(frozen=True)
    ... class Scale:
    ...     factor: np.ndarray
    ...     name: str = "scale"
    >>> register(Scale, ("factor",))
    >>> jax.tree.map(lambda a: 2 * a, Scale(np.ones(1)))
    Scale(factor=array([2.]), name='scale')
    """
    moving, names = tuple(leaves), tuple(f.name for f in dataclasses.fields(kind))
    for name in moving:
        if name not in names:
            raise ValueError(f"register: expected names of fields of {kind.__name__}, {', '.join(names)}, got {name!r}; try one of these")
    fixed = tuple(name for name in names if name not in moving)
    keys = tuple(jax.tree_util.GetAttrKey(name) for name in moving)

    def flatten(value: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return tuple(getattr(value, name) for name in moving), tuple(getattr(value, name) for name in fixed)

    def flatten_with_keys(value: Any) -> tuple[tuple[tuple[Any, Any], ...], tuple[Any, ...]]:
        parts, structure = flatten(value)
        return tuple(zip(keys, parts, strict=True)), structure

    def unflatten(structure: tuple[Any, ...], parts: Iterable[Any]) -> Any:
        value: Any = object.__new__(kind)  # past the validation: JAX puts anything in the places of arrays
        for name, part in zip((*fixed, *moving), (*structure, *parts), strict=True):
            object.__setattr__(value, name, part)
        return value

    jax.tree_util.register_pytree_with_keys(kind, flatten_with_keys, unflatten, flatten)


for _kind, _leaves in LEAVES.items():
    register(_kind, _leaves)
