"""The host's part of a compiled training step: the proofs of all weights, and what comes of them as few arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from iresnet_ref.arrays import HostArray, Packing, to_host
from iresnet_ref.branches.branch import Branch
from iresnet_ref.branches.normalised import NormalisedBranch, Scaling, linear_layers, prove_together
from iresnet_ref.errors import NotContractiveError
from iresnet_ref.layers.linear import LinearLayer
from iresnet_ref.normalisation.raw_proof import ROUNDOFFS, Warm, division, prove_stack
from iresnet_ref.rounding import unit_roundoff
from iresnet_ref.training.normalised_model import NormalisedModel

Arrays = dict[str, Any]
Shape = tuple[int, ...]


class Divided(NamedTuple):
    """Of all weights one behind the other: the `divided` entries, the `slopes` of the norms; what each was multiplied by, and its norm.

    Where a weight is not divided, these are 0, 1 and 1.
    """

    divided: HostArray
    slopes: HostArray
    scales: HostArray
    sigmas: HostArray


class StepProofs:
    """The weights of a normalised model on the host, proved: `found` is what came of that, `warm` what the next proofs begin with.

    Where every weight is a matrix, those of one shape are proved at once, and no branch is made of them: each is within its share, which is
    the bound of its branch, since the other layers are constants. Elsewhere, and where a weight is not proved so, each
    `ir.NormalisedBranch` is made and asked for its certificate.
    """

    def __init__(self, normalised: NormalisedModel) -> None:
        self.raw, self.lipschitz = {prefix: own.raw for prefix, own in normalised.branches.items()}, normalised.lipschitz or 0.0
        self.warm: dict[str, Mapping[str, Warm]] = {prefix: own.warm or {} for prefix, own in normalised.branches.items()}
        self.stacks = dict[Shape, list[tuple[str, str]]]()
        for prefix, raw in self.raw.items():
            for place, layer in linear_layers(raw.layers):
                self.stacks.setdefault(tuple(layer.parameters["weight"].shape), []).append((prefix, place))
        shares = {prefix: own.shares for prefix, own in normalised.branches.items()}
        self.shares = {shape: np.asarray([shares[prefix][place] for prefix, place in places]) for shape, places in self.stacks.items()}
        self.weights = Packing({f"{prefix}{place}weight": shape for shape, places in self.stacks.items() for prefix, place in places})
        self.matrices = bool(self.raw) and all(map(_of_matrices, self.raw.values()))
        parameters = {key: np.array(to_host(p)) for key, p in normalised.parameters().items()}
        self.dtype = next(iter(parameters.values())).dtype
        self.prove(parameters)

    @property
    def given(self) -> dict[str, Shape]:
        """The shapes of what is found."""
        return {name: a.shape for name, a in self.found._asdict().items()}

    def prove(self, parameters: Mapping[str, HostArray]) -> None:
        """Prove these weights. Raises NotContractiveError."""
        found = self._in_stacks(parameters) if self.matrices else None
        self.found: Divided = self._by_branches(parameters) if found is None else found

    def _in_stacks(self, parameters: Mapping[str, HostArray]) -> Divided | None:
        """Return what comes of matrices of one shape at once; None where one of them is to be proved otherwise."""
        found: list[Divided] = []
        warm: dict[str, dict[str, Warm]] = {prefix: {} for prefix in self.raw}
        for shape, places in self.stacks.items():
            weights, shares = np.stack([parameters[f"{prefix}{place}weight"] for prefix, place in places]), self.shares[shape]
            begun = [self.warm[prefix].get(place, Warm()).vectors for prefix, place in places]
            starts = None if any(v is None for v in begun) else np.stack([to_host(v) for v in begun]).astype(np.float64)
            proof = prove_stack(weights.reshape(-1, *shape[:2]), starts)
            if not (proof.bound < np.inf).all():
                return None
            scales, bounds, _ = division(proof.bound, proof.absolute, shares, weights[0])
            whole = proof.bound <= shares
            if not (whole | (bounds <= shares)).all():
                return None
            scales, sigmas = np.where(whole, 1.0, scales), np.where(whole, 1.0, proof.sigma)
            slopes = np.where(whole[:, None, None], 0.0, proof.u[:, :, None] * proof.v[:, None, :])
            divided = weights.reshape(len(weights), -1) * scales.astype(weights.dtype)[:, None]
            found.append(Divided(divided.reshape(-1), slopes.reshape(-1), scales, sigmas))
            blocks = [None] * len(places) if proof.block is None else proof.block.astype(weights.dtype)
            for (prefix, place), block in zip(places, blocks, strict=True):
                warm[prefix][place] = Warm(block)
        self.warm = dict(warm)
        return Divided(*(np.concatenate(parts) for parts in zip(*found, strict=True)))

    def _by_branches(self, parameters: Mapping[str, HostArray]) -> Divided:
        """Return what comes of the branches made of these weights. Raises NotContractiveError."""
        branches = {
            prefix: NormalisedBranch(
                raw.with_parameters({key: parameters[prefix + key] for key in raw.parameters()}), self.lipschitz, self.warm[prefix]
            )
            for prefix, raw in self.raw.items()
        }
        prove_together(list(branches.values()))
        divided: Arrays = {}
        scalings: dict[str, Scaling] = {}
        for prefix, branch in branches.items():
            proved = branch.branch.certificate
            if not proved.bound <= self.lipschitz:
                raise NotContractiveError(
                    f"training: expected proved Lip(g) ≤ {self.lipschitz} at {prefix!r}, got {proved.bound:.6g} ({proved.reason}); "
                    "try ir.mlp, ir.convnet or ir.densenet"
                )
            divided.update((prefix + key, p) for key, p in branch.branch.parameters().items())
            scalings.update((f"{prefix}{place}weight", own) for place, own in branch.scalings.items())
        self.warm = {prefix: branch.after for prefix, branch in branches.items()}
        each = {key: scalings.get(key) or Scaling(1.0, 1.0, np.zeros(shape)) for key, shape in self.weights.shapes.items()}
        slopes = self.weights.together({key: own.slope for key, own in each.items()})
        numbers = (np.asarray([getattr(own, name) for own in each.values()]) for name in ("scale", "sigma"))
        return Divided(to_host(self.weights.together(divided)), to_host(slopes), *numbers)


def _of_matrices(raw: Branch) -> bool:
    """Return whether all weights are matrices of a branch in the 2-norm, in float32 or float64, whose other layers are constants."""
    layers = [layer for layer in raw.layers if layer.parameters]
    plain = all(isinstance(layer, LinearLayer) and tuple(layer.weight.shape[2:]) in {(), (1, 1)} for layer in layers)
    return plain and raw.norm == 2.0 and unit_roundoff(raw.like) in ROUNDOFFS
