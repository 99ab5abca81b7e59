"""torchflows 1.2.1: the log-determinant of Radial is not that of its map in more than one dimension.

The map uses the distance entry by entry, so J is diagonal; the formula is the one for the Euclidean distance.
"""
import sys

import torch
from torchflows.bijections.finite.residual.radial import Radial

torch.manual_seed(0)
layer = Radial((3,))
z = torch.randn(3)
J = torch.autograd.functional.jacobian(lambda z: layer.inverse(z[None])[0][0], z)
got, expected = layer.inverse(z[None])[1].item(), torch.linalg.slogdet(J)[1].item()
print(f"expected log|det J| = {expected:.4f}, got {got:.4f}")
sys.exit(abs(got - expected) > 1e-3)
