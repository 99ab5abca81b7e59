"""Activations by name: what `activation=` of a branch may be, and how much wider it makes the event."""

from __future__ import annotations

from iresnet_ref.arrays import Array, device, namespace, shown
from iresnet_ref.errors import DTypeError
from iresnet_ref.layers import activations
from iresnet_ref.layers.activations import ACTIVATIONS, FAMILIES, Activation
from iresnet_ref.layers.gated import GATED
from iresnet_ref.layers.layer import Layer
from iresnet_ref.layers.lipswish import CLipSwish, LipSwish
from iresnet_ref.layers.piecewise import PIECEWISE, hardtanh, softshrink
from iresnet_ref.layers.pointwise import Pointwise
from iresnet_ref.layers.saturating import SATURATING, celu, softplus
from iresnet_ref.layers.sorting import GroupSort
from iresnet_ref.layers.swish import CLIPSWISH

ACTIVATIONS |= {phi.name: phi for phi in (*GATED, *SATURATING, *PIECEWISE)}
FAMILIES |= {"celu": celu, "hardtanh": hardtanh, "softplus": softplus, "softshrink": softshrink}
START = 0.5
"""The raw slope that a learnable LipSwish begins at ([C19]): β = softplus(.5) = .974."""
LAYERS = ("clipswish", "fullsort", "learnable clipswish", "learnable lipswish", "maxmin")


def nonlinearity(activation: str | Activation | Layer, like: Array) -> Layer:
    """Return the layer of an activation: a name, an `Activation` such as `elu(2.0)`, or a layer such as `GroupSort(4)`.

    Raises ValueError naming the known names.

    >>> import numpy as np
    >>> nonlinearity("maxmin", np.zeros(1)), nonlinearity("learnable lipswish", np.zeros(1)).raw.tolist()
    (GroupSort(group=2, descending=True), [0.5])
    """
    if isinstance(activation, Activation):
        return Pointwise(activation)
    if not isinstance(activation, str):
        if not isinstance(activation, Layer):
            raise DTypeError(f"activation: expected a name, an Activation or a layer, got {shown(activation)}; try 'elu'")
        return activation
    if activation in ("maxmin", "fullsort"):
        return GroupSort(2 if activation == "maxmin" else None)
    if activation == "clipswish":
        return CLipSwish()
    if activation in LAYERS:
        raw = namespace(like).full((1,), START, dtype=like.dtype, device=device(like))
        return LipSwish(raw) if activation == "learnable lipswish" else CLipSwish(LipSwish(raw, CLIPSWISH))
    return Pointwise(activations.get(activation, LAYERS))


def widening(layer: Layer) -> int:
    """Return how many times wider the layer's output is: 2 for CLipSwish, else 1."""
    return 2 if isinstance(layer, CLipSwish) else 1
