"""The gradient through spectral normalisation, Ŵ = W·min(1, c/σ(W)).

dσ = uᵀ(dW)v at the singular vectors of the σ that the forward pass divided by ([B19] §2.1, Miyato et al. 2018, arXiv
1802.05957), so where σ > c a cotangent Ĝ of Ŵ becomes W̄ = (c/σ)(Ĝ − ⟨Ĝ, W⟩/σ · uvᵀ): the part along W is taken out. Where
σ ≤ c the raw W is used and W̄ = Ĝ. At σ = c, and where the largest singular value is multiple, σ̂ has no gradient; what is
returned is one of its one-sided limits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, namespace, public, size
from iresnet_ref.branches.branch import Branch
from iresnet_ref.branches.sandwich import SandwichBranch
from iresnet_ref.errors import DTypeError, NonFiniteError
from iresnet_ref.layers import Concatenation, Layer
from iresnet_ref.normalisation.norm_gradient import norm_slope
from iresnet_ref.normalisation.raw_proof import RawProof, Warm, divided, raw_proofs
from iresnet_ref.normalisation.shares import lipschitz_shares


@dataclass(frozen=True, eq=False)
class Scaling:
    """A weight was multiplied by `scale`, a constant over its norm σ = `sigma`, whose gradient is `slope`."""

    scale: float
    sigma: float
    slope: Array

    def pullback(self, gradient: Array, weight: Array) -> Array:
        """Return the gradient with respect to the raw weight, s(Ĝ − ⟨Ĝ, W⟩/σ · ∂σ)."""
        along = namespace(gradient).sum(gradient * weight) / self.sigma
        return self.scale * (gradient - along * self.slope)


@public
@dataclass(frozen=True, eq=False)
class NormalisedBranch:
    """A branch of raw weights that training moves, and the certified branch made of them, Lip(g) ≤ `lipschitz`.

    `branch` has every linear layer's weight multiplied by min(1, c/σ), c its share of `lipschitz`, inside dense connections a
    share of 1; what it stores is what is certified, the division included. `pullback` takes gradients with respect to its
    parameters to the raw ones. σ is the norm that the certificate bounds: of a dense layer the largest singular value, of a
    convolution that of its operator, or of the circular one that contains it (`normalisation.norm_gradient`). It is computed in
    host float64, once per object.

    A branch in the 1-norm or the ∞-norm is divided by those operator norms.

    With `warm` (to begin with, {}) a branch `with_parameters` begins its proofs with what this one has found, for a fraction of the
    time where weights move little (`normalisation.raw_proof`). The certificate is as valid, the weights are smaller by up to 1e-9, in
    float32 by up to √n u for their rounding. It is part of the value: the same weights with another `warm` may differ by that.

    Limits: no gradient exists at σ = c, and where the largest singular value (column sum, row sum) is tied; near a tie σ
    is known, but the gradient turns quickly.
    Reference: [B19] §2.1; Miyato and others 2018, arXiv 1802.05957, for the gradient.
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
    warm: Mapping[str, Warm] | None = None

    def parameters(self) -> dict[str, Array]:
        """Return the raw parameters."""
        return self.raw.parameters()

    @public
    def with_parameters(self, parameters: Mapping[str, Array]) -> NormalisedBranch:
        """Return the same normalisation of other raw parameters. Raises ShapeError."""
        return NormalisedBranch(self.raw.with_parameters(parameters), self.lipschitz, None if self.warm is None else self.after)

    @cached_property
    def proofs(self) -> dict[str, RawProof | None]:
        """What is proved of raw weights, under the prefix of their parameters: nothing without `warm`, or in another norm than 2."""
        prove_together([self])
        found: dict[str, RawProof | None] = self.__dict__["proofs"]
        return found

    @cached_property
    def _made(self) -> tuple[Branch, _Making]:
        """The certified branch, and what came of making it."""
        making = _Making(self.raw.norm, self.proofs)
        layers = [
            replace(layer, inner=tuple(making.kept_within(layer.inner, None, f"{i}."))) if isinstance(layer, Concatenation) else layer
            for i, layer in enumerate(self.raw.layers)
        ]
        layers = making.kept_within(layers, self.lipschitz, "")
        return self.raw.of_fitting(layers), making

    def __post_init__(self) -> None:
        if isinstance(self.raw, SandwichBranch):
            raise DTypeError(
                "NormalisedBranch: expected a branch of raw weights, got a SandwichBranch, whose parameters are free; use it as it is"
            )
        if not any("weight" in layer.parameters for layer in self.raw.layers):
            got = ", ".join(layer.name for layer in self.raw.layers)
            raise DTypeError(
                "NormalisedBranch: expected a linear layer in the sequence, or inside dense connections there (weights inside other layers "
                f"are not divided), got {got}; try ir.spectral.normalise(weight, c) of each of them"
            )

    @property
    def branch(self) -> Branch:
        """The certified branch."""
        return self._made[0]

    @property
    def after(self) -> dict[str, Warm]:
        """What the proofs of weights near these begin with."""
        return self._made[1].after

    @property
    def shares(self) -> dict[str, float]:
        """The share of each linear layer in the bound, under the prefix of its parameters."""
        return self._made[1].shares

    @property
    def scalings(self) -> dict[str, Scaling]:
        """What was divided, under the prefix of its parameters."""
        return self._made[1].scalings

    def pullback(self, gradients: Mapping[str, Array]) -> dict[str, Array]:
        """Return the gradients with respect to the raw parameters; `gradients` may be of some parameters only."""
        raw, weights = dict(gradients), self.parameters()
        for prefix, scaling in self.scalings.items():
            key = f"{prefix}weight"
            if key in gradients:
                raw[key] = scaling.pullback(gradients[key], weights[key])
        return raw


