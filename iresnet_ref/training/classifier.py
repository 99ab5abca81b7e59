"""A classifier on invertible features: logits = W F(x) + b, F a composition of bijections ([B19] §5.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from iresnet_ref.arrays import Array, device, flatten_events, namespace, product, public, size
from iresnet_ref.arrays.validation import require_alike, require_batch
from iresnet_ref.errors import ShapeError
from iresnet_ref.flows.bijections.composition import as_composition
from iresnet_ref.flows.bijections.protocol import Record


@public
@dataclass(frozen=True)
class Classifier:
    """Logits W F(x) + b of shape (batch, classes): W = `weight` (classes, d), b = `bias` (classes,), d the features' number.

    `steps` are residual blocks and bijections, as those of `ir.Flow`. Raises: ShapeError, DTypeError. Reference: [B19] §5.1.

    >>> import numpy as np, iresnet_ref as ir
    >>> model = Classifier.with_zero_head([ir.ResidualBlock(ir.mlp((2, 8, 2)))], 3)
    >>> model(np.ones((4, 2))).shape
    (4, 3)
    """

    steps: Any
    weight: Array
    bias: Array

    def __post_init__(self) -> None:
        steps = as_composition(self.steps)
        object.__setattr__(self, "steps", steps)
        d, classes = size(steps.out_shape), tuple(self.bias.shape)
        if len(classes) != 1 or tuple(self.weight.shape) != (*classes, d):
            raise ShapeError(
                f"classifier: expected weight (classes, {d}) and bias (classes,), got {tuple(self.weight.shape)} and {classes}; "
                "try Classifier.with_zero_head(steps, classes)"
            )
        for array in (*steps.parameters().values(), self.bias):
            require_alike(array, self.weight, "classifier")

    @classmethod
    @public
    def with_zero_head(cls, steps: Any, classes: int) -> Classifier:
        """Return one whose head is zero: every class is as likely, and the first step moves the head alone."""
        if classes < 1:
            raise ShapeError(f"classifier: expected classes ≥ 1, got {classes}; try as many as there are labels")
        composition = as_composition(steps)
        arrays = list(composition.parameters().values())
        if not arrays:
            raise ShapeError("classifier: expected steps with parameters, got none; try [ir.ResidualBlock(ir.mlp((2, 8, 2)))]")
        xp, like = namespace(arrays[0]), arrays[0]
        shapes = ((classes, size(composition.out_shape)), (classes,))
        weight, bias = (xp.zeros(shape, dtype=like.dtype, device=device(like)) for shape in shapes)
        return cls(composition, weight, bias)

    @public
    def __call__(self, x: Array, *, check: bool = True) -> Array:
        """Return the logits of x (batch, *event). Raises ShapeError, DTypeError, NonFiniteError."""
        self.require(x, check=check)
        return self.logits(self.features(x))

    def require(self, x: Array, *, check: bool = True) -> None:
        """Refuse what is no batch of events like the parameters."""
        require_batch(x, self.steps.in_shape, "x", check=check)
        require_alike(x, self.weight, "x")

    def features(self, x: Array) -> Array:
        """Return F(x), flat: (batch, d)."""
        y = self.steps.value(x)
        return flatten_events(y, y.ndim - 1)

    def logits(self, features: Array) -> Array:
        """Return W·features + b."""
        return product(features, namespace(features).permute_dims(self.weight, (1, 0))) + self.bias

    @public
    def initialise(self, x: Array) -> Classifier:
        """Return it with the steps' data-dependent state set from the batch x."""
        self.require(x)
        return replace(self, steps=self.steps.initialise(x))

    def parameters(self) -> dict[str, Array]:
        """Return the parameters of the steps, "head.weight" and "head.bias"."""
        return {**self.steps.parameters(), "head.weight": self.weight, "head.bias": self.bias}

    @public
    def with_parameters(self, parameters: Mapping[str, Array]) -> Classifier:
        """Return it with these parameters; the keys are those of `parameters()`. Raises ShapeError."""
        rest = dict(parameters)
        try:
            weight, bias = rest.pop("head.weight"), rest.pop("head.bias")
        except KeyError as missing:
            raise ShapeError(f"parameters: expected head.weight and head.bias, got no {missing}; try the keys of parameters()") from None
        return Classifier(self.steps.with_parameters(rest), weight, bias)

    def pullback(self, x: Array, logits_bar: Array) -> tuple[Array, dict[str, Array]]:
        """Return (x̄, gradients) of Σ ⟨logits_bar, logits(x)⟩."""
        return self.pullback_from(self.steps.record(x, None), logits_bar)

    def pullback_from(self, record: Record, logits_bar: Array) -> tuple[Array, dict[str, Array]]:
        """Return `pullback` from the record of the steps."""
        xp, y = namespace(record.value), record.value
        y_bar = xp.reshape(product(logits_bar, self.weight), y.shape)
        x_bar, gradients = record.pullback(y_bar)
        weight = product(xp.permute_dims(logits_bar, (1, 0)), flatten_events(y, y.ndim - 1))
        return x_bar, {**gradients, "head.weight": weight, "head.bias": xp.sum(logits_bar, axis=0)}
