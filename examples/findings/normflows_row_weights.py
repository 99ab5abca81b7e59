"""normflows 1.7.3: in training, Residual weights the log-det's gradient of every row by the weight of row 0.

The chain rule: a row of weight 0 in the loss has gradient 0, whatever the weights of the others.
"""
import sys

import torch
from normflows.flows import Residual

torch.manual_seed(0)
block = Residual(torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))).train()
x = torch.randn(3, 2, requires_grad=True)
_, log_det = block.inverse(x)
(log_det * torch.tensor([1.0, 0.0, 0.0])).sum().backward()
got = x.grad[1:].abs().max().item()
print(f"expected no gradient in rows of weight 0, got {got:.2e}")
sys.exit(got > 0)
