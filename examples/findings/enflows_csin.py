"""enflows 0.0.1: the activation "csin" of DenseNet, [sin x, cos x]-like, stretches by √2.

DenseNet promises "a fixed lipschitz constant" with lip_coeff = 0.98 a layer, which needs 1-Lipschitz activations.
"""
import sys

import torch
from enflows.nn.nets.invertible_densenet import ACTIVATION_FNS

phi = ACTIVATION_FNS["csin"]()
x = torch.linspace(-4, 4, 80001).double()[:, None]
y = phi(x)
ratio = ((y[1:] - y[:-1]).norm(dim=1) / (x[1:] - x[:-1]).norm(dim=1)).max().item()
print(f"expected a Lipschitz constant of at most 1, got {ratio:.4f}")
sys.exit(ratio > 1.001)
