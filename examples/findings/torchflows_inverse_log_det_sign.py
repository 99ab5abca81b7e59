"""torchflows 1.2.1: InvertibleResNetBlock.inverse returns the log-determinant of the forward map.

Bijection.inverse promises "the log Jacobian determinant of the inverse transform". Here J is the constant c·I, so
that one Rademacher-like probe scales it but cannot change its sign.
"""
import math
import sys

import torch
from torchflows.bijections.finite.residual.iterative import InvertibleResNetBlock

torch.manual_seed(0)
g = torch.nn.Linear(2, 2)
torch.nn.init.eye_(g.weight).data.mul_(0.5)
block = InvertibleResNetBlock((2,), g=g, n_power_series_iterations=30).eval()
got = block.inverse(torch.randn(20000, 2))[1].mean().item()
print(f"expected {-2 * math.log(1.5):.3f}, got {got:.3f}")
sys.exit(got > 0)
