"""Raw weights and the certified block made of them: values, pullbacks and tangents on plain tensors, all of them the reference's.

The weights that an optimiser moves are raw; the block that is evaluated has each of them divided by a proved bound of its norm
(`ir.NormalisedBranch`), or made of them (`ir.SandwichBranch`). It is made, and proved, once for each set of values: values are compared,
not version counters, which writing through `.data` passes by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

import iresnet_ref as ir

Tensor = Any


class Made:
    """A certified block, and the way back from its parameters' gradients to the raw ones; without a `source` they are the same."""

    def __init__(self, block: ir.ResidualBlock, source: ir.NormalisedBranch | ir.SandwichBranch | None) -> None:
        self.block, self.source = block, source

    def to_raw(self, gradients: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the gradients with respect to the raw weights, in the order of the parameters."""
        if isinstance(self.source, ir.SandwichBranch):
            return list(self.source.pulled(gradients).values())
        raw = gradients if self.source is None else self.source.pullback(gradients)
        return [raw[name] for name in self.block.branch.parameters()]

    @property
    def is_divided(self) -> bool:
        """Whether some weight is another function of the raw ones than themselves."""
        if self.source is None:
            return False
        raw = self.source.parameters()
        return any(raw[name] is not p for name, p in self.block.branch.parameters().items())

    def reference(self) -> ir.ResidualBlock:
        """Return the block as a new object; of a sandwich branch the one with its free parameters."""
        if isinstance(self.source, ir.SandwichBranch):
            return ir.ResidualBlock(self.source.with_parameters(self.source.parameters()))
        branch = self.block.branch
        return replace(self.block, branch=ir.Branch(branch.layers, branch.event_shape, branch.norm))


class Certified:
    """The block of raw weights with Lip(g) ≤ `lipschitz`; with None the weights are used as they are."""

    def __init__(self, block: ir.ResidualBlock, lipschitz: float | None, weights: Mapping[str, Tensor]) -> None:
        self.lipschitz = lipschitz
        nothing = {name: torch.zeros((), dtype=p.dtype).expand(p.shape) for name, p in weights.items()}
        self.template = block.branch.with_parameters(nothing)
        self.stated = block.lipschitz if lipschitz is None else None
        self._last: tuple[list[Tensor], Made] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the proof behind: a copy proves its own weights."""
        return {**self.__dict__, "_last": None}

    def at(self, raw: Sequence[Tensor]) -> Made:
        """Return the certified block of these values. Raises NotContractiveError where the bound asked for is not proved."""
        last = self._last
        if last is None or not all(_same(old, p) for old, p in zip(last[0], raw, strict=True)):
            with torch.inference_mode(False), torch.no_grad():
                kept = [p.detach().clone() for p in raw]
                last = self._last = (kept, self._made(kept))
        return last[1]

    def _made(self, raw: Sequence[Tensor]) -> Made:
        branch = self.template.with_parameters(dict(zip(self.template.parameters(), raw, strict=True)))
        made: ir.NormalisedBranch | ir.SandwichBranch
        if isinstance(branch, ir.SandwichBranch):
            made, certified = branch, branch.of_layers(branch.layers)
        elif self.lipschitz is None:
            return Made(ir.ResidualBlock(branch, self.stated), None)
        else:
            made = ir.NormalisedBranch(branch, self.lipschitz)
            certified = made.branch
        found = certified.certificate
        if self.lipschitz is not None and not found.bound <= self.lipschitz:
            raise ir.NotContractiveError(
                f"ResidualBlock: expected proved Lip(g) ≤ {self.lipschitz}, got {found.bound:.6g} ({found.reason}); try ir.mlp, ir.convnet "
                "or ir.densenet, whose layers state finite constants"
            )
        return Made(ir.ResidualBlock(certified), made)

    # -- on plain tensors, outside every graph

    def forward(self, options: ir.Options, x: Tensor, raw: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return (F(x), log det dF/dx)."""
        y, log_det = ir.bijections.Residual(self.at(raw).block).forward(x, options=options)
        return y, log_det.value

    def inverse(self, options: ir.Options, y: Tensor, raw: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return (F⁻¹(y), log det dF⁻¹/dy)."""
        block = self.at(raw).block
        x = ir.invert(block, y, options.inverse, rtol=options.rtol).x
        return x, -ir.logdet(block, x, options.logdet, check=False).value

    def pullback(
        self, options: ir.Options, x: Tensor, y_bar: Tensor | None, weights: Tensor | None, raw: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return (x̄, raw gradients) of Σ ȳᵀF(x) + Σ_b w_b log det dF/dx|_b."""
        made = self.at(raw)
        return _pulled(made, made.block, options, x, y_bar, weights)

    def inverse_pullback(
        self, options: ir.Options, x: Tensor, x_bar: Tensor | None, weights: Tensor | None, raw: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return (ȳ, raw gradients) of Σ x̄ᵀF⁻¹(y) + Σ_b w_b log det dF⁻¹/dy|_b, at the preimage x."""
        made = self.at(raw)
        found = ir.inverse_gradient(made.block, x, x_bar, weights=weights, method=options.logdet, throw=False)
        return found.y_bar, made.to_raw(found.parameters)

    def second(
        self, options: ir.Options, x: Tensor, y_bar: Tensor | None, weights: Tensor | None, raw: Sequence[Tensor], x_bar_bar: Tensor | None,
        raw_bar_bar: Sequence[Tensor | None],
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, list[Tensor] | None]:
        """Return the cotangents of (x, ȳ, w, raw weights) for those of (x̄, raw gradients), of `pullback` as a function.

        Those of the raw weights are None where they need the second derivative of a norm.
        """
        made = self.at(raw)
        given = [a for a in (x, y_bar, weights) if a is not None]
        with torch.enable_grad():
            leaves = [a.detach().requires_grad_() for a in given]
            parts = iter(leaves)
            own = [None if a is None else next(parts) for a in (x, y_bar, weights)]
            block, own_parameters = _on_the_graph(made.block)
            outputs = _pulled(made, block, options, *own)
            total = _inner((outputs[0], *outputs[1]), (x_bar_bar, *raw_bar_bar))
            if total is None:
                return None, None, None, None
            found = torch.autograd.grad(total, [*leaves, *own_parameters.values()], allow_unused=True)
        parts = iter(found)
        of_inputs = [None if a is None else next(parts) for a in (x, y_bar, weights)]
        if made.is_divided and any(bar is not None and bool(bar.any()) for bar in raw_bar_bar):
            return of_inputs[0], of_inputs[1], of_inputs[2], None
        gradients = {
            name: torch.zeros_like(p) if bar is None else bar for (name, p), bar in zip(own_parameters.items(), parts, strict=True)
        }
        return of_inputs[0], of_inputs[1], of_inputs[2], made.to_raw(gradients)

    def tangent(
        self, options: ir.Options, x: Tensor, raw: Sequence[Tensor], x_dot: Tensor | None, raw_dot: Sequence[Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        """Return the derivatives of (F(x), log det dF/dx) along (ẋ, raw tangents): the pullback is linear, and this is its transpose."""
        made = self.at(raw)
        with torch.enable_grad():
            y_bar, weights = (torch.zeros_like(a, requires_grad=True) for a in (x, x.flatten(1).sum(1)))
            outputs = _pulled(made, made.block, options, x.detach(), y_bar, weights)
            total = _inner((outputs[0], *outputs[1]), (x_dot, *raw_dot))
            if total is None:
                return torch.zeros_like(y_bar), torch.zeros_like(weights)
            y_dot, log_det_dot = torch.autograd.grad(total, (y_bar, weights))
        return y_dot, log_det_dot


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.device == b.device and a.shape == b.shape and torch.equal(a, b)


def _pulled(
    made: Made, block: ir.ResidualBlock, options: ir.Options, x: Tensor, y_bar: Tensor | None, weights: Tensor | None
) -> tuple[Tensor, list[Tensor]]:
    if weights is None:
        x_bar, _, gradients = block.pullback(x, y_bar=torch.zeros_like(x) if y_bar is None else y_bar, check=False)
    else:
        found = ir.logdet_gradient(block, x, options.logdet, weights=weights, y_bar=y_bar, check=False)
        x_bar, gradients = found.x_bar, found.parameters
    return x_bar, made.to_raw(gradients)


def _on_the_graph(block: ir.ResidualBlock) -> tuple[ir.ResidualBlock, dict[str, Tensor]]:
    """Return the block with parameters that record derivatives; its constant is the one proved of their values."""
    own: dict[str, Any] = block.branch.parameters()
    parameters = {name: p.detach().requires_grad_() for name, p in own.items()}
    return ir.ResidualBlock(block.branch.with_parameters(parameters), block.contraction()), parameters


def _inner(a: Sequence[Tensor], b: Sequence[Tensor | None]) -> Tensor | None:
    """Return Σ aᵀb over those that are given."""
    total = None
    for one, other in zip(a, b, strict=True):
        if other is not None:
            term = (one * other).sum()
            total = term if total is None else total + term
    return total
