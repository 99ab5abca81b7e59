"""The gradient through spectral normalisation, Ŵ = W·min(1, c/σ(W)).

dσ = uᵀ(dW)v at the singular vectors of the σ that the forward pass divided by ([B19] §2.1, Miyato et al. 2018, arXiv
1802.05957), so where σ > c a cotangent Ĝ of Ŵ becomes W̄ = (c/σ)(Ĝ − ⟨Ĝ, W⟩/σ · uvᵀ): the part along W is taken out. Where
σ ≤ c the raw W is used and W̄ = Ĝ. At σ = c, and where the largest singular value is multiple, σ̂ has no gradient; what is
returned is one of its one-sided limits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from iresnet_ref import rounding
from iresnet_ref.arrays import namespace, public, size
from iresnet_ref.branches.branch import Branch
from iresnet_ref.errors import NonFiniteError
from iresnet_ref.layers.layer import Layer
from iresnet_ref.normalisation.norm_gradient import norm_slope
from iresnet_ref.normalisation.shares import lipschitz_shares


@dataclass(frozen=True, eq=False)
class Scaling:
    """`layer` is the raw one with its weight times `scale`; σ and its gradient `slope` are those of the raw weight."""

    layer: Any
    scale: float
    sigma: float
    slope: Any


@public
@dataclass(frozen=True, eq=False)
class NormalisedBranch:
    """A branch of raw weights that training moves, and the certified branch made of them, Lip(g) ≤ `lipschitz`.

    `branch` has every linear layer's weight multiplied by min(1, c/σ), c its share of `lipschitz`; what it stores is what
    is certified, the division included. `pullback` takes gradients with respect to its parameters to the raw ones.
    σ is the norm that the certificate bounds: of a dense layer the largest singular value, of a convolution that of its
    operator, or of the circular one that contains it (`normalisation.norm_gradient`). It is computed in host float64, once per object.

    A branch in the 1-norm or the ∞-norm is divided by those operator norms.

    Limits: no gradient exists at σ = c, and where the largest singular value (column sum, row sum) is tied; near a tie σ
    is known, but the gradient turns quickly.
    Raises: NotContractiveError unless 0 < lipschitz < 1, NonFiniteError for weights or norms that are not finite.

    >>> import numpy as np, iresnet_ref as ir
    >>> raw = ir.mlp((2, 8, 2), lipschitz=0.9)
    >>> raw = raw.with_parameters({k: 3.0 * p for k, p in raw.parameters().items()})
    >>> normalised = ir.NormalisedBranch(raw, lipschitz=0.8)
    >>> F = ir.ResidualBlock(normalised.branch)
    >>> gradient = ir.logdet_gradient(F, np.ones((4, 2))).parameters
    >>> raw_gradient = normalised.pullback(gradient)
    >>> step = {k: p - 0.1 * raw_gradient[k] for k, p in normalised.parameters().items()}
    >>> bool(normalised.with_parameters(step).branch.certificate.bound <= 0.8)
    True
    """

    raw: Branch
    lipschitz: float = 0.9

    def parameters(self) -> dict[str, Any]:
        """Return the raw parameters."""
        return self.raw.parameters()

    @public
    def with_parameters(self, parameters: Mapping[str, Any]) -> NormalisedBranch:
        """Return the same normalisation of other raw parameters. Raises ShapeError."""
        return NormalisedBranch(self.raw.with_parameters(parameters), self.lipschitz)

    @cached_property
    def branch(self) -> Branch:
        """The certified branch."""
        return Branch(
            tuple(
                self._scalings[i].layer if i in self._scalings else layer
                for i, layer in enumerate(self.raw.layers)
            ),
            self.raw.event_shape,
            self.raw.norm,
        )

    @cached_property
    def _scalings(self) -> dict[int, Scaling]:
        """The layers that are divided: those whose raw weight is not proved to keep its share."""
        linear = [i for i, layer in enumerate(self.raw.layers) if "weight" in layer.parameters]
        others = [layer.norm_bound(self.raw.norm) for i, layer in enumerate(self.raw.layers) if i not in linear]
        share = lipschitz_shares(self.lipschitz / math.prod(max(1.0, bound) for bound in others), len(linear))
        scalings = {}
        for i in linear:
            layer = self.raw.layers[i]
            sigma, slope = norm_slope(layer, self.raw.norm)
            if not sigma <= share or layer.norm_bound(self.raw.norm) > share:  # above its share nothing need be proved of it
                scalings[i] = Scaling(*_divided(layer, sigma, share, self.raw.norm), sigma, slope)
        return scalings

    def pullback(self, gradients: Mapping[str, Any]) -> dict[str, Any]:
        """Return the gradients with respect to the raw parameters; `gradients` may be of some parameters only."""
        raw = dict(gradients)
        for i, scaling in self._scalings.items():
            key = f"{i}.weight"
            if key in gradients:
                xp, gradient = namespace(gradients[key]), gradients[key]
                along = xp.sum(gradient * self.raw.layers[i].parameters["weight"]) / scaling.sigma
                raw[key] = scaling.scale * (gradient - along * scaling.slope)
        return raw


def _divided(layer: Layer, sigma: float, share: float, p: float) -> tuple[Any, float]:
    """Return the layer with s·W for its weight W, and s just below share/σ: ‖sW‖ ≤ share is proved, the rounding of sW included.

    The layer that is returned is the one that the proof is about, and carries it.
    """
    if not math.isfinite(sigma):
        raise NonFiniteError(f"NormalisedBranch: expected a norm of {layer.name} within float64, got {sigma}; scale its weight down")
    parameters = dict(layer.parameters)
    weight = parameters["weight"]
    n, taps = min(weight.shape[:2]), size(tuple(weight.shape[2:]))
    slack = taps * taps * (n * n + 32) * rounding.FLOAT64_ROUNDOFF  # about that of the proof: too little costs another one
    margin = rounding.unit_roundoff(weight) + slack
    while True:
        scale = share / (sigma * (1.0 + margin))
        scaled = layer.with_parameters({**parameters, "weight": weight * scale})
        bound = scaled.norm_bound(p)
        if bound <= share:
            return scaled, scale
        margin = 2.0 * max(margin, min(bound / share - 1.0, 1.0))
