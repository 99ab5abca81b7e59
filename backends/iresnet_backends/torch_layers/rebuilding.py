"""A composition whose backward pass rebuilds its activations by inversion (Gomez et al. 2017, arXiv 1707.04585)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from iresnet_backends.torch_layers.functions import applied

Tensor = Any
Context = Any


def rebuilt(composition: Any, x: Tensor, context: Tensor | None, options: Any) -> tuple[Tensor, Tensor]:
    """Return (y, log_det) of the composition; y, the context and the weights are all that is kept."""
    named = {name: p for name, p in composition.named_parameters() if name.startswith("steps.")}
    y, log_det = applied(Rebuilt, composition, options, tuple(named), x, context, *named.values())
    return y, log_det


class Rebuilt(torch.autograd.Function):
    """(x, context, weights) ↦ (y, log_det) of a composition."""

    @staticmethod
    def forward(
        ctx: Context, composition: Any, options: Any, names: tuple[str, ...], x: Tensor, context: Tensor | None, *weights: Tensor
    ) -> Any:
        """Return the values."""
        total = x.new_zeros(x.shape[:1])
        for step, own in composition.with_options(options):
            x, log_det = step._forward(x, context, own)
            total = total + log_det
        ctx.composition, ctx.options, ctx.names = composition, options, names
        ctx.save_for_backward(x, context, *weights)
        return x, total

    @staticmethod
    def backward(ctx: Context, *bars: Tensor) -> Any:
        """Return the gradients, step by step from the last; where their own are asked for, as functions of y and the weights."""
        y_bar, weights = bars
        y, context, *parameters = ctx.saved_tensors
        named = dict(zip(ctx.names, parameters, strict=True))
        total = {name: torch.zeros_like(p) for name, p in named.items()}
        context_bar = None if context is None else torch.zeros_like(context)
        near = 128.0 * float(torch.finfo(y.dtype).eps)  # 256u: within the tolerance a rebuilt row depends on which others there are
        options = replace(ctx.options, rtol=min(ctx.options.rtol, near))
        steps = ctx.composition.with_options(options)
        for k in reversed(range(len(steps))):
            step, own = steps[k]
            prefix = f"steps.{k}."
            mine = {name: p for name, p in named.items() if name.startswith(prefix)}
            y = _called(step, "_inverse", mine, prefix, y, context, own)[0]  # the x of this step, the y of the one before
            pull = _pulled if torch.is_grad_enabled() else _pulled_once
            y_bar, *gradients = pull(step, prefix, own, (y_bar, weights), y, context, mine)
            total.update(zip(mine, gradients, strict=False))
            if context_bar is not None:
                context_bar = context_bar + gradients[-1]
        return None, None, None, y_bar, context_bar, *total.values()


def _pulled_once(
    step: Any, prefix: str, options: Any, bars: tuple[Tensor, Tensor], x: Tensor, context: Tensor | None, weights: dict[str, Tensor]
) -> tuple[Tensor, ...]:
    """Return the cotangents of x, the weights and the context, outside every graph."""
    with torch.enable_grad():
        leaf, *leaves = (a.detach().requires_grad_() for a in (x, *weights.values(), *(() if context is None else (context,))))
        own = dict(zip(weights, leaves, strict=False))
        outputs = _called(step, "_forward", own, prefix, leaf, None if context is None else leaves[-1], options)
        pairs = [(o, bar) for o, bar in zip(outputs, bars, strict=True) if o.requires_grad]
        found = torch.autograd.grad([o for o, _ in pairs], [leaf, *leaves], [bar for _, bar in pairs], materialize_grads=True)
    return tuple(found)


def _pulled(
    step: Any, prefix: str, options: Any, bars: tuple[Tensor, Tensor], x: Tensor, context: Tensor | None, weights: dict[str, Tensor]
) -> tuple[Tensor, ...]:
    """Return the same on the graph of what they are made of: partial derivatives, though x depends on the weights too."""
    given = (x, *weights.values(), *(() if context is None else (context,)))

    def forward(x: Tensor, *others: Tensor) -> Any:
        own = dict(zip(weights, others, strict=False))
        return _called(step, "_forward", own, prefix, x, None if context is None else others[-1], options)

    pullback: Any = torch.func.vjp(forward, *given)[1]
    found: tuple[Tensor, ...] = pullback(bars)
    return found


def _called(step: Any, method: str, weights: dict[str, Tensor], prefix: str, x: Tensor, context: Tensor | None, options: Any) -> Any:
    """Call a method of the step with these weights."""
    own = {f"step.{name.removeprefix(prefix)}": p for name, p in weights.items()}
    return torch.func.functional_call(_Method(step, method), own, (x, context, options))


class _Method(torch.nn.Module):
    """A method of a module as the forward pass of another one."""

    def __init__(self, step: Any, method: str) -> None:
        super().__init__()
        self.step, self.method = step, method

    def forward(self, x: Tensor, context: Tensor | None, options: Any) -> Any:
        """Call it."""
        return getattr(self.step, self.method)(x, context, options)
