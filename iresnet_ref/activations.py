"""Activations φ with their first two derivatives and their constants; `mlp` and `convnet` also take them by name."""

from iresnet_ref.layers.activations import ACTIVATIONS, Activation, elu, get, leaky_relu
from iresnet_ref.layers.lipswish import lipswish

__all__ = ["ACTIVATIONS", "Activation", "elu", "get", "leaky_relu", "lipswish"]