def prove_together(branches: Sequence[NormalisedBranch]) -> None:
    """Prove the raw weights of all branches at once, in place of each branch its own: matrices of one shape are cheaper together."""
    found: list[dict[str, RawProof | None]] = [{} for _ in branches]
    raw = [(i, key, layer) for i, branch in enumerate(branches) if branch.warm is not None and branch.raw.norm == 2.0
           for key, layer in linear_layers(branch.raw.layers)]  # fmt: skip
    proofs = raw_proofs([layer for *_, layer in raw], [(branches[i].warm or {}).get(key) for i, key, _ in raw])
    for (i, key, _), proof in zip(raw, proofs, strict=True):
        found[i][key] = proof
    for branch, own in zip(branches, found, strict=True):  # only what is whole is seen, by other threads and after an error
        vars(branch)["proofs"] = own


def linear_layers(layers: Sequence[Layer], prefix: str = "") -> Iterator[tuple[str, Layer]]:
    """Yield every layer with a weight, inside dense connections too, after the prefix of its parameters."""
    for i, layer in enumerate(layers):
        if isinstance(layer, Concatenation):
            yield from linear_layers(layer.inner, f"{prefix}{i}.")
        elif "weight" in layer.parameters:
            yield f"{prefix}{i}.", layer


@dataclass(frozen=True, eq=False)
class _Making:
    """A branch in the making: the `norm` of events, what is proved of raw weights, and what comes of it."""

    norm: float
    proofs: Mapping[str, RawProof | None]
    scalings: dict[str, Scaling] = field(default_factory=dict)
    after: dict[str, Warm] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)

    def kept_within(self, layers: Sequence[Layer], lipschitz: float | None, prefix: str) -> list[Layer]:
        """Return the layers with Lip ≤ `lipschitz` (None: 1) of their composition, each linear one divided where its share is not proved.

        What is divided is entered in `scalings`. The other layers' bounds are taken as constants: those of activations are, and a
        concatenation's is 1 in the 2-norm and the ∞-norm once what it holds has none above 1.
        """
        p = self.norm
        linear = [i for i, layer in enumerate(layers) if "weight" in layer.parameters]
        others = math.prod(max(1.0, layer.norm_bound(p)) for i, layer in enumerate(layers) if i not in linear)
        if lipschitz is None:  # as `densenet` has it
            share = (1.0 / others * (1.0 - 32.0 * rounding.FLOAT64_ROUNDOFF)) ** (1.0 / max(1, len(linear)))
        else:
            share = lipschitz_shares(lipschitz / others, len(linear))
        kept = list(layers)
        for i in linear:
            self.shares[f"{prefix}{i}."] = share
            kept[i] = self._by_raw_proof(layers[i], share, f"{prefix}{i}.") or self._by_its_own(layers[i], share, f"{prefix}{i}.")
        return kept

    def _by_raw_proof(self, layer: Layer, share: float, key: str) -> Layer | None:
        """Return the layer kept within its share by a proof about its raw weight, or None."""
        proof = self.proofs.get(key)
        made = None if proof is None else divided(layer, proof, share)
        if proof is None or made is None:
            return None
        self.after[key] = proof.warm
        if made[1] != 1.0:
            self.scalings[key] = Scaling(made[1], proof.sigma, proof.slope)
        return made[0]

    def _by_its_own(self, layer: Layer, share: float, key: str) -> Layer:
        """Return the layer kept within its share by a proof about the weight that it stores."""
        sigma, slope = norm_slope(layer, self.norm)
        if sigma <= share and layer.norm_bound(self.norm) <= share:  # above its share nothing need be proved of it
            return layer
        divided_layer, scale = _divided(layer, sigma, share, self.norm)
        self.scalings[key] = Scaling(scale, sigma, slope)
        return divided_layer


def _divided(layer: Layer, sigma: float, share: float, p: float) -> tuple[Layer, float]:
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
