"""Rules of `torch_graph` for linear and affine functions of torch, and for sums.

A rule takes the call and its arguments by torch's own names, and returns the value that comes out. Whatever is linear and has no
layer of its own (strides, pooling, padding, upsampling, slices) becomes the matrix of the operator on its events, up to 4096 × 4096.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from iresnet_backends.errors import ModuleError
from iresnet_backends.reading.forward_graph import Value, reshaped
from iresnet_backends.reading.torch_graph import Call, Followed
from iresnet_ref.layers.diagonal import DiagonalAffine
from iresnet_ref.layers.layer import Layer
from iresnet_ref.layers.linear import Affine, Conv
from iresnet_ref.layers.rearrangement import Rearrangement

LARGEST = 4096
"""Rows and columns, at most, of the matrix of a linear operator."""

AVERAGES = frozenset([
    "mean", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
    "interpolate", "upsample",
])  # fmt: skip
"""Linear functions with numbers of their own, such as 1/3."""


def after(x: Followed, event: tuple[int, ...], make: Callable[[], Sequence[Layer]], note: Any = None) -> Value:
    """Return the value of these layers behind x."""
    return Value(event, (x.value,), make, note)


def only(x: Any, call: Call) -> Followed:
    """Refuse a call whose first argument is not what depends on the input."""
    if not isinstance(x, Followed):
        raise call.refuse(f"the value that depends on the input as the first argument of {call.name}", "it elsewhere")
    return x


def constant(call: Call, c: Any, event: tuple[int, ...], like: Any) -> Any:
    """Return a number or tensor as an array of the event's shape. Raises ModuleError where it differs between rows or widens the event."""
    shape = tuple(c.shape) if isinstance(c, torch.Tensor) else ()
    if len(shape) == len(event) + 1 and shape[:1] == (1,):
        c, shape = c.reshape(shape[1:]), shape[1:]
    fits = len(shape) <= len(event) and all(a in (1, b) for a, b in zip(reversed(shape), reversed(event), strict=False))
    if not fits or isinstance(c, complex):
        raise call.refuse(f"a constant for each entry of the event {event} in {call.name}", f"one of shape {shape}")
    values = torch.as_tensor(c, dtype=like.dtype, device=like.device)
    return values.detach().expand(event).clone()


def diagonal(call: Call, x: Followed, scale: Any, bias: Any, note: Any = None) -> Value:
    """Return scale∘x + bias, each a number or a tensor."""
    event, like = x.value.event, call.result
    a, b = (constant(call, c, event, like) for c in (scale, bias))
    return after(x, event, lambda: [DiagonalAffine(a, b)], note)


def identity(call: Call, x: Any, *args: Any, **kwargs: Any) -> Any:
    """The same values."""
    del args, kwargs
    return only(x, call)


def cast(call: Call, x: Any, *args: Any, **kwargs: Any) -> Any:
    """A conversion that converts nothing: the dtype was looked at."""
    del args, kwargs
    return only(x, call)


