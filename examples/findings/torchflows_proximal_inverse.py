"""torchflows 1.2.1: ProximalResFlowBlock.inverse is not the inverse of forward.

forward computes (x + γφ(x))/(1 + γ − γt), inverse solves x + γφ(x) = z.
"""
import sys

import torch
from torchflows.bijections.finite.residual.proximal import ProximalResFlowBlock

torch.manual_seed(0)
block = ProximalResFlowBlock((5,), gamma=0.5)
x = torch.randn(4, 5)
gap = (block.inverse(block(x)[0])[0] - x).abs().max().item()
print(f"expected inverse(forward(x)) = x, got a distance of {gap:.3f}")
sys.exit(gap > 1e-3)
