"""enflows 0.0.1: the fixed-point inverse of iResBlock stops when the *square* of its step is below the tolerance.

_inverse_fixed_point(y, atol=1e-5, rtol=1e-5) returns x whose error is up to hundreds of times atol + rtol·|y|.
"""
import sys

import torch
from enflows.transforms.lipschitz.iresblock import iResBlock


class Contraction(torch.nn.Module):
    def forward(self, x, context=None):
        return 0.9 * torch.sin(x)


block = iResBlock(Contraction()).eval()
x = torch.linspace(-3, 3, 101).double()[:, None]
y = x + 0.9 * torch.sin(x)
ratio = ((block._inverse_fixed_point(y) - x).abs() / (1e-5 + 1e-5 * y.abs())).max().item()
print(f"expected an error of the size of atol + rtol·|y|, got {ratio:.0f} times as much")
sys.exit(ratio > 20)
