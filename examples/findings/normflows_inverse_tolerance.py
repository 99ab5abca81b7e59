"""normflows 1.7.3: the fixed-point inverse of Residual stops when the *square* of its step is below the tolerance.

_inverse_fixed_point(y, atol=1e-5, rtol=1e-5) returns x whose error is up to hundreds of times atol + rtol·|y|.
"""
import sys

import torch
from normflows.flows.residual import iResBlock

g = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Tanh()).double()
g[0].weight.data.fill_(0.9)
g[0].bias.data.zero_()
x = torch.linspace(-3, 3, 101).double()[:, None]
y = x + g(x)
ratio = ((iResBlock(g)._inverse_fixed_point(y) - x).abs() / (1e-5 + 1e-5 * y.abs())).max().item()
print(f"expected an error of the size of atol + rtol·|y|, got {ratio:.0f} times as much")
sys.exit(ratio > 20)
