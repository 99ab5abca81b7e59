"""torchflows 1.2.1: the forward pass of InvertibleResNetBlock is random, in evaluation too.

SpectralMatrix starts its power iteration from a new random vector in every call, so the map differs from call to call.
A bijection is a map; nothing in the documentation says that this one is random.
"""
import sys

import torch
from torchflows.bijections.finite.residual.iterative import InvertibleResNetBlock

torch.manual_seed(0)
block = InvertibleResNetBlock((3,), hidden_size=4).eval()
x = torch.randn(5, 3)
difference = (block(x)[0] - block(x)[0]).abs().max().item()
print(f"expected the same output twice, got a difference of {difference:.2e}")
sys.exit(difference > 0)
