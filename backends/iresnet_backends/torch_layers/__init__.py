"""Blocks and flows as `torch.nn.Module`s: the reference's values, its own gradients, and a proof after every step.

>>> import torch
>>> from iresnet_backends import torch_layers
>>> block = torch_layers.ResidualBlock((2, 32, 32, 2), lipschitz=0.9)
>>> y, log_det = block(torch.zeros(5, 2))
>>> x, log_det_of_inverse = block.inverse(y)
>>> block.certificate().bound <= 0.9
True

`ResidualBlock` is F = id + g; `Flow` a whole `ir.Flow` with its base; `layer` makes a module of any bijection of the reference:
convolutional and densely connected blocks, ActNorm, permutations, squeezes, the multi-scale factor-out.
"""

from iresnet_backends.torch_layers.bijections import Bijection, Composition, FactorOut, ResidualBlock, layer
from iresnet_backends.torch_layers.flow import Flow
from iresnet_backends.torch_layers.interfaces import AsInvertibleModule, AsTransform

__all__ = ["AsInvertibleModule", "AsTransform", "Bijection", "Composition", "FactorOut", "Flow", "ResidualBlock", "layer"]
