"""What the layers of Equinox and Flax are as layers of the reference, by exact type: a class of one's own may compute anything."""

from __future__ import annotations

import functools
import inspect
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from iresnet_backends.errors import ModuleError
from iresnet_backends.reading.forward_graph import reshaped
from iresnet_ref.arrays import to_host
from iresnet_ref.layers import activations, saturating
from iresnet_ref.layers.activations import Activation
from iresnet_ref.layers.diagonal import DiagonalAffine
from iresnet_ref.layers.layer import Layer
from iresnet_ref.layers.linear import Affine, Conv
from iresnet_ref.layers.pointwise import Pointwise
from iresnet_ref.layers.rearrangement import Rearrangement

LARGEST = 4096
"""Rows and columns, at most, of the matrix of a linear operator."""
Event = tuple[int, ...]
FUNCTIONS: tuple[tuple[Any, str], ...] = (
    (jax.nn.relu, "relu"), (jax.nn.elu, "elu"), (jax.nn.selu, "selu"), (jax.nn.celu, "elu"), (jax.nn.silu, "silu"),
    (jax.nn.gelu, "gelu tanh"), (jax.nn.mish, "mish"), (jax.nn.sigmoid, "sigmoid"), (jax.nn.log_sigmoid, "log sigmoid"),
    (jax.nn.softplus, "softplus"), (jax.nn.soft_sign, "softsign"), (jax.nn.tanh, "tanh"), (jnp.tanh, "tanh"), (jnp.sin, "sine"),
    (jax.nn.leaky_relu, "leaky relu"), (jax.nn.hard_tanh, "hardtanh"), (jax.nn.relu6, "relu6"), (jax.nn.hard_sigmoid, "hard sigmoid"),
    (jax.nn.hard_silu, "hardswish"), (jax.nn.identity, "identity"),
)  # fmt: skip
"""The functions of JAX that are activations of the reference, as they are without further arguments."""


