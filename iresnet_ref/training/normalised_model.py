"""Raw weights that training moves, and the certified model made of them: `ir.NormalisedBranch` for every block of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from iresnet_ref.arrays import Array, changed, public
from iresnet_ref.branches.branch import Branch, multiply_together
from iresnet_ref.branches.estimated import Estimate, EstimatedBranch, first_estimate
from iresnet_ref.branches.normalised import NormalisedBranch, prove_together
from iresnet_ref.branches.sandwich import SandwichBranch
from iresnet_ref.errors import NotContractiveError
from iresnet_ref.flows.bijections.composition import Composition, FactorOut
from iresnet_ref.flows.bijections.residual import Residual
from iresnet_ref.normalisation.raw_proof import Warm

PROVED, AWAITED, CHECKED, RENEWED = "each", "awaited", "checked", "renewed"
"""Each weight is divided by a proved bound; or by an estimate, and the proof is to come, is done, or is done and used by what follows."""


@public
@dataclass(frozen=True, eq=False)
class NormalisedModel:
    """A flow or classifier of raw weights, and `model`, the same with every residual branch certified: Lip(g) ≤ `lipschitz`.

    Bijections without a branch, and `ir.sandwich` branches, are used as they are, blocks inside `ir.bijections.FactorOut` are found;
    a Lipschitz constant that a raw block states is dropped, the certificate takes its place. Raises as `ir.NormalisedBranch`.
    With `warm` (to begin with, {}) other parameters begin their proofs where these ended, as in `ir.NormalisedBranch`.
    With `estimates` the weights are divided by estimates; `proof` says whether the proof is awaited, and whether what it finds is used.
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
    estimates: Mapping[str, Mapping[str, Estimate]] | None = None
    proof: str = PROVED

    @cached_property
    def _made(self) -> _Made:
        made = _Made()
        if self.lipschitz is None:
            made.model = self.raw
        else:
            if self.estimates is None:
                made.branches.update(
                    (prefix, NormalisedBranch(branch, self.lipschitz, None if self.warm is None else self.warm.get(prefix, {})))
                    for prefix, branch in _raw_branches(self.raw.steps, "")
                )
                prove_together(list(made.branches.values()))
            made.model = changed(self.raw, steps=self._certified(self.raw.steps, "", self.lipschitz, made))
        return made

    @property
    def model(self) -> Any:
        """The certified model; the raw one where `lipschitz` is None."""
        return self._made.model

    @property
    def branches(self) -> Mapping[str, Any]:
        """The normalised branches, by the prefix of their parameters."""
        return self._made.branches

    def require_certified(self) -> None:
        """Refuse a model with a branch that is not proved to keep Lip(g) ≤ `lipschitz`. Raises NotContractiveError."""
        multiply_together([branch for branch in self._made.proved.values() if not isinstance(branch, SandwichBranch)])
        for prefix, branch in self._made.proved.items():
            found = branch.certificate
            if self.lipschitz is not None and not found.bound <= self.lipschitz:
                raise NotContractiveError(
                    f"training: expected proved Lip(g) ≤ {self.lipschitz} of the block at {prefix!r}, got {found.bound:.6g} "
                    f"({found.reason}); try ir.mlp, ir.convnet or ir.densenet, whose layers state finite constants"
                )

    def parameters(self) -> dict[str, Array]:
        """Return the raw parameters."""
        parameters: dict[str, Array] = self.raw.parameters()
        return parameters

    @public
    def with_parameters(self, parameters: Mapping[str, Array]) -> NormalisedModel:
        """Return the same normalisation of other raw parameters, proved. Raises ShapeError."""
        warm = None if self.warm is None else self._made.warm
        return NormalisedModel(self.raw.with_parameters(parameters), self.lipschitz, warm)

    def estimated(self, parameters: Mapping[str, Array]) -> NormalisedModel:
        """Return other raw parameters normalised by estimates that begin where these ended; nothing is proved, no host is asked."""
        made, raw = self._made, self.raw.with_parameters(parameters)
        return NormalisedModel(raw, self.lipschitz, made.warm, made.estimates, AWAITED)

    def proved(self, *, renewed: bool = False) -> NormalisedModel:
        """Return the same model, bit for bit, proved; with `renewed` the next estimates begin with what the proof found."""
        if self.proof == AWAITED:
            return replace(self, proof=RENEWED if renewed else CHECKED)
        return self

    def in_the_two_norm(self) -> bool:
        """Return whether every branch contracts in the 2-norm."""
        return all(branch.norm == 2.0 for branch in self._made.proved.values())

    def with_estimates(self) -> NormalisedModel:
        """Return the model normalised by estimates and proved, where training between proofs begins."""
        estimates = {prefix: first_estimate(branch).estimates for prefix, branch in self._made.branches.items()}
        return NormalisedModel(self.raw, self.lipschitz, self._made.warm, estimates, RENEWED)

    def pullback(self, gradients: Mapping[str, Array]) -> dict[str, Array]:
        """Return the gradients with respect to the raw parameters, from those with respect to the model's."""
        raw = dict(gradients)
        for prefix, branch in self._made.branches.items():
            mine = {k: gradients[prefix + k] for k in branch.raw.parameters() if prefix + k in gradients}
            raw.update({prefix + k: g for k, g in branch.pullback(mine).items()})
        return raw

    def _certified(self, step: Any, prefix: str, lipschitz: float, made: _Made) -> Any:
        """Return the step with certified branches, and enter them under the prefix of their parameters."""
        if isinstance(step, Residual):
            return changed(step, block=self._block(step.block, prefix, lipschitz, made))
        if isinstance(step, Composition):
            inner = (self._certified(s, f"{prefix}{i}.", lipschitz, made) for i, s in enumerate(step.steps))
            return changed(step, steps=tuple(inner))
        if isinstance(step, FactorOut):
            return changed(step, rest=self._certified(step.rest, prefix, lipschitz, made))
        return step

    def _block(self, block: Any, prefix: str, lipschitz: float, made: _Made) -> Any:
        if isinstance(block.branch, SandwichBranch):  # its parameters are free
            made.proved[prefix] = block.branch
            return replace(block, lipschitz=None)
        if self.estimates is None:
            normalised = made.branches[prefix]
            made.proved[prefix], made.warm[prefix] = normalised.branch, normalised.after
            return changed(block, branch=normalised.branch, lipschitz=None)
        warm = None if self.warm is None else self.warm.get(prefix, {})
        estimated = EstimatedBranch(block.branch, self.estimates[prefix])
        branch, made.branches[prefix], made.warm[prefix] = estimated.branch, estimated, warm or {}
        made.estimates[prefix] = estimated.after
        if self.proof != AWAITED:
            branch, estimates, after = estimated.proved(warm or {})
            if self.proof == RENEWED:
                made.estimates[prefix], made.warm[prefix] = estimates, after
        made.proved[prefix] = branch
        return changed(block, branch=branch, lipschitz=lipschitz)  # stated before and after the proof: the same random lengths


def _raw_branches(step: Any, prefix: str) -> Iterator[tuple[str, Branch]]:
    """Yield the branches of all residual blocks but those whose parameters are free, after the prefix of their parameters."""
    if isinstance(step, Residual):
        if not isinstance(step.block.branch, SandwichBranch):
            yield prefix, step.block.branch
    elif isinstance(step, Composition):
        for i, inner in enumerate(step.steps):
            yield from _raw_branches(inner, f"{prefix}{i}.")
    elif isinstance(step, FactorOut):
        yield from _raw_branches(step.rest, prefix)


@dataclass(eq=False)
class _Made:
    """The model, its branches with their pullbacks and as they are proved, and what comes next begins with, by prefix."""

    model: Any = None
    branches: dict[str, Any] = field(default_factory=dict)
    proved: dict[str, Branch] = field(default_factory=dict)
    warm: dict[str, Mapping[str, Warm]] = field(default_factory=dict)
    estimates: dict[str, Mapping[str, Estimate]] = field(default_factory=dict)
