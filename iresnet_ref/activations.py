"""Activations φ with their first two derivatives and their constants; `mlp` and `convnet` also take them by name."""

from iresnet_ref.layers.activations import ACTIVATIONS, Activation, elu, get, leaky_relu
from iresnet_ref.layers.piecewise import hardtanh, softshrink
from iresnet_ref.layers.saturating import celu, softplus
from iresnet_ref.layers.swish import lipswish, silu

__all__ = ["ACTIVATIONS", "Activation", "celu", "elu", "get", "hardtanh", "leaky_relu", "lipswish", "silu", "softplus", "softshrink"]