class Reader:
    """Reads parts one after the other; `variables` are those of a Flax linen module."""

    def __init__(self, event: Event, like: Any, variables: Mapping[str, Any]) -> None:
        self.event, self.like, self.variables = event, like, variables
        self.layers: list[Layer] = []

    def add(self, *layers: Layer) -> None:
        """Append layers."""
        for layer in layers:
            self.event = layer.out_shape(self.event)
            self.layers.append(layer)

    def read(self, part: Any, place: str, path: tuple[str, ...] = ()) -> None:
        """Append what one part is: (weight, bias, activation), a layer, a stack, a function or a name. Raises ModuleError."""
        if isinstance(part, tuple) and len(part) == 3:
            self.dense(part[0], part[1], place)
            self.read("identity" if part[2] is None else part[2], f"{place}, its activation")
        elif isinstance(part, list | tuple):
            for i, inner in enumerate(part):
                self.read(inner, f"{place}[{i}]", path)
        elif (activation := activation_of(part)) is not None:
            self.add(Pointwise(activation))
        elif not any(known(part, place, path) for known in (self._equinox, self._nnx, self._linen)):
            name = getattr(part, "__name__", type(part).__name__)
            raise ModuleError(
                "from_jax: expected (weight, bias, activation), dense, convolutional, pooling and BatchNorm layers of Equinox or Flax, "
                f"stacks of them and activations of jax.nn, got {name} at {place}; give a module of your own as the list of its layers, "
                "and itself as against="
            )

    def dense(self, weight: Any, bias: Any, place: str) -> None:
        """Append W x + b on the last axis."""
        if getattr(weight, "ndim", 0) != 2:
            raise ModuleError(
                f"from_jax: expected a weight of shape (out, in) at {place}, got {getattr(weight, 'shape', weight)}"
            )
        weight = jnp.asarray(weight)
        bias = jnp.zeros_like(weight[:, 0]) if bias is None else jnp.asarray(bias)
        if len(self.event) == 1:
            self.add(Affine(weight, bias))
        else:
            self.linear(lambda x: x @ weight.T, place)
            self.shift(jnp.ones_like(bias), bias)

    def linear(self, function: Callable[[Any], Any], place: str) -> None:
        """Append the matrix of a linear function of batches on the events that it meets."""
        n = math.prod(self.event)
        out = jax.eval_shape(function, jax.ShapeDtypeStruct((1, *self.event), self.like.dtype)).shape[1:]
        if max(n, math.prod(out)) > LARGEST:
            raise ModuleError(
                f"from_jax: expected a linear operator of at most {LARGEST} inputs and outputs, whose matrix is proved, at {place}, got "
                f"{n} → {math.prod(out)}"
            )
        rows = function(jnp.eye(n, dtype=self.like.dtype).reshape(n, *self.event)).reshape(n, -1)
        matrix = Affine(rows.T, jnp.zeros_like(rows[0]))
        self.add(reshaped(self.event, (n,)), matrix, reshaped((rows.shape[1],), tuple(out)))

    def shift(self, scale: Any, bias: Any) -> None:
        """Append scale∘x + bias, numbers for each entry of the last axes."""
        self.add(
            DiagonalAffine(
                *(jnp.broadcast_to(jnp.asarray(a, dtype=self.like.dtype), self.event) for a in (scale, bias))
            )
        )

    def convolution(
        self, kernel: Any, bias: Any, strides: Sequence[int], padding: Any, dilation: Sequence[int], groups: int, mode: str, place: str
    ) -> None:  # fmt: skip
        """Append a convolution on (channels, *image), its kernel (out, in/groups, *taps)."""
        wide = [gap * (k - 1) + 1 for gap, k in zip(dilation, kernel.shape[2:], strict=True)]
        image = self.event[1:]
        if isinstance(padding, str):
            padding = jax.lax.padtype_to_pads(image, wide, strides, padding)
        sides = [tuple(int(side) for side in pair) for pair in padding]
        same = (
            len(wide) <= 2 and set(strides) == {1} and all(w % 2 for w in wide) and sides == [(w // 2, w // 2) for w in wide]
            and all(w <= n for w, n in zip(wide, image, strict=True))
        )  # fmt: skip
        if same:
            whole = jnp.asarray(_whole_kernel(to_host(kernel), wide, dilation, groups))
            height_width = (image[0], image[1] if len(wide) == 2 else 1)
            zero = jnp.zeros_like(whole.reshape(whole.shape[0], -1)[:, 0])
            layer = Conv(
                whole.reshape(*whole.shape[:2], *(*wide, 1)[:2]), zero if bias is None else jnp.asarray(bias).reshape(-1), height_width,
                "circular" if mode == "wrap" else "zero",
            )  # fmt: skip
            event, out = self.event, (whole.shape[0], *image)
            self.add(reshaped(event, (event[0], *height_width)), layer, reshaped((out[0], *height_width), out))
            return

        def function(x: Any) -> Any:
            around: Any = sides
            if mode == "wrap":
                x, around = jnp.pad(x, [(0, 0), (0, 0), *sides], mode="wrap"), [(0, 0)] * len(sides)
            return jax.lax.conv_general_dilated(
                x,
                jnp.asarray(kernel),
                strides,
                around,
                rhs_dilation=dilation,
                feature_group_count=groups,
                precision="highest",
            )

        self.linear(function, place)
        if bias is not None:
            bias = jnp.asarray(bias).reshape(-1, *(1 for _ in image))
            self.shift(jnp.ones_like(bias), bias)

    def channels_last(self, kernel: Any, bias: Any, settings: Any, place: str) -> None:
        """Append a convolution of Flax, on (*image, channels) with a kernel (*taps, in/groups, out)."""
        rank = kernel.ndim - 2
        strides, dilation = (_each(getattr(settings, name), rank) for name in ("strides", "kernel_dilation"))
        padding, mode = settings.padding, "constant"
        if isinstance(padding, str) and padding in ("CIRCULAR", "SAME", "VALID"):
            padding, mode = ("SAME", "wrap") if padding == "CIRCULAR" else (padding, mode)
        elif (
            isinstance(padding, str)
            or _each(settings.input_dilation, rank) != (1,) * rank
            or getattr(settings, "mask", None) is not None
        ):
            raise ModuleError(
                f"from_jax: expected padding SAME, VALID, CIRCULAR or numbers, no mask or input dilation, at {place}, got others"
            )
        else:
            padding = [(p, p) if isinstance(p, int) else tuple(p) for p in _each(padding, rank)]
        event = self.event
        self.add(Rearrangement(event, (rank, *range(rank)), (event[-1], *event[:-1])))
        turned = jnp.transpose(jnp.asarray(kernel), (rank + 1, rank, *range(rank)))
        self.convolution(turned, bias, strides, padding, dilation, settings.feature_group_count, mode, place)
        channels, *image = self.event
        self.add(Rearrangement(self.event, (*range(1, rank + 1), 0), (*image, channels)))

    def batch_norm(self, mean: Any, variance: Any, scale: Any, bias: Any, settings: Any, place: str) -> None:
        """Append BatchNorm of Flax with its running statistics: an affine map."""
        if not settings.use_running_average or settings.axis not in (-1, len(self.event)):
            raise ModuleError(
                f"from_jax: expected BatchNorm on the last axis with use_running_average=True at {place}, got another"
            )
        factor = jax.lax.rsqrt(jnp.asarray(variance) + settings.epsilon)
        factor = factor if scale is None else factor * jnp.asarray(scale)
        self.shift(factor, (0.0 if bias is None else jnp.asarray(bias)) - jnp.asarray(mean) * factor)

    def _equinox(self, part: Any, place: str, path: tuple[str, ...]) -> bool:
        eqx = sys.modules.get("equinox")
        if eqx is None:
            return False
        nn, kind = eqx.nn, type(part)
        if (
            kind is nn.Linear
            and isinstance(part.weight, jax.Array)
            and part.weight.ndim == 2
            and "scalar" not in (part.in_features, part.out_features)
        ):
            self.dense(part.weight, part.bias, place)
        elif kind is nn.MLP and "scalar" not in (part.in_size, part.out_size):
            nothing = inspect.signature(nn.MLP.__init__).parameters["final_activation"].default
            for i, layer in enumerate(part.layers):
                self.read(layer, f"{place}.layers[{i}]", path)
                activation = part.activation if i + 1 < len(part.layers) else part.final_activation
                self.read("identity" if activation is nothing else activation, f"{place}, its activation", path)
        elif kind is nn.Sequential:
            self.read(list(part.layers), f"{place}.layers", path)
        elif kind in (nn.Conv, nn.Conv1d, nn.Conv2d, nn.Conv3d):
            modes = {"ZEROS": "constant", "CIRCULAR": "wrap"}
            mode = modes.get(getattr(part, "padding_mode", "ZEROS").upper())
            if mode is None:
                raise ModuleError(
                    f"from_jax: expected padding_mode ZEROS or CIRCULAR at {place}, got {part.padding_mode}"
                )
            self.convolution(part.weight, part.bias, part.stride, part.padding, part.dilation, part.groups, mode, place)
        elif kind in (
            nn.AvgPool1d,
            nn.AvgPool2d,
            nn.AvgPool3d,
            nn.AdaptiveAvgPool1d,
            nn.AdaptiveAvgPool2d,
            nn.AdaptiveAvgPool3d,
        ):
            self.linear(jax.vmap(part), place)
        elif kind is nn.Lambda:
            self.read(part.fn, place, path)
        elif kind not in (nn.Identity, nn.Dropout):
            return False
        return True

    def _nnx(self, part: Any, place: str, path: tuple[str, ...]) -> bool:
        nnx = sys.modules.get("flax.nnx")
        if nnx is None:
            return False
        kind = type(part)
        if kind is nnx.Linear:
            self.dense(_value(part.kernel).T, _value(part.bias), place)
        elif kind is nnx.Sequential:
            self.read(list(part.layers), f"{place}.layers", path)
        elif kind is nnx.Conv:
            self.channels_last(_value(part.kernel), _value(part.bias), part, place)
        elif kind is nnx.BatchNorm:
            self.batch_norm(_value(part.mean), _value(part.var), _value(part.scale), _value(part.bias), part, place)
        elif kind is not nnx.Dropout:
            return False
        return True

    def _linen(self, part: Any, place: str, path: tuple[str, ...]) -> bool:
        linen = sys.modules.get("flax.linen")
        if linen is None:
            return False
        kind, own = type(part), functools.partial(_inside, self.variables, path)
        if kind is linen.Sequential:
            for i, layer in enumerate(part.layers):
                self.read(layer, f"{place}.layers[{i}]", (*path, f"layers_{i}"))
        elif kind is linen.Dense:
            self.dense(jnp.asarray(own("params", "kernel")).T, own("params", "bias") if part.use_bias else None, place)
        elif kind is linen.Conv:
            self.channels_last(own("params", "kernel"), own("params", "bias") if part.use_bias else None, part, place)
        elif kind is linen.BatchNorm:
            scale, bias = (
                own("params", "scale") if part.use_scale else None,
                own("params", "bias") if part.use_bias else None,
            )
            self.batch_norm(own("batch_stats", "mean"), own("batch_stats", "var"), scale, bias, part, place)
        elif kind is not linen.Dropout:
            return False
        return True


def activation_of(part: Any) -> Activation | None:
    """Return the activation of a name, of a function of JAX, or of one with its arguments bound by functools.partial; None for others."""
    if isinstance(part, str):
        return activations.get(part)
    if isinstance(part, Activation):
        return part
    bound: dict[str, Any] = {}
    if isinstance(part, functools.partial) and not part.args:
        part, bound = part.func, dict(part.keywords)
    name = next((name for function, name in FUNCTIONS if function is part), None)
    if name is None:
        return None
    if name == "relu6":
        return None if bound else activations.FAMILIES["hardtanh"](0.0, 6.0)
    families: dict[Any, Callable[..., Activation]] = {
        (jax.nn.elu, "alpha"): activations.elu, (jax.nn.celu, "alpha"): saturating.celu,
        (jax.nn.leaky_relu, "negative_slope"): activations.leaky_relu,
        (jax.nn.gelu, "approximate"): lambda approximate: activations.get("gelu tanh" if approximate else "gelu"),
    }  # fmt: skip
    if not bound:
        return activations.get(name)
    (argument, value), *more = bound.items()
    family = next((f for (function, of), f in families.items() if function is part and of == argument), None)
    return None if more or family is None else family(value)


def _whole_kernel(kernel: Any, wide: Sequence[int], gaps: Sequence[int], groups: int) -> Any:
    """Return the kernel with zeros between dilated taps and between groups of channels."""
    outputs, inputs = kernel.shape[0], kernel.shape[1] * groups
    whole = np.zeros((outputs, inputs, *wide), dtype=kernel.dtype)
    taps = tuple(slice(None, None, gap) for gap in gaps)
    for g in range(groups):
        rows = slice(g * (outputs // groups), (g + 1) * (outputs // groups))
        whole[(rows, slice(g * kernel.shape[1], (g + 1) * kernel.shape[1]), *taps)] = kernel[rows]
    return whole


def _each(setting: Any, rank: int) -> tuple[Any, ...]:
    return (1,) * rank if setting is None else (setting,) * rank if isinstance(setting, int) else tuple(setting)


def _value(variable: Any) -> Any:
    """Return the array of a variable of nnx, None where there is none."""
    array = variable.get_value() if hasattr(variable, "get_value") else getattr(variable, "value", variable)
    return None if array is None else jnp.asarray(array)


def _inside(variables: Mapping[str, Any], path: tuple[str, ...], collection: str, name: str) -> Any:
    """Return an array of linen's nested dictionaries. Raises ModuleError."""
    found: Any = variables.get(collection, {})
    for key in (*path, name):
        if key not in found:
            raise ModuleError(
                f"from_jax: expected variables with {'/'.join((collection, *path, name))}, got none; try variables=net.init(…)"
            )
        found = found[key]
    return found


def arrays(tree: Any) -> Iterator[Any]:
    """Yield the floating arrays of a tree."""
    for leaf in jax.tree.leaves(tree):
        if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating):
            yield leaf
