"""torchflows 1.2.1: ProximalResFlowBlock with more than one layer cannot be called.

Its log_det calls log_det_roulette(g, x) without the event shape.
"""
import sys

import torch
from torchflows.bijections.finite.residual.proximal import ProximalResFlowBlock

block = ProximalResFlowBlock((5,), n_layers=2)
try:
    block(torch.randn(4, 5))
except TypeError as error:
    print(f"expected (z, log_det), got TypeError: {error}")
    sys.exit(1)
