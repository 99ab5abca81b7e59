"""torchflows 1.2.1: the backward pass of ResFlowBlock switches requires_grad on for parameters that were frozen.

torch.nn.Parameter.requires_grad belongs to the caller; from then on an optimiser trains what was frozen.
"""
import sys

import torch
from torchflows.bijections.finite.residual.iterative import ResFlowBlock

torch.manual_seed(0)
g = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh(), torch.nn.Linear(2, 2))
g[0].requires_grad_(False)
block = ResFlowBlock((2,), g=g).train()
y, log_det = block(torch.randn(4, 2))
(y.sum() + log_det.sum()).backward()
print(f"expected requires_grad = False as it was set, got {g[0].weight.requires_grad}")
sys.exit(g[0].weight.requires_grad)
