"""The layers of a residual branch: linear maps, activations, sorting, concatenation, sums of paths and reshapes."""

from iresnet_ref.layers.concatenation import Concatenation
from iresnet_ref.layers.diagonal import DiagonalAffine
from iresnet_ref.layers.layer import Layer
from iresnet_ref.layers.linear import Affine, Conv
from iresnet_ref.layers.lipswish import CLipSwish, LipSwish
from iresnet_ref.layers.parallel import Parallel
from iresnet_ref.layers.pointwise import Pointwise
from iresnet_ref.layers.rearrangement import Rearrangement
from iresnet_ref.layers.sorting import GroupSort

__all__ = [
    "Affine", "CLipSwish", "Concatenation", "Conv", "DiagonalAffine", "GroupSort", "Layer", "LipSwish", "Parallel",
    "Pointwise", "Rearrangement",
]