def dropout(call: Call, input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """The identity in evaluation."""
    del inplace
    if training and p > 0.0:
        raise call.refuse("a forward without random numbers", f"{call.name}(p={p}, training=True)")
    return only(input, call)


def linear(call: Call, input: Any, weight: Any, bias: Any = None) -> Value:
    """W x + b on the last axis; other axes are pixels of a 1×1 convolution."""
    x = only(input, call)
    event, (outputs, inputs) = x.value.event, weight.shape
    w = weight.detach().clone()
    b = torch.zeros_like(w[:, 0]) if bias is None else bias.detach().clone()
    if len(event) == 1:
        return after(x, (outputs,), lambda: [Affine(w, b)])
    out, pixels = (*event[:-1], outputs), math.prod(event[:-1])
    rank = len(event)

    def make() -> list[Layer]:
        return [
            Rearrangement(event, (rank - 1, *range(rank - 1)), (inputs, pixels, 1)), Conv(w[:, :, None, None], b, (pixels, 1)),
            Rearrangement((outputs, pixels, 1), (1, 0, 2), out),
        ]  # fmt: skip

    return after(x, out, make)


def matmul(call: Call, input: Any, other: Any) -> Value:
    """x W, or any product with a constant."""
    if (
        isinstance(input, Followed)
        and isinstance(other, torch.Tensor)
        and not isinstance(other, Followed)
        and other.ndim == 2
    ):
        return linear(call, input, other.T)
    return affine(call)


def addmm(call: Call, input: Any, mat1: Any, mat2: Any, *, beta: float = 1.0, alpha: float = 1.0) -> Value:
    """βb + α x W."""
    if isinstance(input, Followed) or isinstance(mat2, Followed) or input.ndim != 1:
        raise call.refuse("a constant weight and bias of addmm", "others")
    if alpha != 1:
        call.graph.rounded.append(call.name)
    return linear(call, mat1, alpha * mat2.T, beta * input)


def affine(call: Call, *args: Any, **kwargs: Any) -> Any:
    """Any function that is affine in its one followed argument: its matrix on the events."""
    del args, kwargs
    followed = [a for a in (*_leaves(call.args), *_leaves(call.kwargs)) if isinstance(a, Followed)]
    if len(followed) != 1:
        raise call.refuse(f"one argument of {call.name} that depends on the input", f"{len(followed)}")
    x = followed[0]
    event, ends = x.value.event, call.events()
    sizes = [math.prod(event), *(math.prod(end) for end in ends)]
    if max(sizes) > LARGEST:
        raise call.refuse(
            f"a linear operator of at most {LARGEST} inputs and outputs, whose matrix is proved, for {_settings(call)}",
            f"{sizes[0]} → {', '.join(map(str, sizes[1:]))}",
        )
    pairs = call.matrices(event)
    dtype = x.dtype
    # beyond products with one constant, float64 has rounded too: only what has few digits is certainly exact
    digits = torch.float32 if call.name in AVERAGES or sum(isinstance(a, torch.Tensor) for a in _leaves(call.args)) > 2 else dtype
    if not all(torch.equal(m.to(digits).double(), m) for m, _ in pairs):
        call.graph.rounded.append(call.name)
    values = [
        after(x, end, partial(matrix_layers, event, end, m.to(dtype), s.to(dtype)))
        for end, (m, s) in zip(ends, pairs, strict=True)
    ]
    return values if isinstance(call.result, (tuple, list)) else values[0]


def matrix_layers(event: tuple[int, ...], out: tuple[int, ...], matrix: Any, shift: Any) -> list[Layer]:
    """Return the layers of a matrix on flattened events."""
    return [reshaped(event, (math.prod(event),)), Affine(matrix, shift), reshaped((math.prod(out),), out)]


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        return _leaves(tuple(tree.values()))
    return [leaf for part in tree for leaf in _leaves(part)] if isinstance(tree, (tuple, list)) else [tree]


def _settings(call: Call) -> str:
    numbers = [a for a in call.args[3:] if isinstance(a, (int, tuple, list))]
    return f"{call.name}{tuple(numbers)}" if call.name.startswith("conv") else call.name


def convolution(
    call: Call, input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Any:  # fmt: skip
    """A layer `Conv` where stride is 1 and the image keeps its size; dilation, groups and circular padding are written into its kernel."""
    x = only(input, call)
    rank = weight.ndim - 2
    source, mode = x.value, "zero"
    steps, gaps = (v if isinstance(v, (tuple, list)) else (v,) * rank for v in (stride, dilation))
    wide = [gap * (k - 1) + 1 for gap, k in zip(gaps, weight.shape[2:], strict=True)]
    around: Any = [w // 2 for w in wide] if padding == "same" else [0] * rank if padding == "valid" else padding
    around = list(around if isinstance(around, (tuple, list)) else [around] * rank)
    if isinstance(source.note, Padded) and not any(around):  # what padding_mode="circular" does first
        source, around, mode = source.inputs[0], source.note.widths, "circular"
    image, end = source.event[1:], call.events()[0]
    same = (
        rank <= 2 and set(steps) == {1} and all(w % 2 for w in wide) and around == [w // 2 for w in wide]
        and all(w <= n for w, n in zip(wide, image, strict=True)) and end[1:] == tuple(image)
    )  # fmt: skip
    if not same:
        return affine(call)
    kernel = _whole_kernel(weight.detach(), wide, gaps, groups)
    b = torch.zeros_like(kernel.reshape(kernel.shape[0], -1)[:, 0]) if bias is None else bias.detach().clone()
    height_width = (image[0], image[1] if rank == 2 else 1)
    layer = Conv(
        kernel.reshape(*kernel.shape[:2], *(*wide, 1)[:2]),
        b,
        height_width,
        "circular" if mode == "circular" else "zero",
    )
    inside, outside = (source.event[0], *height_width), (end[0], *height_width)
    return Value(end, (source,), lambda: [reshaped(source.event, inside), layer, reshaped(outside, end)])


def _whole_kernel(weight: Any, wide: list[int], gaps: Any, groups: int) -> Any:
    """Return the kernel with zeros between dilated taps and between groups of channels."""
    outputs, inputs = weight.shape[0], weight.shape[1] * groups
    kernel = torch.zeros((outputs, inputs, *wide), dtype=weight.dtype, device=weight.device)
    taps = tuple(slice(None, None, gap) for gap in gaps)
    for g in range(groups):
        rows = slice(g * (outputs // groups), (g + 1) * (outputs // groups))
        columns = slice(g * weight.shape[1], (g + 1) * weight.shape[1])
        kernel[(rows, columns, *taps)] = weight[rows]
    return kernel


class Padded:
    """The note of an image padded circularly, by equal `widths` on both sides of each axis."""

    def __init__(self, widths: list[int]) -> None:
        self.widths = widths


def pad(call: Call, input: Any, pad: Any, mode: str = "constant", value: Any = None) -> Any:
    """The matrix of the padding; a convolution that follows takes circular padding into its own norm."""
    del value
    x = only(input, call)
    found = None
    sides = list(reversed(list(zip(pad[::2], pad[1::2], strict=True))))
    if mode == "circular" and len(sides) == len(x.value.event) - 1 and all(a == b for a, b in sides):
        found = Padded([a for a, _ in sides])
    end = call.events()[0]
    if max(math.prod(x.value.event), math.prod(end)) > LARGEST and found is None:
        return affine(call)

    def make() -> list[Layer]:
        if max(math.prod(x.value.event), math.prod(end)) > LARGEST:
            raise ModuleError(
                f"from_torch: expected at most {LARGEST} entries where circular padding is on its own, got {end}"
            )
        ((matrix, shift),) = call.matrices(x.value.event)
        return matrix_layers(x.value.event, end, matrix.to(call.result.dtype), shift.to(call.result.dtype))

    return after(x, end, make, found)


def batch_norm(
    call: Call, input: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None, training: bool = False,
    momentum: float = 0.1, eps: float = 1e-5,
) -> Any:  # fmt: skip
    """x ↦ αx + β for each channel, α = γ/√(σ² + ε), β = b − μα, rounded as torch does it."""
    del momentum
    x = only(input, call)
    if training or running_mean is None:
        raise call.refuse("BatchNorm with running statistics, an affine map", "one that takes those of the batch")
    scale = 1.0 / torch.sqrt(running_var.detach() + eps)
    scale = scale if weight is None else scale * weight.detach()
    shift = (0.0 if bias is None else bias.detach()) - running_mean.detach() * scale
    shape = (-1, *(1 for _ in x.value.event[1:]))
    return diagonal(call, x, scale.reshape(shape), shift.reshape(shape))


def reshape(call: Call, x: Any, *args: Any, **kwargs: Any) -> Value:
    """The event in another shape: rows stay rows."""
    del args, kwargs
    x = only(x, call)
    event, (out,) = x.value.event, call.events()
    return after(x, out, lambda: [reshaped(event, out)])


def permute(call: Call, x: Any, *args: Any, **kwargs: Any) -> Value:
    """The axes of the event in another order: the batch stays first."""
    x = only(x, call)
    event, (out,) = x.value.event, call.events()
    rank = len(event)
    sides = torch.empty([i + 2 for i in range(rank + 1)], device="meta")  # an axis is known by its length
    order = [side - 2 for side in call.function(sides, *args, **kwargs).shape]
    if order[0] != 0 or len(order) != rank + 1:
        raise call.refuse("the batch to stay the first axis", f"the axes {order}")
    return after(x, out, lambda: [Rearrangement(event, tuple(axis - 1 for axis in order[1:]), out)])


def add(call: Call, input: Any, other: Any, *, alpha: Any = 1, out: Any = None) -> Any:
    """x + αy, each of them a value or a constant."""
    del out
    if isinstance(input, Followed) and isinstance(other, Followed):
        return _sum(call, input, other, float(alpha))
    if isinstance(other, Followed):
        return diagonal(call, other, alpha, input)
    return diagonal(call, only(input, call), 1.0, alpha * other)


def sub(call: Call, input: Any, other: Any, *, alpha: Any = 1, out: Any = None) -> Any:
    """x − αy."""
    del out
    if isinstance(input, Followed) and isinstance(other, Followed):
        return _sum(call, input, other, -float(alpha))
    if isinstance(other, Followed):
        return diagonal(call, other, -alpha, input)
    return diagonal(call, only(input, call), 1.0, -alpha * other)


def rsub(call: Call, input: Any, other: Any, *, alpha: Any = 1) -> Any:
    """other − x."""
    return sub(call, other, input, alpha=alpha)


def _sum(call: Call, x: Followed, y: Followed, weight: float) -> Value:
    if x.value.event != y.value.event:
        raise call.refuse("a sum of values of one shape", f"{x.value.event} and {y.value.event}")
    second = y.value
    if weight != 1.0:
        scale = constant(call, weight, y.value.event, call.result)
        second = after(y, y.value.event, lambda: [DiagonalAffine(scale, torch.zeros_like(scale))])
    return Value(x.value.event, (x.value, second))


def cat(call: Call, tensors: Any, dim: int = 0, *, out: Any = None) -> Value:
    """Values side by side along an axis of the event, as the sum of their images under matrices of zeros and ones."""
    del out
    (end,), inputs = call.events(), []
    if not all(isinstance(part, Followed) for part in tensors) or math.prod(end) > LARGEST:
        raise call.refuse(
            f"values that depend on the input, {LARGEST} numbers together", f"others, or {math.prod(end)}"
        )
    places = torch.arange(math.prod(end), device=call.result.device).reshape(end)
    sizes = [part.value.event[(dim % call.result.ndim) - 1] for part in tensors]
    for part, mine in zip(tensors, torch.split(places, sizes, dim % call.result.ndim - 1), strict=True):
        n = mine.numel()
        embedding = torch.zeros((places.numel(), n), dtype=call.result.dtype, device=places.device)
        embedding[mine.reshape(-1), torch.arange(n, device=places.device)] = 1.0
        nothing = torch.zeros_like(embedding[:, 0])
        inputs.append(after(part, end, partial(matrix_layers, part.value.event, end, embedding, nothing)))
    return Value(end, tuple(inputs)) if len(inputs) > 1 else inputs[0]
