"""Rules of `torch_graph` for activations, and for products with a constant, of which swish z·σ(βz) is made."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from iresnet_backends.reading.forward_graph import Value
from iresnet_backends.reading.torch_graph import Call, Followed, Rule
from iresnet_backends.reading.torch_linear import after, diagonal, only
from iresnet_ref.layers import activations, piecewise, saturating
from iresnet_ref.layers.activations import Activation
from iresnet_ref.layers.pointwise import Pointwise
from iresnet_ref.layers.swish import LIPSWISH, lipswish, silu


def pointwise(x: Followed, activation: Activation, note: Any = None) -> Value:
    """Return φ(x)."""
    return after(x, x.value.event, lambda: [Pointwise(activation)], note)


class Swish:
    """The note of σ(βz) or, `times` z, of zσ(βz)."""

    def __init__(self, z: Value, beta: float, times: bool) -> None:
        self.z, self.beta, self.times = z, beta, times


class Scaled:
    """The note of βz, β a number."""

    def __init__(self, z: Value, beta: float) -> None:
        self.z, self.beta = z, beta


def mul(call: Call, input: Any, other: Any, *, out: Any = None) -> Any:
    """c x with a constant c; z σ(βz), which is swish."""
    del out
    if isinstance(input, Followed) and isinstance(other, Followed):
        for a, gate in ((input.value, other.value.note), (other.value, input.value.note)):
            if isinstance(gate, Swish) and not gate.times and gate.z is a:
                swish = Pointwise(silu(gate.beta))
                return Value(a.event, (a,), partial(list, (swish,)), Swish(a, gate.beta, True))
        raise call.refuse(
            "a product with a constant, or z·σ(βz)",
            "one of two values that depend on the input: it has no Lipschitz constant",
        )
    x, c = (other, input) if isinstance(other, Followed) else (only(input, call), other)
    return _scaled(call, x, c, None)


def div(call: Call, input: Any, other: Any, *, rounding_mode: Any = None, out: Any = None) -> Any:
    """x/c with a constant c."""
    del out
    if isinstance(other, Followed) or rounding_mode is not None:
        raise call.refuse(
            "a division by a constant", "one by a value that depends on the input, or rounded to integers"
        )
    if bool((torch.as_tensor(other).double().frexp().mantissa.abs() != 0.5).any()):
        call.graph.rounded.append(call.name)
    return _scaled(call, only(input, call), 1.0 / other, other)


def _scaled(call: Call, x: Followed, c: Any, divisor: Any) -> Value:
    """Return c x; swish divided by at least 1.1 is LipSwish."""
    note, number = x.value.note, _number(c)
    by = _number(divisor) if divisor is not None else None if not number else 1.0 / number
    if isinstance(note, Swish) and note.times and by is not None and by >= LIPSWISH:
        return Value(note.z.event, (note.z,), lambda: [Pointwise(lipswish(note.beta, scale=by))])
    return diagonal(call, x, c, 0.0, Scaled(x.value, number) if number is not None and number > 0.0 else None)


def _number(c: Any) -> float | None:
    """Return c as a number if it is one, or a tensor of equal entries."""
    if isinstance(c, torch.Tensor):
        flat = c.detach().reshape(-1)
        return float(flat[0]) if flat.numel() and bool((flat == flat[0]).all()) else None
    return float(c)


def neg(call: Call, input: Any) -> Any:
    """−x."""
    return diagonal(call, only(input, call), -1.0, 0.0)


def sigmoid(call: Call, input: Any, *, out: Any = None) -> Value:
    """σ(x)."""
    del out
    x = only(input, call)
    inner = x.value.note if isinstance(x.value.note, Scaled) else Scaled(x.value, 1.0)
    return pointwise(x, activations.get("sigmoid"), Swish(inner.z, inner.beta, False))


def named(name: str) -> Rule:
    """Return the rule of an activation without arguments."""
    def rule(call: Call, input: Any, inplace: bool = False, *, out: Any = None) -> Value:
        """An activation of the proofs, by its name."""
        del inplace, out
        return pointwise(only(input, call), activations.get(name))

    return rule


def gelu(call: Call, input: Any, *, approximate: str = "none") -> Value:
    """GELU, exact or by tanh."""
    return pointwise(only(input, call), activations.get("gelu" if approximate == "none" else "gelu tanh"))


def elu(call: Call, input: Any, alpha: float = 1.0, inplace: bool = False) -> Value:
    """ELU."""
    del inplace
    return _argument(call, input, activations.elu, alpha)


def celu(call: Call, input: Any, alpha: float = 1.0, inplace: bool = False) -> Value:
    """CELU."""
    del inplace
    return _argument(call, input, saturating.celu, alpha)


def leaky_relu(call: Call, input: Any, negative_slope: float = 0.01, inplace: bool = False) -> Value:
    """Leaky ReLU."""
    del inplace
    return _argument(call, input, activations.leaky_relu, negative_slope)


def prelu(call: Call, input: Any, weight: Any) -> Value:
    """Leaky ReLU with a learnt slope, one for all channels."""
    slope = _number(weight)
    if slope is None:
        raise call.refuse("PReLU with one slope for all channels", f"{weight.numel()} of them; try num_parameters=1")
    return _argument(call, input, activations.leaky_relu, slope)


def rrelu(
    call: Call, input: Any, lower: float = 0.125, upper: float = 1.0 / 3.0, training: bool = False, inplace: bool = False
) -> Value:  # fmt: skip
    """In evaluation, leaky ReLU with the mean slope."""
    del inplace
    if training:
        raise call.refuse("a forward without random numbers", "rrelu(training=True)")
    return _argument(call, input, activations.leaky_relu, (lower + upper) / 2.0)


def softplus(call: Call, input: Any, beta: float = 1.0, threshold: float = 20.0) -> Value:
    """Softplus, where what torch drops above its threshold is below rounding; elsewhere it jumps."""
    x = only(input, call)
    jump, u = math.log1p(math.exp(-threshold)), torch.finfo(call.result.dtype).eps / 2.0
    if not jump <= u * max(threshold, 0.0):
        raise call.refuse(
            f"a Softplus that is continuous to the rounding of {call.result.dtype}",
            f"threshold={threshold:g}, where it jumps by {jump / beta:.1e}, so that no Lipschitz constant holds; "
            "try nn.Softplus(threshold=40)",
        )
    return _argument(call, x, saturating.softplus, beta)


def softshrink(call: Call, input: Any, lambd: float = 0.5) -> Value:
    """Softshrink."""
    return _argument(call, input, piecewise.softshrink, lambd)


def hardtanh(call: Call, input: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Value:
    """Hardtanh."""
    del inplace
    return _argument(call, input, piecewise.hardtanh, min_val, max_val)


def relu6(call: Call, input: Any, inplace: bool = False) -> Value:
    """ReLU up to 6."""
    del inplace
    return _argument(call, input, piecewise.hardtanh, 0.0, 6.0)


def clamp(call: Call, input: Any, min: Any = None, max: Any = None, *, out: Any = None) -> Value:
    """Hardtanh between two numbers, ReLU above 0."""
    del out
    if isinstance(min, torch.Tensor) or isinstance(max, torch.Tensor):
        raise call.refuse("a clamp between numbers", "one between tensors")
    if max is None and min == 0:
        return pointwise(only(input, call), activations.get("relu"))
    if min is None or max is None:
        raise call.refuse("a clamp on both sides, or at 0 from below", f"min={min}, max={max}")
    return _argument(call, input, piecewise.hardtanh, min, max)


def absolute(call: Call, input: Any) -> Value:
    """|x| is leaky ReLU with slope −1."""
    return _argument(call, input, activations.leaky_relu, -1.0)


def _argument(call: Call, x: Any, family: Callable[..., Activation], *arguments: Any) -> Value:
    try:
        activation = family(*(float(a) for a in arguments))
    except ValueError as error:
        raise call.refuse("an activation of known Lipschitz constant", str(error)) from error
    return pointwise(only(x, call), activation)


def declared(activation: Activation) -> Rule:
    """Return the rule of a module that was declared to be an activation."""
    return lambda call, x: pointwise(only(x, call), activation)
