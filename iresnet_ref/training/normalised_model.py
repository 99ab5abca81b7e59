"""Raw weights that training moves, and the certified model made of them: `ir.NormalisedBranch` for every block of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from iresnet_ref.arrays import Array, public
from iresnet_ref.branches.normalised import NormalisedBranch
from iresnet_ref.errors import NotContractiveError
from iresnet_ref.flows.bijections.composition import Composition, FactorOut
from iresnet_ref.flows.bijections.protocol import Bijection
from iresnet_ref.flows.bijections.residual import Residual
from iresnet_ref.normalisation.raw_proof import Warm


@public
@dataclass(frozen=True, eq=False)
class NormalisedModel:
    """A flow or classifier of raw weights, and `model`, the same with every residual branch certified: Lip(g) ≤ `lipschitz`.

    Bijections without a branch are used as they are, blocks inside `ir.bijections.FactorOut` are found; a Lipschitz constant that a
    raw block states is dropped, the certificate takes its place. Raises as `ir.NormalisedBranch`.
    With `warm` (to begin with, {}) other parameters begin their proofs where these ended, as in `ir.NormalisedBranch`.
    With `lipschitz` None nothing is divided: a standard ResNet, the unconstrained twin to compare with. It has no inverse.

    >>> import numpy as np, iresnet_ref as ir
    >>> raw = ir.Flow([ir.ResidualBlock(ir.mlp((2, 8, 2)))])
    >>> raw = raw.with_parameters({k: 5.0 * p for k, p in raw.parameters().items()})
    >>> block = NormalisedModel(raw, 0.8).model.steps.steps[0].block
    >>> bool(block.certificate.bound <= 0.8)
    True
    """

    raw: Any
    lipschitz: float | None = 0.9
    warm: Mapping[str, Mapping[str, Warm]] | None = None

    @cached_property
    def _made(self) -> tuple[Any, dict[str, NormalisedBranch]]:
        branches: dict[str, NormalisedBranch] = {}
        if self.lipschitz is None:
            return self.raw, branches
        steps = self._certified(self.raw.steps, "", self.lipschitz, branches)
        return replace(self.raw, steps=steps), branches

    @property
    def model(self) -> Any:
        """The certified model; the raw one where `lipschitz` is None."""
        return self._made[0]

    def require_certified(self) -> None:
        """Refuse a model with a branch that is not proved to keep Lip(g) ≤ `lipschitz`. Raises NotContractiveError."""
        for prefix, normalised in self._made[1].items():
            found = normalised.branch.certificate
            if not found.bound <= normalised.lipschitz:
                raise NotContractiveError(
                    f"training: expected proved Lip(g) ≤ {normalised.lipschitz} of the block at {prefix!r}, got {found.bound:.6g} "
                    f"({found.reason}); try ir.mlp, ir.convnet or ir.densenet, whose layers state finite constants"
                )

    def parameters(self) -> dict[str, Array]:
        """Return the raw parameters."""
        parameters: dict[str, Array] = self.raw.parameters()
        return parameters

    @public
    def with_parameters(self, parameters: Mapping[str, Array]) -> NormalisedModel:
        """Return the same normalisation of other raw parameters. Raises ShapeError."""
        warm = None if self.warm is None else {prefix: branch.after for prefix, branch in self._made[1].items()}
        return replace(self, raw=self.raw.with_parameters(parameters), warm=warm)

    def pullback(self, gradients: Mapping[str, Array]) -> dict[str, Array]:
        """Return the gradients with respect to the raw parameters, from those with respect to the model's."""
        raw = dict(gradients)
        for prefix, branch in self._made[1].items():
            mine = {k.removeprefix(prefix): g for k, g in gradients.items() if k.startswith(prefix)}
            raw.update({prefix + k: g for k, g in branch.pullback(mine).items()})
        return raw

    def _certified(self, step: Bijection, prefix: str, lipschitz: float, branches: dict[str, NormalisedBranch]) -> Bijection:
        """Return the step with certified branches, and enter them under the prefix of their parameters."""
        if isinstance(step, Residual):
            warm = None if self.warm is None else self.warm.get(prefix, {})
            branches[prefix] = NormalisedBranch(step.block.branch, lipschitz, warm)
            return Residual(replace(step.block, branch=branches[prefix].branch, lipschitz=None))
        if isinstance(step, Composition):
            inner = (self._certified(s, f"{prefix}{i}.", lipschitz, branches) for i, s in enumerate(step.steps))
            return Composition(tuple(inner))
        if isinstance(step, FactorOut):
            return replace(step, rest=self._certified(step.rest, prefix, lipschitz, branches))
        return step
