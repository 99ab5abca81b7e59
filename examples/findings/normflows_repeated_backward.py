"""normflows 1.7.3: in training, the backward pass of Residual overwrites what it saved, so a second one raises.

retain_graph=True promises that a graph can be differentiated again.
"""
import sys

import torch
from normflows.flows import Residual

torch.manual_seed(0)
block = Residual(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh(), torch.nn.Linear(2, 2))).train()
log_det = block.inverse(torch.randn(3, 2))[1].sum()
log_det.backward(retain_graph=True)
try:
    log_det.backward()
except RuntimeError as error:
    print(f"expected a second backward pass, got RuntimeError: {str(error)[:70]} …")
    sys.exit(1)
