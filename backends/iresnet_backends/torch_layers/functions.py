"""The block, its inverse and their derivatives as functions of torch's autograd and of torch.func.

Nothing of a forward pass is kept but x and the weights: the backward pass takes the log-determinant's gradient from the series' own
estimate there ([C19] eq. 8), with the draws of the forward pass, so that memory does not grow with the number of terms. What is
returned is log det itself. Each function is a loop under vmap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

Tensor = Any
Context = Any


def applied(function: Any, *arguments: Any) -> Any:
    """Return the value of an autograd function."""
    return function.apply(*arguments)


def looped(function: Any) -> Any:
    """Give an autograd function its rule for vmap: one call for each entry of the mapped axes."""

    def vmap(info: Any, in_dims: Sequence[int | None], *args: Any) -> tuple[Any, Any]:
        calls = []
        for i in range(info.batch_size):
            calls.append(function.apply(*(a if d is None else a.select(d, i) for a, d in zip(args, in_dims, strict=True))))
        stacked = tuple(None if parts[0] is None else torch.stack(parts) for parts in zip(*calls, strict=True))
        return stacked, tuple(None if a is None else 0 for a in stacked)

    function.vmap = staticmethod(vmap)
    return function


@looped
class Forward(torch.autograd.Function):
    """(x, raw weights) ↦ (F(x), log det dF/dx)."""

    @staticmethod
    def forward(certified: Any, options: Any, x: Tensor, *raw: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values."""
        y, log_det = certified.forward(options, x, raw)
        return y, log_det

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep x and the weights."""
        del output
        ctx.certified, ctx.options, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Context, *bars: Tensor | None) -> tuple[Any, ...]:
        """Return the gradients, by a function that has derivatives itself."""
        y_bar, weights = bars
        if y_bar is None and weights is None:
            return (None, None, *(None for _ in ctx.saved_tensors))
        x, *raw = ctx.saved_tensors
        return None, None, *applied(Pullback, ctx.certified, ctx.options, x, y_bar, weights, *raw)

    @staticmethod
    def jvp(ctx: Context, *tangents: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the tangents of the values; those of the first two arguments are None."""
        y_dot, log_det_dot = applied(Tangent, ctx.certified, ctx.options, *ctx.saved_tensors, *tangents[2:])
        return y_dot, log_det_dot


@looped
class Pullback(torch.autograd.Function):
    """(x, ȳ, w, raw weights) ↦ (x̄, raw gradients)."""

    @staticmethod
    def forward(
        certified: Any, options: Any, x: Tensor, y_bar: Tensor | None, weights: Tensor | None, *raw: Tensor
    ) -> tuple[Tensor, ...]:
        """Return the gradients."""
        with outside_autocast(x):
            x_bar, gradients = certified.pullback(options, x, y_bar, weights, raw)
        return x_bar, *gradients

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep the arguments."""
        del output
        ctx.certified, ctx.options, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Context, *bars: Tensor | None) -> tuple[Any, ...]:
        """Return the second derivatives. Raises NotImplementedError for those of a norm."""
        arguments = (ctx.certified, ctx.options, *ctx.saved_tensors)
        if all(bar is None for bar in bars):
            return (None,) * len(arguments)
        found = applied(Second, any(ctx.needs_input_grad[5:]), *arguments, *bars)
        return None, None, *found


@looped
class Second(torch.autograd.Function):
    """The derivatives of `Pullback`."""

    @staticmethod
    def forward(weights_too: bool, certified: Any, options: Any, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the cotangents of (x, ȳ, w, raw weights)."""
        count = (len(tensors) - 4) // 2
        x, y_bar, weights, raw = *tensors[:3], tensors[3 : 3 + count]
        with outside_autocast(x):
            *of_inputs, of_raw = certified.second(options, x, y_bar, weights, raw, tensors[3 + count], tensors[4 + count :])
        if of_raw is None and weights_too:
            raise NotImplementedError(
                "ResidualBlock: expected second derivatives with respect to weights that no norm divides, got weights above their share of "
                "lipschitz=, whose norm has no second derivative here; try block.project_() before, or first derivatives"
            )
        return *of_inputs, *((None,) * count if of_raw is None else of_raw)

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep nothing: no third derivative is offered."""
        del ctx, inputs, output

    @staticmethod
    def backward(ctx: Context, *bars: Tensor | None) -> tuple[Any, ...]:
        """Refuse."""
        del ctx, bars
        raise NotImplementedError("ResidualBlock: expected at most second derivatives, got a third; try finite differences of the second")


@looped
class Tangent(torch.autograd.Function):
    """(x, raw weights, ẋ, raw tangents) ↦ the tangents of (F(x), log det dF/dx)."""

    @staticmethod
    def forward(certified: Any, options: Any, *tensors: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the tangents."""
        count = len(tensors) // 2
        (x, *raw), (x_dot, *raw_dot) = tensors[:count], tensors[count:]
        with outside_autocast(x):
            y_dot, log_det_dot = certified.tangent(options, x, raw, x_dot, raw_dot)
        return y_dot, log_det_dot

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep nothing."""
        del ctx, inputs, output

    @staticmethod
    def backward(ctx: Context, *bars: Tensor | None) -> tuple[Any, ...]:
        """Refuse."""
        del ctx, bars
        raise NotImplementedError("ResidualBlock: expected no derivative of a forward-mode derivative, got one; try reverse mode twice")


@looped
class Inverse(torch.autograd.Function):
    """(y, raw weights) ↦ (F⁻¹(y), log det dF⁻¹/dy), differentiated by the implicit function theorem."""

    @staticmethod
    def forward(certified: Any, options: Any, y: Tensor, *raw: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values."""
        x, log_det = certified.inverse(options, y, raw)
        return x.view_as(x), log_det  # of no rows the preimage is y itself

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keep the preimage and the weights."""
        ctx.certified, ctx.options, _, *raw = inputs
        ctx.save_for_backward(output[0], *raw)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Context, *bars: Tensor | None) -> tuple[Any, ...]:
        """Return the gradients."""
        x_bar, weights = bars
        if x_bar is None and weights is None:
            return (None, None, *(None for _ in ctx.saved_tensors))
        x, *raw = ctx.saved_tensors
        return None, None, *applied(InversePullback, ctx.certified, ctx.options, x, x_bar, weights, *raw)


@looped
class InversePullback(torch.autograd.Function):
    """(x, x̄, w, raw weights) ↦ (ȳ, raw gradients) of the inverse."""

    @staticmethod
    def forward(
        certified: Any, options: Any, x: Tensor, x_bar: Tensor | None, weights: Tensor | None, *raw: Tensor
    ) -> tuple[Tensor, ...]:
        """Return the gradients."""
        with outside_autocast(x):
            y_bar, gradients = certified.inverse_pullback(options, x, x_bar, weights, raw)
        return y_bar, *gradients

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep nothing."""
        del ctx, inputs, output

    @staticmethod
    def backward(ctx: Context, *bars: Tensor | None) -> tuple[Any, ...]:
        """Refuse: an iterative solution is not differentiated through."""
        del ctx, bars
        raise NotImplementedError(
            "ResidualBlock.inverse: expected at most first derivatives, got a second; try those of forward at the preimage"
        )


def outside_autocast(x: Tensor) -> Any:
    """A context in which products are made in the precision of the weights."""
    return torch.autocast(x.device.type, enabled=False)
