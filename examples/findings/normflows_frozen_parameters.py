"""normflows 1.7.3: in training, Residual cannot be called where a parameter of its network is frozen."""
import sys

import torch
from normflows.flows import Residual

g = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh(), torch.nn.Linear(2, 2))
g[0].requires_grad_(False)
try:
    Residual(g).train().inverse(torch.randn(3, 2))
except RuntimeError as error:
    print(f"expected (x, log_det), got RuntimeError: {error}")
    sys.exit(1)
